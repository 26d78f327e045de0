"""Requests that end badly leave none of their bytes in memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import aborted
from bench.aborted import AbortedRequest, aborted_answers, aborted_bodies
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import wait_until

MIB = 1 << 20
CLIENTS = 20
SECONDS_TO_RETURN = 10.0


def _connections(gateway: Gateway) -> int:
    server = gateway.servers[0].server
    assert server is not None
    return len(server.connections)


@contextlib.contextmanager
def kept_garbage() -> Iterator[list[Any]]:
    """Keep what the cyclic collector finds, which runs only when it is called."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _referenced_bytes(garbage: list[Any]) -> int:
    found = {id(part): part for one in garbage for part in gc.get_referents(one)}
    return sum(len(part) for part in found.values() if isinstance(part, bytes | bytearray))


@pytest.mark.parametrize("request_", aborted_bodies() + aborted_answers(), ids=lambda one: one.name)
async def test_an_aborted_request_leaves_no_cycle_that_holds_its_body(
    start_gateway: StartGateway, tmp_path: Path, request_: AbortedRequest
) -> None:
    async with aborted.upstream_server() as upstream:
        plugins = str(aborted.write_plugins(tmp_path / "plugins", upstream))
        gateway = await start_gateway(plugins=[plugins], downloads="true", auth="none")
        await aborted.store_file(gateway.address)
        with kept_garbage() as garbage:
            for _ in range(3):
                await aborted.send_and_disconnect(gateway.address, request_)
            await wait_until(lambda: not _connections(gateway))
            gc.collect()
            kept = _referenced_bytes(garbage)
    assert kept < 64 << 10


async def _flood(address: tuple[str, int], request: AbortedRequest, count: int) -> None:
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await aborted.send_and_disconnect(address, request)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("kind", ["bodies", "answers"])
async def test_memory_is_back_ten_seconds_after_aborted_requests(
    gateway_process: StartProcess, tmp_path: Path, kind: str
) -> None:
    requests, count = (aborted_bodies(), 60) if kind == "bodies" else (aborted_answers(), 20)
    async with aborted.upstream_server() as upstream:
        plugins = aborted.write_plugins(tmp_path / "plugins", upstream)
        gateway = gateway_process(*aborted.FLAGS, "--plugins", str(plugins))
        process = psutil.Process(gateway.process.pid)
        await aborted.store_file(gateway.address)
        before = process.memory_info().rss
        for request in requests:
            await _flood(gateway.address, request, count)
        deadline = time.monotonic() + SECONDS_TO_RETURN
        while process.memory_info().rss - before >= 64 * MIB and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
    assert process.memory_info().rss - before < 64 * MIB
