"""SIGTERM: bodies on their way are finished, and deliveries lose nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support import PROJECT
from tests.support.harness import (
    TIMEOUT,
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


SIZE = 8 << 20

TELLS = """
name: tells
event: APIGW.OnFileUploadFailed
script: |
  async def tells(event, handle):
      logger.warning("told of %s", event["path"])
"""


async def test_handlers_are_told_of_uploads_that_a_stop_cuts_off(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", TELLS)
    gateway = gateway_process("--plugins", str(folder), "--grace", "0.2")
    paths = [f"/upload/{number}" for number in range(8)]
    async with contextlib.AsyncExitStack() as stack:
        for path in paths:
            client = await stack.enter_async_context(raw_connection(gateway))
            await client.send(
                request_head("PUT", path, f"Content-Length: {SIZE}", "Expect: 100-continue")
            )
            assert b"100 Continue" in await client.line()
            await client.send(bytes(SIZE // 2))
        assert await asyncio.to_thread(gateway.terminate) == 0
    assert [path for path in paths if f"told of {path}" not in gateway.log()] == []


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_gateway_without_stdout_and_stderr_serves_and_stops(
    tmp_path: Path, processes: str
) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--directory", str(tmp_path / "data")]
    command += ["--port", "0", "--processes", processes]
    gateway = subprocess.Popen(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], cwd=PROJECT)
    owners = [tmp_path / "data" / ".gateway" / f"owner-{slot}.sock" for slot in range(int(processes))]
    try:
        await wait_until(lambda: gateway.poll() is not None or all(owner.exists() for owner in owners))
        gateway.terminate()
        assert gateway.wait(TIMEOUT) == 0
    finally:
        gateway.kill()
        gateway.wait(TIMEOUT)
