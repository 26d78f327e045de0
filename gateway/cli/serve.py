"""`gateway serve`: run the server until SIGTERM or SIGINT; SIGHUP reloads plugins and certificates.

Only what belongs to processes stands here: how many, their log, limits, signals and exit codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from gateway.cli import print_errors
from gateway.errors import ConfigError
from gateway.server.app import running_gateway
from gateway.server.resources import Resources, open_resources
from gateway.server.shared import ProcessContext, SharedResources, open_shared_resources
from gateway.server.supervisor import Supervisor
from gateway.server.supervisor_channel import SupervisorChannel
from gateway.settings import Settings
from gateway.telemetry import logs

HELP = """\
Run the server. When it is ready it prints one line `listening on http://HOST:PORT` to stdout; the
log goes to stderr. SIGTERM stops accepting, finishes uploads on their way (up to --grace seconds)
and hands unfinished events back; SIGHUP reloads plugins and certificates, all or nothing.
With --processes N a supervisor keeps N servers alive behind one port; signals go to it.
"""

log = logging.getLogger("gateway")

YOUNG_OBJECTS = 50_000
"""New objects after which the collector looks at them; a request makes about a hundred."""

WANTED_FILES = 65_536
"""Open files to ask the system for: an upload needs a connection and a file."""


def run(settings: Settings) -> int:
    """Serve until a signal says stop; return the exit code. Raises `ConfigError` before the start."""
    logs.configure(settings.log_format, settings.log_level)
    logs.log_thread_failures()
    _raise_file_limit()
    shared = open_shared_resources(settings)
    with contextlib.closing(shared):
        if settings.processes == 1:
            process = shared.process(0)
            return _serve(settings, process, _nothing, lambda: _greet(settings, process))
        return _supervise(settings, shared)


def _supervise(settings: Settings, shared: SharedResources) -> int:
    """Keep one process alive for every slot."""
    started = False

    def work(slot: int, link: SupervisorChannel) -> int:
        logs.set_process_fields(process=slot)
        try:
            return _serve(settings, shared.process(slot), link.prepared, link.ready)
        except* ConfigError as faults:
            if started:
                log.error("it cannot start: %s", "; ".join(map(str, faults.exceptions)))
                return_code = 2
            else:
                return_code = print_errors(faults)
        return return_code

    def announce() -> None:
        nonlocal started
        started = True
        _greet(settings, shared.process(0))

    def ended(slot: int) -> None:
        shared.reservations[slot] = 0

    supervisor = Supervisor(settings.processes, work, settings.grace, announce, ended, shared.close_port)
    return supervisor.run()


def _serve(
    settings: Settings, process: ProcessContext, prepared: Callable[[], None], ready: Callable[[], None]
) -> int:
    """Be one process: `prepared` may wait before the port is opened, `ready` is called after that."""
    asked: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: asked.append(number))  # until the loop hears it
    resources = open_resources(settings, process)
    prepared()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_stopped(resources, ready, asked))
    return 0


async def _until_stopped(resources: Resources, ready: Callable[[], None], asked: list[int]) -> None:
    """Start, serve and stop. `asked` has the reloads that were asked for before the loop ran."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, asked.append, signal.SIGHUP)
    async with running_gateway(resources) as gateway:
        loop.add_signal_handler(signal.SIGHUP, _spawn, reloads, gateway.reload)
        calm_collector()
        gateway.log_description()
        ready()
        if asked:  # while the plugins were being loaded: these may be the old ones
            _spawn(reloads, gateway.reload)
        await ended.wait()
        log.info("stopping: no new requests, uploads on their way are finished")
        if reloads:
            await asyncio.wait(reloads)
    log.info("stopped")


def calm_collector() -> None:
    """Let Python look for garbage in cycles seldom, and never among what the start has made.

    Requests leave no cycles, yet each made enough objects to have the collector run several times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)


def _spawn(tasks: set[asyncio.Task[None]], make: Any) -> None:
    work: Coroutine[Any, Any, None] = make()
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _nothing() -> None:
    """There is nobody to wait for."""


def _greet(settings: Settings, process: ProcessContext) -> None:
    if process.token is not None:
        print(
            "a token was made; it is shown only this once, and kept hashed in "
            f"{settings.state}:\n\n    {process.token}\n\n"
            'use it as `curl -H "X-Auth-Token: <token>" -T FILE URL`',
            flush=True,
        )
    print(f"listening on {process.url}", flush=True)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
