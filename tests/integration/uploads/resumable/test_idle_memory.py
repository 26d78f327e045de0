"""Partial uploads with which no request is at work take next to no memory of a process."""

from __future__ import annotations

import asyncio

import psutil

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, raw_connection, request_head
from tests.support.resumable import answers

CLIENTS, EACH = 20, 100
"""As many as one client may have, of so many clients."""

MAX_GROWTH = 12 << 20
"""Bytes of memory for 2000 of them; one that kept a buffer of 64 KiB for each would take 125 MiB."""


async def create(gateway: GatewayProcess, client: int) -> None:
    async with raw_connection(gateway) as connection:
        for number in range(EACH):
            target = f"/upload/{client}-{number}"
            lines = (f"X-Forwarded-For: 192.0.2.{client}", "Upload-Complete: ?0", "Content-Length: 1")
            await connection.send(request_head("POST", target, *lines) + b"x")
            answer = await answers(connection)
            assert answer.status == 201, answer


async def test_two_thousand_idle_uploads_take_no_memory(gateway_process: StartProcess) -> None:
    flags = ("--auth", "none", "--trusted-proxies", "127.0.0.1", "--durability", "none")
    gateway = gateway_process(*flags)
    await create(gateway, CLIENTS)  # what is allocated once
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    await asyncio.gather(*(create(gateway, client) for client in range(CLIENTS)))
    grown = process.memory_info().rss - before
    print(f"{CLIENTS * EACH} idle uploads: {grown >> 10} KiB")
    assert grown < MAX_GROWTH
