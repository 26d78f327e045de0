"""`gateway serve`: run the server until SIGTERM or SIGINT; SIGHUP reloads plugins and certificates.

Only what belongs to the process stands here: its log, its limits, its signals, its exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop

from gateway import logs
from gateway.app import Gateway
from gateway.settings import Settings

HELP = """\
Run the server. When it is ready it prints one line `listening on http://HOST:PORT` to stdout; the
log goes to stderr. SIGTERM stops accepting, finishes uploads on their way (up to --grace seconds)
and hands unfinished events back; SIGHUP reloads plugins and certificates, all or nothing.
"""

log = logging.getLogger("gateway")

YOUNG_OBJECTS = 50_000
"""New objects after which the collector looks at them; a request makes about a hundred."""

WANTED_FILES = 65_536
"""Open files to ask the system for: an upload needs a connection and a file."""


def run(settings: Settings) -> int:
    """Serve until a signal says stop; return the exit code. Raises `ConfigError` before the start."""
    logs.configure(settings.log_format, settings.log_level)
    logs.take_thread_failures()
    _raise_file_limit()
    gateway = Gateway(settings)
    gateway.prepare()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(gateway))
    return 0


async def _serve(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, _spawn, reloads, gateway.reload)
    await gateway.start()
    _calm_collector()
    _greet(gateway)
    await ended.wait()
    log.info("stopping: no new requests, uploads on their way are finished")
    if reloads:
        await asyncio.wait(reloads)
    await gateway.stop()
    log.info("stopped")


def _calm_collector() -> None:
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


def _greet(gateway: Gateway) -> None:
    for line in gateway.describe():
        log.info("%s", line)
    if gateway.generated_token is not None:
        print(
            "a token was made; it is shown only this once, and kept hashed in "
            f"{gateway.settings.state}:\n\n    {gateway.generated_token}\n\n"
            'use it as `curl -H "X-Auth-Token: <token>" -T FILE URL`',
            flush=True,
        )
    print(f"listening on {gateway.url}", flush=True)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
