"""SIGTERM: bodies on their way are finished, and deliveries lose nothing by it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    get,
    handlers_done,
    put,
    raw_connection,
    request_head,
    wait_port_closed,
    wait_until,
    write_plugin,
)

pytestmark = pytest.mark.slow


FAILS = """
name: fails
event: APIGW.OnFileUploaded
retry: {attempts: 3, backoff: 8}
script: |
  async def fails(event, handle):
      raise RuntimeError("not yet")
"""

WAITS = """
name: waits
event: APIGW.OnFileUploaded
script: |
  async def waits(event, handle):
      print("it runs")
      await asyncio.sleep(3600)
"""


def deliveries(directory: Path) -> Any:
    """Read the journal of a stopped gateway, as an operator would."""
    command = [sys.executable, "-m", "gateway", "events", "list", "--json"]
    command += ["--directory", str(directory)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


async def test_retries_that_fall_due_during_a_stop_use_no_attempt(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    gateway = gateway_process("--plugins", str(write_plugin(tmp_path / "plugins", FAILS)))
    answer = await put(gateway, "/upload/x", b"1")

    async def first_run() -> Any:
        handler = (await get(gateway, answer.headers["Location"])).json["handlers"][0]
        return handler["runs"] and handler

    assert (await wait_until(first_run))["attempt"] == 1
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/upload/slow", "Content-Length: 2", "Expect: 100-continue")
        )
        assert b"100 Continue" in await connection.line()  # it is being served
        await connection.line()
        await connection.send(b"1")
        gateway.signal(15)
        await wait_port_closed(gateway)
        await asyncio.sleep(8.2)  # the second run would fall due in this time, after 4 to 8 s
        await connection.send(b"2")
        assert (await connection.answer()).status == 201
    assert gateway.wait() == 0
    (first, late) = deliveries(gateway.directory)
    assert (first["path"], first["attempt"]) == ("/upload/x", 1)
    assert (late["path"], late["attempt"]) == ("/upload/slow", 0)
    assert {first["state"], late["state"]} <= {"ready", "delayed"}


async def test_a_run_that_does_not_end_is_handed_back_without_using_an_attempt(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", WAITS)
    gateway = gateway_process("--plugins", str(folder), "--grace", "0.2")
    answer = await put(gateway, "/upload/x", b"1")
    await handlers_done(gateway, answer.json["upload_id"], state="running")
    assert gateway.terminate() == 0
    (delivery,) = deliveries(gateway.directory)
    assert (delivery["state"], delivery["attempt"]) == ("ready", 0)


IN_A_THREAD = """
name: waits
event: APIGW.OnFileUploaded
timeout: 1
script: |
  import time as clock

  async def waits(event, handle):
      print("it runs")
      await asyncio.to_thread(clock.sleep, 3600)
"""


async def test_a_thread_of_a_handler_does_not_hold_up_a_stop(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", IN_A_THREAD)
    gateway = gateway_process("--plugins", str(folder), "--grace", "0.2")
    answer = await put(gateway, "/upload/x", b"1")
    await handlers_done(gateway, answer.json["upload_id"], state="running")
    assert gateway.terminate() == 0
    assert "stopped" in gateway.log()
    (delivery,) = deliveries(gateway.directory)
    assert (delivery["state"], delivery["attempt"]) == ("ready", 0)
