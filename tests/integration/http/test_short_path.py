"""The short path of a connection: what it takes, and that no client can tell which path served it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway.http import protocol, short_path
from gateway.http.protocol import make_runner
from gateway.http.responses import Response, SmallResponse, encode_response
from gateway.http.short_path import MAX_HELD_BYTES
from gateway.http.short_request import ShortRequest
from tests.support.harness import RawConnection, raw_connection, request_head, wait_until

pytestmark = pytest.mark.integration

ORDERS = ("at once", "later")
"""Whether a request of the short path is answered before `take` returns."""


class Server:
    """A server that says which path served a request, and how many bytes its body had.

    Requests for `/ordinary` are left by the short path; those for `/held/` wait for `release`.
    """

    def __init__(self, order: str = "at once") -> None:
        self.address = ("127.0.0.1", 0)
        self.release = asyncio.Event()
        self.short: list[str] = []
        self.ordinary: list[str] = []
        self.lost: list[str] = []
        self._order = order
        self._tasks: set[asyncio.Task[None]] = set()
        self.runner: web.ServerRunner | None = None

    def take(self, request: ShortRequest) -> bool:
        path = request.raw_path
        if path.startswith("/ordinary"):
            return False
        self.short.append(path)
        content = _content(path, request.body)
        request.begin()
        if path.startswith("/held") or self._order == "later":
            request.on_disconnect(lambda: self.lost.append(path))
            task = asyncio.create_task(self._answer(request, content))
            self._tasks.add(task)
        else:
            self._end(request, content)
        return True

    async def _answer(self, request: ShortRequest, content: bytes) -> None:
        if request.raw_path.startswith("/held"):
            await self.release.wait()
        else:
            await asyncio.sleep(0)
        self._end(request, content)

    def _end(self, request: ShortRequest, content: bytes) -> None:
        request.end(encode_response(SmallResponse(200, {"Content-Type": "text/plain"}, content)))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.ordinary.append(request.raw_path)
        body = await request.content.read()
        response = Response(body=_content(request.raw_path, body), content_type="text/plain")
        await response.send(request)
        return response


def _content(path: str, body: bytes) -> bytes:
    return f"{path} {len(body)} {sum(body)}".encode()


@contextlib.asynccontextmanager
async def serving(order: str = "at once", *, short: bool = True) -> AsyncIterator[Server]:
    server = Server(order)
    runner = make_runner(server.handle, take=server.take if short else None)
    server.runner = runner
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.address = runner.addresses[0]
    try:
        yield server
    finally:
        await runner.cleanup()


def _put(path: str, body: bytes, *lines: str) -> bytes:
    return request_head("PUT", path, f"Content-Length: {len(body)}", *lines) + body


async def _contents(connection: RawConnection, count: int) -> list[str]:
    return [(await connection.answer()).body.decode() for _ in range(count)]


@pytest.mark.parametrize("order", ORDERS)
async def test_a_whole_small_request_is_served_without_the_ordinary_path(order: str) -> None:
    async with serving(order) as server, raw_connection(server) as connection:
        for number in range(3):
            await connection.send(_put(f"/{number}", b"abc"))
            assert await _contents(connection, 1) == [f"/{number} 3 294"]
    assert (server.short, server.ordinary) == (["/0", "/1", "/2"], [])


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(_put("/a", b"x" * (short_path.MAX_BODY_BYTES + 1)), id="a larger body"),
        pytest.param(_put("/a", b"abc", "Expect: 100-continue"), id="expectation"),
        pytest.param(_put("/a", b"abc", "Connection: close"), id="connection to be closed"),
        pytest.param(_put("/a", b"abc", "Upgrade: h2c", "Connection: upgrade"), id="upgrade"),
        pytest.param(b"PUT /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", id="HTTP/1.0"),
        pytest.param(
            request_head("PUT", "/a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
            id="chunked body",
        ),
        pytest.param(
            b"GET http://localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n", id="absolute target"
        ),
        pytest.param(b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", id="invalid host"),
        pytest.param(_put("/a", b"abc", "Content-Type: a/b", "Content-Type: c/d"), id="two types"),
        pytest.param(b"GET /a b HTTP/1.1\r\n\r\n", id="malformed"),
    ],
)
async def test_what_is_not_plain_is_left_to_the_ordinary_path(request_: bytes) -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(request_)
        await connection.answer()
    assert server.short == []


@pytest.mark.parametrize("order", ORDERS)
async def test_a_request_cut_at_any_byte_is_served_whole(order: str) -> None:
    request = _put("/cut", b"0123456789")
    async with serving(order) as server, raw_connection(server) as connection:
        for cut in range(1, len(request)):
            await connection.send(request[:cut])
            await asyncio.sleep(0.001)
            await connection.send(request[cut:])
            assert await _contents(connection, 1) == ["/cut 10 525"]
    assert len(server.short) + len(server.ordinary) == len(request) - 1
    assert len(server.short) > 30, "heads and bodies that come in two pieces are served here too"


async def test_a_body_that_does_not_come_is_left_to_the_ordinary_path_which_waits_for_it() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(_put("/slow", b"abc")[:-2])
        await wait_until(lambda: server.ordinary)
        await connection.send(b"bc")
        assert await _contents(connection, 1) == ["/slow 3 294"]
        await connection.send(_put("/next", b"abc"))
        assert await _contents(connection, 1) == ["/next 3 294"]
    assert (server.short, server.ordinary) == (["/next"], ["/slow"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("short", [True, False], ids=["short", "ordinary"])
async def test_pipelined_requests_are_answered_in_their_order(order: str, *, short: bool) -> None:
    random.seed(1)
    paths = [random.choice(["/a", "/ordinary/b", "/c", "/ordinary/d"]) + str(n) for n in range(300)]
    requests = [
        _put(path, b"z" * (number % 50)) if number % 3 else request_head("GET", path)
        for number, path in enumerate(paths)
    ]
    answered: list[str] = []

    async def read(connection: RawConnection) -> None:
        for _ in paths:
            answered.extend(await _contents(connection, 1))

    async with serving(order, short=short) as server, raw_connection(server) as connection:
        answers = asyncio.create_task(read(connection))
        for number in range(20):
            await connection.send(requests[number])
            await wait_until(lambda: len(answered) > number)  # noqa: B023
        stream = b"".join(requests[20:])
        while stream:
            size = random.choice([1, 30, 90, 400, 3000])
            await connection.send(stream[:size])
            stream = stream[size:]
            await asyncio.sleep(0)
        await answers
    assert [content.split()[0] for content in answered] == paths
    assert sorted(server.short + server.ordinary) == sorted(paths)
    assert bool(server.short) is short


async def test_the_next_request_is_served_here_again_though_the_task_has_not_parked_yet() -> None:
    async with serving() as server, raw_connection(server) as connection:
        for _ in range(20):
            await connection.send(request_head("GET", "/ordinary"))
            await connection.answer()
            await connection.send(request_head("GET", "/short"))
            await connection.answer()
    assert (len(server.short), len(server.ordinary)) == (20, 20)


async def test_what_comes_behind_a_request_waits_unread_beyond_a_bound() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(_put("/held", b""))
        await wait_until(lambda: server.short)
        (handler,) = _connections(server)
        flood = _put("/behind", b"y" * 40_000) * 200
        sending = asyncio.create_task(connection.send(flood))
        await wait_until(lambda: not handler.transport.is_reading())
        assert handler._held_bytes < MAX_HELD_BYTES + (512 << 10)
        assert (server.short, server.ordinary) == (["/held"], [])
        server.release.set()
        contents = await _contents(connection, 201)
        await sending
    assert contents[0].startswith("/held")
    assert all(content.startswith("/behind 40000") for content in contents[1:])


async def test_a_client_that_leaves_is_told_to_its_request_and_harms_nobody() -> None:
    async with serving() as server:
        async with raw_connection(server) as connection:
            await connection.send(_put("/held", b"abc") + b"GET /behi")
            await wait_until(lambda: server.short)
            connection.reset()
        await wait_until(lambda: server.lost == ["/held"])
        server.release.set()
        async with raw_connection(server) as connection:
            await connection.send(_put("/other", b""))
            assert await _contents(connection, 1) == ["/other 0 0"]


async def test_a_connection_that_waits_for_its_response_is_not_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE_TIMEOUT", 0.05)
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(_put("/held", b"abc"))
        await wait_until(lambda: server.short)
        await asyncio.sleep(0.2)
        server.release.set()
        assert await _contents(connection, 1) == ["/held 3 294"]
        assert await connection.closed() == b""


async def test_a_stop_waits_for_a_request_that_is_being_served() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(_put("/held", b"abc"))
        await wait_until(lambda: server.short)
        assert server.runner is not None
        stopping = asyncio.create_task(server.runner.cleanup())
        await asyncio.sleep(0)
        server.release.set()
        assert await _contents(connection, 1) == ["/held 3 294"]
        assert await connection.closed() == b""
        await stopping


async def test_a_client_that_does_not_read_gets_no_more_than_its_connection_holds() -> None:
    async with serving() as server, raw_connection(server) as connection:
        (handler,) = _connections(server)
        handler.pause_writing()
        await connection.send(_put("/paused", b""))
        await wait_until(lambda: server.ordinary)
        handler.resume_writing()
        assert await _contents(connection, 1) == ["/paused 0 0"]
    assert server.short == []


async def test_one_connection_that_pipelines_keeps_no_other_from_being_served() -> None:
    others, count = 50, 10_000
    done: list[str] = []
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        greedy = await stack.enter_async_context(raw_connection(server))
        connections = [await stack.enter_async_context(raw_connection(server)) for _ in range(others)]
        sending = asyncio.create_task(greedy.send(request_head("GET", "/greedy") * count))

        async def read_greedy() -> None:
            await _contents(greedy, count)
            done.append("greedy")

        async def ask(connection: RawConnection) -> None:
            for _ in range(5):
                await connection.send(_put("/other", b"abc"))
                await connection.answer()
            done.append("other")

        await asyncio.gather(read_greedy(), *(ask(connection) for connection in connections))
        await sending
    assert done.index("greedy") >= others // 2


def _connections(server: Server) -> list[Any]:
    assert server.runner is not None
    assert server.runner.server is not None
    return list(server.runner.server.connections)


class Unconnected(asyncio.Transport):
    """The connection of nobody."""

    def close(self) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("nobody reads")


async def test_a_client_that_leaves_as_its_request_is_given_to_a_task_leaves_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        assert server.runner is not None
        assert server.runner.server is not None
        connection = server.runner.server()
        connection.connection_made(Unconnected())
        task = connection._task_handler
        assert task is not None
        await asyncio.sleep(0)  # it waits for a request
        connection.data_received(request_head("GET", "/ordinary"))
        connection.connection_lost(None)
        await asyncio.wait([task])
    assert task.cancelled()
    assert server.ordinary == []
    assert caplog.records == []
