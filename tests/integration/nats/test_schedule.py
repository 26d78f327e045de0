"""Schedules with NATS: every gateway ticks, and each tick is run once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from gateway.events.protocols import Selection
from tests.conftest import StartGateway
from tests.support.harness import TIMEOUT, complete_lines, wait_until, write_plugin
from tests.support.nats.servers import Server

TICKER = """\
name: ticker
event: Schedule
every: 1s
script: |
  async def ticker(event, handle):
      with open({log!r}, "a") as log:
          log.write(json.dumps(event) + "\\n")
"""


async def test_two_gateways_tick_and_each_tick_is_run_once(
    server: Server, start_gateway: StartGateway, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", TICKER.format(log=str(log)))
    for name in ("one", "two"):
        await start_gateway(directory=str(tmp_path / name), events=server.url, plugins=[str(folder)])
    await wait_until(lambda: len(complete_lines(log)) >= 3)
    runs = [json.loads(line) for line in complete_lines(log)]
    assert len({run["id"] for run in runs}) == len(runs)
    assert "upload_id" not in runs[0]
    assert "filepath" not in runs[0]
    assert {run["id"] for run in runs} == {f"tick.ticker.{run['scheduled']}" for run in runs}


async def test_ticks_that_fall_due_without_nats_are_run_when_it_comes(
    server: Server, start_gateway: StartGateway, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", TICKER.format(log=str(log)))
    server.kill()
    gateway = await start_gateway(events=server.url, plugins=[str(folder)])
    async with asyncio.timeout(TIMEOUT):
        while not (
            await gateway.resources.journal.ledger.page(Selection(handler="ticker"), None, 1)
        ).rows:
            await asyncio.sleep(0.02)  # the journal is the only sign of a tick so far
    back = time.time()
    await asyncio.to_thread(server.start)  # the gateway lives on this very loop
    await wait_until(lambda: any(json.loads(line)["scheduled"] < back for line in complete_lines(log)))
