"""Server-sent events pass as they come, one by one."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.harness import TIMEOUT, raw_connection, request_head
from tests.support.routing.proxying import read_head, upstream
from tests.support.routing.scripted import Serve, route

EVENTS = 20
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Old: 1\r\n\r\n"


@pytest.mark.parametrize(
    "more", ["", "response_headers: {set: {X-Own: 'yes'}, remove: [X-Old]}\n"], ids=["plain", "ruled"]
)
async def test_each_event_arrives_before_the_next_one_is_sent(serve: Serve, more: str) -> None:
    read = [asyncio.Event() for _ in range(EVENTS)]

    async def send_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HEAD)
        for number, event in enumerate(read):
            writer.write(b"id: %d\ndata: x\n\n" % number)
            await event.wait()

    async with upstream(send_events) as up:
        gateway = await serve(route(more=more).replace("[]", f"['{up.authority}']", 1))
        async with raw_connection(gateway) as client, asyncio.timeout(TIMEOUT):
            await client.send(request_head("GET", "/r"))
            head = await client.head()
            assert ("X-Old" in head.headers, "X-Own" in head.headers) == (not more, bool(more))
            for number, event in enumerate(read):
                assert b"id: %d\n" % number in await client.reader.readuntil(b"\n\n")
                event.set()
