"""`GET /-/uploads/<id>` as `text/event-stream`: a client follows one upload to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.auth.tokens import token_digest
from gateway.domain.model import UPLOADED
from gateway.endpoints.admin import event_stream, upload_stream
from gateway.http.responses import GatewayResponse
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    get,
    handlers_done,
    put,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.recorders import write_handler

ACCEPT = {"Accept": "text/event-stream"}


class Stream:
    """An open stream: its events in the order of their arrival."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, str]:
        """Return the fields of the next event; comments are passed over. Empty at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(TIMEOUT):
            async for line in self.response.content:
                name, _, value = line.decode().rstrip("\n").partition(":")
                if name:
                    fields[name] = value.strip()
                elif fields and fields.keys() != {""}:
                    return fields
        return {}

    async def status(self, wanted: Callable[[Any], bool]) -> Any:
        """Follow the upload until its status is as wanted; return it."""
        while True:
            event = await self.next()
            assert "data" in event, f"the stream ended: {event}"
            if wanted(story := json.loads(event["data"])):
                return story


@contextlib.asynccontextmanager
async def follow(
    gateway: Gateway | GatewayProcess, upload_id: str, **headers: str
) -> AsyncIterator[Stream]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(f"{gateway.url}/-/uploads/{upload_id}", headers={**ACCEPT, **headers}) as response,
    ):
        stream = Stream(response)
        if response.status == 200:
            assert (await stream.next()).keys() == {"retry"}
        yield stream


def waiting_handler(folder: Path) -> tuple[list[str], Path]:
    """Write a handler that waits for a file, and tells how far it is."""
    go = folder / "go"
    body = f"""
        import os
        handle.progress(1, 2)
        handle.result({{"pages": 1}})
        while not os.path.exists({str(go)!r}):
            await asyncio.sleep(0.01)
        handle.result({{"pages": 12}})
    """
    return write_handler(folder / "p", body, event=UPLOADED), go


async def test_a_stream_follows_an_upload_from_its_first_byte_to_its_last_handler(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins, go = waiting_handler(tmp_path)
    gateway = await start_gateway(plugins=plugins)
    inflight = gateway.endpoints.inflight
    half = b"x" * (5 << 20)
    async with raw_connection(gateway) as uploader:
        head = request_head("PUT", "/upload/x", f"Content-Length: {2 * len(half)}")
        await uploader.send(head + half[:1])
        await wait_until(lambda: len(inflight))
        (upload_id,) = inflight._active
        async with follow(gateway, upload_id) as stream:
            headers = stream.response.headers
            assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == (
                "no-store",
                "nosniff",
            )
            first = await stream.status(lambda _: True)
            assert first["state"] in {"admitting", "receiving"}
            await uploader.send(half)
            await stream.status(lambda story: 1 < story["bytes"] <= len(half) + 1)
            await uploader.send(half[1:])
            assert (await uploader.answer()).status == 201
            running = await stream.status(lambda s: s["handlers"] and "progress" in s["handlers"][0])
            assert (running["state"], running["handlers"][0]["state"]) == ("stored", "running")
            assert running["handlers"][0]["progress"] == {"done": 1, "total": 2}
            go.touch()
            done = await stream.status(lambda s: s["handlers"][0]["state"] == "done")
            assert (done["result"], done["handlers"][0]["result"]) == ({"pages": 12}, {"pages": 12})
            assert await stream.next() == {"event": "end", "data": "{}"}
            assert await stream.next() == {}
    assert done == (await get(gateway, f"/-/uploads/{upload_id}")).json
    assert gateway.endpoints.operators.streams.share.used == 0
    async with follow(gateway, upload_id) as stream:  # one who comes late
        event = await stream.next()
        assert json.loads(event["data"]) == done
        assert (await stream.next())["event"] == "end"
    async with follow(gateway, upload_id, **{"Last-Event-ID": event["id"]}) as stream:
        assert stream.response.status == 204  # a browser stops connecting


async def test_a_stream_is_for_those_who_may_read_the_status(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token", tokens=[f"me:{token_digest('secret')}"])
    upload_id = (await put(gateway, "/upload/x", b"x", "Authorization: Bearer secret")).json["upload_id"]
    async with follow(gateway, upload_id) as stream:
        assert stream.response.status == 401
    async with follow(gateway, "nobody-knows", Authorization="Bearer secret") as stream:
        assert (stream.response.status, (await stream.response.json())["error"]) == (404, "not_found")
    async with follow(gateway, upload_id, Authorization="Bearer secret") as stream:
        assert (await stream.status(lambda _: True))["state"] == "stored"
    accepted = {"Accept": "*/*, text/event-stream;q=0", "Authorization": "Bearer secret"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}/-/uploads/{upload_id}", headers=accepted) as response,
    ):
        assert response.content_type == "application/json"


async def test_one_client_cannot_take_all_streams_and_gives_its_own_back(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_STREAMS", 4)
    monkeypatch.setattr(upload_stream, "HEARTBEAT_INTERVAL", 1e6)  # nothing is written meanwhile
    plugins, go = waiting_handler(tmp_path)
    gateway = await start_gateway(plugins=plugins)
    upload_id = (await put(gateway, "/upload/x")).json["upload_id"]
    async with contextlib.AsyncExitStack() as clients:
        for _ in range(2):
            stream = await clients.enter_async_context(follow(gateway, upload_id))
            await stream.status(lambda _: True)
        async with follow(gateway, upload_id) as refused:
            assert refused.response.status == 429
            assert (await refused.response.json())["error"] == "too_many_requests"
        assert gateway.endpoints.operators.streams.share.used == 2
    await wait_until(
        lambda: gateway.endpoints.operators.streams.share.used == 0
    )  # they have disconnected
    go.touch()


async def test_a_stream_ends_after_its_longest_time_while_the_upload_goes_on(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_STREAM_TIMEOUT", 0.0)
    plugins, go = waiting_handler(tmp_path)
    gateway = await start_gateway(plugins=plugins)
    upload_id = (await put(gateway, "/upload/x")).json["upload_id"]
    async with follow(gateway, upload_id) as stream:
        await stream.status(lambda _: True)
        assert await stream.next() == {}
    go.touch()
    await handlers_done(gateway, upload_id)


async def test_a_client_that_takes_no_events_is_disconnected(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "WRITE_TIMEOUT", 0.01)
    gateway = await start_gateway()
    upload_id = (await put(gateway, "/upload/x")).json["upload_id"]
    monkeypatch.setattr(GatewayResponse, "write", lambda *_: asyncio.Event().wait())
    async with raw_connection(gateway) as client:
        await client.send(request_head("GET", f"/-/uploads/{upload_id}", "Accept: text/event-stream"))
        await asyncio.wait_for(client.reader.read(), TIMEOUT)
    await wait_until(lambda: gateway.endpoints.operators.streams.share.used == 0)


async def test_a_stopping_gateway_ends_streams_but_of_uploads_it_still_waits_for(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins, go = waiting_handler(tmp_path)
    gateway = await start_gateway(plugins=plugins)
    stored = (await put(gateway, "/upload/x")).json["upload_id"]
    async with raw_connection(gateway) as uploader:
        await uploader.send(request_head("PUT", "/upload/y", "Content-Length: 2") + b"x")
        await wait_until(lambda: len(gateway.endpoints.inflight))
        (coming,) = gateway.endpoints.inflight._active
        async with follow(gateway, stored) as one, follow(gateway, coming) as other:
            await one.status(lambda story: story["handlers"][0]["state"] == "running")
            await other.status(lambda story: story["state"] in {"admitting", "receiving"})
            gateway.endpoints.operators.streams.stop()
            while event := await one.next():
                assert event.get("event") != "end"
            await uploader.send(b"x")
            await other.status(lambda story: story["state"] == "stored")
            while event := await other.next():
                assert event.get("event") != "end"
    go.touch()
    await handlers_done(gateway, stored)


@pytest.mark.slow
async def test_any_process_follows_the_upload_of_another(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    plugins, go = waiting_handler(tmp_path)
    gateway = gateway_process("--processes", "3", "--plugins", plugins[0])
    ids = [(await put(gateway, f"/upload/{n}")).json["upload_id"] for n in range(6)]
    async with contextlib.AsyncExitStack() as clients:
        streams = [await clients.enter_async_context(follow(gateway, key)) for key in ids]
        for stream in streams:
            await stream.status(lambda story: story["state"] == "stored")
        go.touch()
        for stream in streams:
            done = await stream.status(lambda story: story["handlers"][0]["state"] == "done")
            assert done["result"] == {"pages": 12}
            assert await stream.next() == {"event": "end", "data": "{}"}
