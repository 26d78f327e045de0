"""What hangs takes no place of others: upstreams, routes and clients have bounded shares."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.auth.tokens import token_digest
from gateway.endpoints.routing.proxy import proxy
from gateway.server.app import Gateway
from tests.support.harness import (
    RawConnection,
    get,
    put,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.routing.api import api
from tests.support.routing.proxying import answer_all, read_head, respond, upstream
from tests.support.routing.scripted import Serve, ask, route

pytestmark = pytest.mark.both_paths


@contextlib.asynccontextmanager
async def waiting(gateway: Gateway, count: int, path: str) -> AsyncIterator[list[RawConnection]]:
    """Send requests whose upstream never answers."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_connection(gateway)) for _ in range(count)]
        for client in clients:
            await client.send(request_head("GET", path))
        yield clients


class Silent:
    """An upstream that never answers; `asked` counts its requests."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        self.asked.release()
        await reader.read()

    async def wait(self, count: int) -> None:
        """Wait until it has got so many requests."""
        for _ in range(count):
            await self.asked.acquire()


def leads(authority: str, path: str, more: str = "", *, answers: str = "") -> str:
    return route(path, more=more, answers=answers).replace("[]", f"['{authority}']", 1)


async def test_an_upstream_that_hangs_is_refused_at_once_and_no_other_one_waits(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 4)
    hangs = Silent()
    async with upstream(hangs) as bad, upstream(answer_all) as good:
        gateway = await serve(
            leads(bad.authority, "/bad"), leads(bad.authority, "/same"), leads(good.authority, "/good")
        )
        async with waiting(gateway, 2, "/bad"):
            await hangs.wait(2)
            for path in ("/bad", "/same"):
                refused = await get(gateway, path)
                assert (refused.status, refused.json["error"]) == (503, "overloaded")
                assert int(refused.headers["Retry-After"]) > 0
            assert (await get(gateway, "/good")).status == 200
        assert len(bad.received) == 2


async def test_a_route_whose_upstream_hangs_holds_up_neither_other_routes_nor_uploads(
    serve: Serve,
) -> None:
    hangs = Silent()
    async with upstream(hangs) as bad, upstream(answer_all) as good:
        probed = "health: {path: /health, every: 50ms, timeout: 60s}\nlimits: {in_flight: 40}\n"
        gateway = await serve(
            leads(bad.authority, "/bad", probed), leads(bad.authority, "/probed", probed),
            leads(good.authority, "/good"),
        )  # fmt: skip
        async with waiting(gateway, 20, "/bad"):
            await hangs.wait(21)  # with a probe
            refused = await get(gateway, "/bad")
            assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
            assert int(refused.headers["Retry-After"]) > 0
            for _ in range(20):
                assert (await get(gateway, "/good")).status == 200
                assert (await put(gateway, "/upload/a.txt", b"x")).status in {200, 201}
            async with raw_connection(gateway, "127.0.0.9") as other:
                await other.send(request_head("GET", "/bad"))
                await hangs.wait(1)


async def test_probes_that_hang_take_no_place_of_requests(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(proxy, "MAX_ROUTE_REQUESTS", 2)
    hung = asyncio.Semaphore(0)

    async def serve_all_but_probes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await read_head(reader)).startswith(b"GET /good"):
            writer.write(respond())
        hung.release()
        await reader.read()

    async with upstream(serve_all_but_probes) as up:
        probed = "health: {path: /health, every: 50ms, timeout: 60s}\n"
        gateway = await serve(leads(up.authority, "/good", probed))
        await hung.acquire()
        for _ in range(5):
            assert (await get(gateway, "/good")).status == 200


async def test_requests_pass_over_an_upstream_that_is_busy_to_the_next_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 4)
    hangs = Silent()
    async with upstream(hangs) as bad, upstream(answer_all) as good:
        both = f"{bad.authority}', '{good.authority}"
        gateway = await serve(leads(bad.authority, "/bad"), leads(both, "/b"))
        async with waiting(gateway, 2, "/bad"):
            await hangs.wait(2)
            assert [(await ask(gateway, "POST", "/b", body=b"x")).status for _ in range(4)] == [200] * 4


async def test_a_client_that_waits_often_leaves_places_of_its_route_to_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_ROUTE_REQUESTS", 4)
    hangs = Silent()
    async with upstream(hangs) as bad:
        gateway = await serve(
            leads(bad.authority, "/bad"), auth="token", tokens=[f"ann:{token_digest('ann')}"]
        )
        async with waiting(gateway, 2, "/bad"):
            await hangs.wait(2)
            refused = await get(gateway, "/bad")
            assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
            assert int(refused.headers["Retry-After"]) > 0
            async with raw_connection(gateway) as other:
                await other.send(request_head("GET", "/bad", "X-Auth-Token: ann"))
                await hangs.wait(1)


async def test_every_end_of_a_request_gives_its_place_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 2)  # one for each upstream
    monkeypatch.setattr(proxy, "MAX_ROUTE_REQUESTS", 2)  # one for a client
    left = asyncio.Event()

    async def serve_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await read_head(reader)).split(b"\r\n")[0]
        if b"/hang" in line:
            left.set()
            await reader.read()
        elif b"/half" in line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        elif b"/close" not in line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    target = "target: {path: '/{rest:path}'}\n"
    async with upstream(serve_all) as up:
        gateway = await serve(
            leads(up.authority, "/a/{rest:path}", f"{target}limits: {{idle: 0.2}}\n"),
            leads(up.authority, "/b/{rest:path}", target),
            leads(up.authority, "/c/{rest:path}", answers="raise ValueError(response.code)"),
            leads(up.authority, "/d/{rest:path}", answers="return response.body"),
        )
        for path, status in (("/a/hang", 504), ("/a/close", 502), ("/c/ok", 500), ("/d/half", 502),
                             ("/d/ok", 200), ("/b/ok", 200)):  # fmt: skip
            for _ in range(2):
                assert (await get(gateway, path)).status == status, path
        for path in ("/b/half", "/b/hang"):
            for _ in range(2):
                left.clear()
                async with raw_connection(gateway) as client:
                    await client.send(request_head("GET", path))
                    if path == "/b/half":
                        await client.closed()
                    else:
                        await left.wait()
                        client.reset()

                async def is_free() -> bool:
                    return (await get(gateway, "/b/ok")).status == 200

                await wait_until(is_free)


async def test_responses_that_scripts_read_have_bounded_memory_and_give_it_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_BUFFERED_BYTES", 12)
    held, go = asyncio.Event(), asyncio.Event()

    async def six_bytes(request: web.Request) -> web.Response:
        if request.path == "/wait":
            held.set()
            await go.wait()
        coding = {"Content-Encoding": "gzip"} if request.path == "/packed" else {}
        return web.Response(body=gzip.compress(bytes(99)) if coding else b"123456", headers=coding)

    async with api(six_bytes) as up:
        waits = f"response.body\nawait callout('{up.authority}', path='/wait')"
        gateway = await serve(
            up.route("/r", answers="response.body"),
            up.route("/held", answers=waits),
            up.route("/packed", answers="response.body"),
        )
        for _ in range(3):
            assert (await get(gateway, "/r")).status == 200
            assert (await get(gateway, "/packed")).status in {429, 503}
        holds = asyncio.create_task(get(gateway, "/held"))
        await held.wait()
        refused = await get(gateway, "/r")
        assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
        assert int(refused.headers["Retry-After"]) > 0
        go.set()
        assert (await holds).status == 200
        assert (await get(gateway, "/r")).status == 200
