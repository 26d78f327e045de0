"""Schedules in whole gateways: each tick's handler runs, is retried, and survives kill -9."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support.harness import TIMEOUT, complete_lines, write_plugin

WRITE = """
name: nightly
event: Schedule
every: 1s
script: |
  async def nightly(event, handle):
      if event["attempt"] == 1:
          raise ValueError("not at once")
      with open("FILE", "a") as file:
          json.dump(event, file)
          file.write("\\n")
"""


async def test_a_gateway_runs_the_handler_of_each_tick_and_retries_it(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    file = tmp_path / "ticks"
    text = WRITE.replace("FILE", str(file)) + "retry: {attempts: 2, backoff: 0.01}\n"
    await start_gateway(auth="none", plugins=[str(write_plugin(tmp_path / "p", text))])
    async with asyncio.timeout(TIMEOUT):
        while len(complete_lines(file)) < 2:
            await asyncio.sleep(0.02)  # what the handler writes is the only sign
    first, second = map(json.loads, complete_lines(file)[:2])
    assert set(first) == {
        "id", "event_version", "attempt", "address", "port", "handler", "scheduled", "scheduled_iso"
    }  # fmt: skip
    assert (first["id"], first["attempt"]) == (f"tick.nightly.{first['scheduled']}", 2)
    assert second["scheduled"] > first["scheduled"]


@pytest.mark.slow
async def test_several_processes_that_are_killed_tick_once_each_time(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    file = tmp_path / "ticks"
    text = WRITE.replace("FILE", str(file)).replace('["attempt"] == 1', '["attempt"] == 0')
    flags = ("--plugins", str(write_plugin(tmp_path / "p", text)), "--processes", "2")
    for lines in (3, 6):
        with gateway_process(*flags):
            async with asyncio.timeout(TIMEOUT):
                while len(complete_lines(file)) < lines:
                    await asyncio.sleep(0.02)  # as above
    runs = [json.loads(line) for line in complete_lines(file)]
    assert len({(run["id"], run["attempt"]) for run in runs}) == len(runs)
    assert len({run["id"] for run in runs}) >= 5
