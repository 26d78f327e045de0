"""How soon work goes on after a `kill -9` in the middle of a handler. Used by `test_chaos.py` and
`bench/chaos.py`.

The handler writes down when each of its runs begins, and the first one never ends.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from tests.support.deployment import RestartableGateway, RestartableWorker
from tests.support.fault_injection import RECOVERY_TIMEOUT
from tests.support.harness import complete_lines, put, write_plugin
from tests.support.nats.servers import Server

SLEEPER: Final = """\
name: sleeper
event: APIGW.OnFileUploaded
retry: {{attempts: 3, backoff: 0.1}}
script: |
  import os
  async def sleeper(event, handle):
      to = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
      os.write(to, f"{{time.time()}}\\n".encode())
      os.close(to)
      await asyncio.sleep(event["attempt"] == 1 and 600 or 0)
"""


class InterruptedHandler:
    """The plugin in `folder/plugins`, and what its handler wrote."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "sleeper.log"
        self.plugins = write_plugin(folder / "plugins", SLEEPER.format(log=str(self._log)))

    def begun(self) -> list[float]:
        """When each run began, in seconds since 1970."""
        return [float(line) for line in complete_lines(self._log)]

    async def run(self, number: int) -> float:
        """Wait until run `number` (from 1) has begun; return when it did."""
        async with asyncio.timeout(RECOVERY_TIMEOUT):
            while len(self.begun()) < number:
                await asyncio.sleep(0.005)  # what it wrote is the only sign
        return self.begun()[number - 1]


async def seconds_after_restart(folder: Path) -> float:
    """Embedded: kill a gateway in mid-handler, start it. Seconds from the start command to the run."""
    sleeper = InterruptedHandler(folder)
    gateway = RestartableGateway(folder / "data", ["--plugins", str(sleeper.plugins)])
    try:
        await _begin(gateway, sleeper)
        await asyncio.to_thread(gateway.kill)
        back = time.time()
        await asyncio.to_thread(gateway.start)
        return await sleeper.run(2) - back
    finally:
        gateway.kill()


async def seconds_after_a_worker_died(folder: Path, server: Server, lease: float) -> float:
    """NATS: kill a worker in mid-handler. Seconds until the run begins in another one."""
    sleeper = InterruptedHandler(folder)
    flags = ["--events", server.url, "--events-lease", str(lease), "--plugins", str(sleeper.plugins)]
    key = str(folder / "data/.gateway/installation.key")
    first, second = (
        RestartableWorker(folder / name, [*flags, "--installation-key-file", key], wait=True)
        for name in ("first", "second")
    )
    gateway = RestartableGateway(folder / "data", [*flags, "--deliver", "workers"])
    try:
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(first.start)
        await _begin(gateway, sleeper)
        await asyncio.to_thread(second.start)
        killed = time.time()
        await asyncio.to_thread(first.kill)
        return await sleeper.run(2) - killed
    finally:
        for member in (first, second, gateway):
            member.kill()


async def _begin(gateway: RestartableGateway, sleeper: InterruptedHandler) -> None:
    """Upload a file whose handler then runs."""
    if gateway.process is None:
        await asyncio.to_thread(gateway.start)
    assert gateway.process is not None
    assert (await put(gateway.process, "/upload/a")).status == 201
    await sleeper.run(1)
