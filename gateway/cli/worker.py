"""`gateway worker`: run handlers on this machine, for gateways elsewhere, until SIGTERM or SIGINT.

Only what belongs to the process stands here: its log, its signals, its exit code.
"""

from __future__ import annotations

import asyncio
import logging
import signal

import uvloop

from gateway.server.worker import WorkerResources, open_worker_resources, running_worker
from gateway.settings import Settings
from gateway.telemetry import logs

HELP = """\
Run the handlers of --plugins for the events of gateways that serve with the same --events. The
files stay with the gateways: `files.open(event)` fetches them, and needs the installation's key.

  gateway worker --events nats://nats.example --plugins plugins --installation-key-file key

When it has reached NATS it prints one line `working on nats://... for N handlers`; the log goes to
stderr. --host and --port have /-/health, /-/ready and /-/metrics. SIGTERM claims no more, lets runs
end (up to --grace seconds) and hands the others back; SIGHUP reloads plugins, all or nothing.
"""

log = logging.getLogger("gateway")


def run(settings: Settings) -> int:
    """Work until a signal says stop; return the exit code. Raises `ConfigError` before the start."""
    logs.configure(settings.log_format, settings.log_level)
    logs.log_thread_failures()
    resources = open_worker_resources(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(resources))
    return 0


async def _work(resources: WorkerResources) -> None:
    loop = asyncio.get_running_loop()
    ended, wanted = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, wanted.set)
    working = asyncio.create_task(_start_and_follow(resources, wanted))
    ending = asyncio.create_task(ended.wait())
    await asyncio.wait([working, ending], return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    log.info("stopping: nothing more is claimed")
    working.cancel()
    await asyncio.wait([working])
    log.info("stopped")
    if not working.cancelled():
        working.result()


async def _start_and_follow(resources: WorkerResources, wanted: asyncio.Event) -> None:
    """Start, tell so, then reload whenever it is wanted, until cancelled."""
    async with running_worker(resources) as worker:
        for line in resources.plugins.describe():
            log.info("%s", line)
        print(worker.describe(), flush=True)
        while True:
            await wanted.wait()
            wanted.clear()
            await worker.reload()
