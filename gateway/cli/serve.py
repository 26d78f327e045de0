"""`gateway serve`: runs the server until SIGTERM or SIGINT; SIGHUP reloads plugins and more.

This module has what belongs to processes: their number, log, limits, signals and exit codes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvloop

from gateway.cli import print_errors
from gateway.endpoints.admin.reload import ReloadOutcome
from gateway.errors import ConfigError
from gateway.server.app import Gateway, running_gateway
from gateway.server.heartbeat import report_heartbeats
from gateway.server.memory import memory_kept_low
from gateway.server.os_process import end_process, notify_service_manager
from gateway.server.process import SharedResources, open_shared_resources
from gateway.server.resources import Resources, open_resources
from gateway.server.supervisor import Supervisor
from gateway.server.supervisor_channel import SupervisorChannel
from gateway.server.watch import Watcher, check_command
from gateway.settings import Settings, flag_values, load
from gateway.telemetry import log_output
from gateway.telemetry.logs import event

HELP = """\
Run the server. When it is ready it prints one line `listening on http://HOST:PORT` to stdout; the
log goes to stderr. On SIGTERM it stops accepting, finishes running uploads (up to --grace)
and returns unfinished deliveries to the queue. SIGHUP reloads plugins, certificates and the tokens
of the settings, all or nothing. With --processes N (auto: one for each core) a supervisor keeps N
servers alive behind one port; send signals to it. With --watch plugins are checked, their tests
included, whenever one of their files changes, and reloaded if there is no fault.
"""

log = logging.getLogger("gateway")

MAX_OPEN_FILES = 65_536
"""Limit of open files to request from the system: an upload needs a connection and a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--watch", action="store_true", help="check and reload plugins when their files change"
    )


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Serve until a stop signal; return the exit code. Raises `ConfigError` before the start."""
    log_output.configure(settings.log_format, settings.log_level)
    log_output.log_thread_failures()
    _raise_file_limit()
    check = check_command(args.words) if args.watch else []
    shared = open_shared_resources(settings, partial(load, flag_values(args), os.environ))
    with contextlib.closing(shared):
        if settings.processes > 1:
            return _supervise(shared, check)
        try:
            code = _serve(shared, _Process(0, _nothing, lambda: _greet(shared), check=check))
        except BaseException:
            shared.fresh.discard()
            raise
        # The directory stays locked to the last: a handler's thread may still write.
        end_process(code)


def _supervise(shared: SharedResources, check: Sequence[str]) -> int:
    """Run one process for every slot."""
    settings = shared.settings
    started = False

    def work(slot: int, link: SupervisorChannel) -> int:
        log_output.set_process_fields(process=slot)
        try:
            watched = check if slot == 0 else ()
            heartbeat = link.report_heartbeat
            return _serve(shared, _Process(slot, link.prepared, link.ready, heartbeat, watched))
        except* ConfigError as errors:
            if started:
                reasons = "; ".join(map(str, errors.exceptions))
                log.error("the process cannot start: %s", reasons, extra=event("process.failed"))
                return_code = 2
            else:
                return_code = print_errors(errors)
        return return_code

    def announce() -> None:
        nonlocal started
        started = True
        _greet(shared)

    def ended(slot: int) -> None:
        shared.reservations.clear(slot)
        shared.in_flight.clear(slot)

    supervisor = Supervisor(
        *(settings.processes, work, settings.grace, announce, ended, shared.close_port), shared.health
    )
    code = supervisor.run()
    if not supervisor.opened:
        shared.fresh.discard()
    return code


@dataclass(frozen=True, slots=True)
class _Process:
    """One process: `prepared` may wait before the port is opened, `ready` is called after that.

    `report_heartbeat` is called while the process reacts. `check` is the command that checks plugins
    whose files have changed; without one they are not watched.
    """

    slot: int
    prepared: Callable[[], None]
    ready: Callable[[], None]
    report_heartbeat: Callable[[], None] | None = None
    check: Sequence[str] = ()


def _serve(shared: SharedResources, process: _Process) -> int:
    """Run one process."""
    reload_signals: list[int] = []
    # Until the loop handles the signal.
    signal.signal(signal.SIGHUP, lambda number, _: reload_signals.append(number))
    resources = open_resources(shared.settings, shared, process.slot)
    process.prepared()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_on_loop(resources, process, reload_signals))
    return 0


async def _serve_on_loop(resources: Resources, process: _Process, reload_signals: list[int]) -> None:
    """Serve, and report heartbeats to the end of the stop."""
    reporting = None
    if process.report_heartbeat is not None:
        heartbeats = report_heartbeats(resources.journal.ledger, process.report_heartbeat)
        reporting = asyncio.create_task(heartbeats)
    try:
        await _until_stopped(resources, process, reload_signals)
    finally:
        if reporting is not None:
            reporting.cancel()


async def _until_stopped(resources: Resources, process: _Process, reload_signals: list[int]) -> None:
    """Start, serve and stop. `reload_signals` has the SIGHUPs from before the loop ran."""
    loop = asyncio.get_running_loop()
    stop_requested = asyncio.Event()
    reloads: set[asyncio.Task[ReloadOutcome]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    loop.add_signal_handler(signal.SIGHUP, reload_signals.append, signal.SIGHUP)
    async with running_gateway(resources) as gateway, memory_kept_low():
        loop.add_signal_handler(signal.SIGHUP, _spawn, reloads, gateway.reload)
        gateway.log_description()
        process.ready()
        if reload_signals:  # received while plugins were loading: the loaded ones may be outdated
            _spawn(reloads, gateway.reload)
        async with _watching(gateway, process.check):
            await stop_requested.wait()
        log.info(
            "stopping: no new requests, running uploads are finished", extra=event("gateway.stopping")
        )
        if reloads:
            await asyncio.wait(reloads)
    log.info("stopped", extra=event("gateway.stopped"))


@contextlib.asynccontextmanager
async def _watching(gateway: Gateway, check: Sequence[str]) -> AsyncIterator[None]:
    """Watch the files of plugins meanwhile, if there is a command to check them."""
    if not check:
        yield
        return
    watcher = Watcher(gateway.resources.settings, check, gateway.endpoints.operators.reload.reload_all)
    task = asyncio.create_task(watcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _spawn(
    tasks: set[asyncio.Task[ReloadOutcome]], make: Callable[[], Coroutine[Any, Any, ReloadOutcome]]
) -> None:
    task = asyncio.create_task(make())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _nothing() -> None:
    """A single process waits for no other."""


def _greet(shared: SharedResources) -> None:
    if shared.token is not None:
        print(
            "a token was created; it is shown only this once, and stored hashed in "
            f"{shared.settings.state}:\n\n    {shared.token}\n\n"
            'use it as `curl -H "X-Auth-Token: <token>" -T FILE URL`',
            flush=True,
        )
    print(f"listening on {shared.url}", flush=True)
    notify_service_manager(shared.url)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft < limit:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
