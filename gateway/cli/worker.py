"""`gateway worker`: runs handlers for gateways on other machines, until SIGTERM or SIGINT.

This module has what belongs to the process: log, signals, exit code.
"""

from __future__ import annotations

import asyncio
import logging
import signal

import uvloop

from gateway.server.memory import memory_kept_low
from gateway.server.os_process import end_process
from gateway.server.worker import WorkerResources, open_worker_resources, running_worker
from gateway.settings import Settings
from gateway.telemetry import log_output
from gateway.telemetry.logs import event

HELP = """\
Run the handlers of --plugins for the events of gateways that serve with the same --events. The
files stay with the gateways: `files.open(event)` fetches them, and needs the installation's key.

  gateway worker --events nats://nats.example --plugins plugins --installation-key-file key

When it is connected to NATS it prints one line `working on nats://... for N handlers`; the log goes
to stderr. --host and --port serve /-/health, /-/ready and /-/metrics. On SIGTERM it claims no more
deliveries, waits for running ones (up to --grace) and returns those that have not ended to
the queue. SIGHUP reloads plugins, all or nothing.
"""

log = logging.getLogger("gateway")


def run(settings: Settings) -> int:
    """Run handlers until a stop signal; return the exit code. Raises `ConfigError` before the start."""
    log_output.configure(settings.log_format, settings.log_level)
    log_output.log_thread_failures()
    resources = open_worker_resources(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(resources))
    end_process(0)


async def _work(resources: WorkerResources) -> None:
    loop = asyncio.get_running_loop()
    stop_requested, reload_requested = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    loop.add_signal_handler(signal.SIGHUP, reload_requested.set)
    working = asyncio.create_task(_start_and_reload(resources, reload_requested))
    stopping = asyncio.create_task(stop_requested.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    log.info("stopping: no further deliveries are claimed", extra=event("worker.stopping"))
    working.cancel()
    await asyncio.wait([working])
    log.info("stopped", extra=event("worker.stopped"))
    if not working.cancelled():
        working.result()


async def _start_and_reload(resources: WorkerResources, reload_requested: asyncio.Event) -> None:
    """Start, print the ready line, then reload at each request; stop when cancelled."""
    async with running_worker(resources) as worker, memory_kept_low():
        for line in resources.plugins.describe():
            log.info("%s", line, extra=event("plugin.loaded"))
        print(worker.describe(), flush=True)
        while True:
            await reload_requested.wait()
            reload_requested.clear()
            await worker.reload()
