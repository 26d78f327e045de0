"""`GET /-/live`: what goes on now, in all processes, as a snapshot and as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.auth.tokens import token_digest
from gateway.endpoints.admin import live
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    get,
    put,
    raw_connection,
    request_head,
    wait_until,
)


@contextlib.asynccontextmanager
async def stream_of(gateway: Gateway | GatewayProcess, **headers: str) -> AsyncIterator[Any]:
    """Follow what goes on: yields a function that returns the next snapshot, None at the end."""
    accept = {"Accept": "text/event-stream", **headers}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(f"{gateway.url}/-/live", headers=accept) as response,
    ):
        assert (response.status, response.content_type) == (200, "text/event-stream")

        async def following() -> Any:
            async with asyncio.timeout(TIMEOUT):
                async for line in response.content:
                    if line.startswith(b"data: "):
                        return json.loads(line[6:])
            return None

        yield following


async def test_an_upload_on_its_way_is_shown_with_its_bytes_and_then_as_the_latest(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as client, stream_of(gateway) as following:
        head = request_head("PUT", "/upload/slow.bin", "Content-Length: 3000000")
        await client.send(head + b"x" * 1_000_000)
        while not (snapshot := await following())["active"] or not snapshot["active"][0]["rate"]:
            await client.send(b"x" * 10_000)
        (row,) = snapshot["active"]
        assert (row["path"], row["state"], row["expected"]) == (
            "/upload/slow.bin",
            "receiving",
            3_000_000,
        )
        assert (row["protocol"], row["remote"]) == ("put", "127.0.0.1")
        assert snapshot["rates"]["bytes_per_second"] > 0
        client.reset()
        while (snapshot := await following())["active"]:
            pass
        assert snapshot["latest"][0] | {"bytes": 0, "started": 0, "ended": 0, "upload_id": 0} == {
            "upload_id": 0, "state": "failed", "path": "/upload/slow.bin", "bytes": 0, "started": 0,
            "ended": 0, "principal": None, "remote": "127.0.0.1", "error": "connection_lost",
        }  # fmt: skip
    await put(gateway, "/upload/b.txt", b"b")
    await asyncio.sleep(live.FRESH)
    answer = (await get(gateway, "/-/live")).json
    assert [(row["path"], row["state"]) for row in answer["latest"]] == [
        ("/upload/b.txt", "stored"),
        ("/upload/slow.bin", "failed"),
    ]
    assert answer["queue"] == {}


async def test_one_snapshot_a_second_serves_all_who_look(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    monkeypatch.setattr(live, "FRESH", 1e6)
    first = (await get(gateway, "/-/live")).json
    async with stream_of(gateway) as one, stream_of(gateway) as other:
        assert first == await one() == await other()
    await wait_until(lambda: gateway.endpoints.operators.streams.share.used == 0)


async def test_a_stream_ends_when_its_token_counts_no_more(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "CHECK_INTERVAL", 0.0)
    gateway = await start_gateway(auth="token", tokens=[f"alice:{token_digest('secret')}"])
    async with stream_of(gateway, Authorization="Bearer secret") as following:
        assert await following()
        gateway.endpoints.dispatcher.auth.tokens.replace(())
        while await following():
            pass
    assert (await get(gateway, "/-/live", "Authorization: Bearer secret")).status == 401


async def test_all_processes_are_one_and_one_that_hangs_is_told_as_silent(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process("--processes", "2")
    for number in range(8):
        await put(gateway, f"/upload/{number}", b"x")
    async with stream_of(gateway) as following:
        while len((snapshot := await following())["latest"]) < 8:
            pass
        assert (snapshot["processes"], snapshot["silent_processes"]) == (2, [])
        assert await _silent_while_stopped(gateway.process.pid, following) in ([0], [1])
        while (snapshot := await following())["silent_processes"]:
            pass
        assert len(snapshot["latest"]) == 8


async def _silent_while_stopped(supervisor: int, following: Any) -> list[int]:
    """Stop the process that does not send the stream; return the silent ones that the stream tells."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    for child in map(int, children):
        os.kill(child, signal.SIGSTOP)
        try:
            async with asyncio.timeout(4):
                while not (silent := (await following())["silent_processes"]):
                    pass
        except TimeoutError:  # this one sends the stream
            continue
        finally:
            os.kill(child, signal.SIGCONT)
        return list(silent)
    return []
