"""The short path of a connection: clients that leave, servers that stop, and headers that repeat."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway.errors import ClientDisconnected
from gateway.http import short_path
from gateway.http.request_body import read_chunk
from tests.support.harness import raw_connection, request_head, wait_until
from tests.support.short_path import Server, connections_of, read_contents, serving, whole_put

pytestmark = pytest.mark.integration

PLAIN = ("User-Agent: test", "Accept: */*")


@pytest.fixture
async def unexpected() -> AsyncIterator[list[Any]]:
    """What the event loop is told of: an exception that nobody awaits."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    yield told
    gc.collect()
    assert told == []


class Reader(Server):
    """Reads bodies as endpoints do."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Note what came of a body."""
        self.ordinary.append(request.raw_path)
        try:
            while await read_chunk(request.content):
                pass
        except ClientDisconnected:
            self.lost.append(request.raw_path)
        return web.Response()


@pytest.mark.usefixtures("unexpected")
async def test_a_request_whose_client_leaves_before_its_body_begins_and_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(short_path, "BODY_TIMEOUT", 60.0)
    async with serving(server=Reader()) as server, raw_connection(server) as connection:
        await connection.send(whole_put("/cut", b"abc")[:-2])
        (handler,) = connections_of(server)
        await wait_until(lambda: handler._body_timer)
        connection.reset()
        await wait_until(lambda: server.lost)
    assert (server.short, server.ordinary, server.lost) == ([], ["/cut"], ["/cut"])


@pytest.mark.usefixtures("unexpected")
async def test_a_request_that_is_handed_over_ends_though_its_client_leaves_at_once() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(request_head("GET", "/kept"))
        await wait_until(lambda: server.kept)
        (handler,) = connections_of(server)
        server.kept.pop().hand_over(server.handle)
        handler.connection_lost(None)
        assert server.lost == ["/kept"]
        await asyncio.sleep(0.01)
    assert server.ordinary == []


@pytest.mark.usefixtures("unexpected")
async def test_a_request_that_is_handed_over_while_the_server_stops_is_aborted() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(request_head("GET", "/kept"))
        await wait_until(lambda: server.kept)
        assert server.runner is not None
        stopping = asyncio.create_task(server.runner.cleanup())
        (handler,) = connections_of(server)
        await wait_until(lambda: handler._close)
        transport = handler.transport
        server.kept.pop().hand_over(server.handle)
        assert transport.is_closing(), "not only once the stop has waited for it"
        assert await connection.closed() == b""
        await wait_until(lambda: server.lost)
        await stopping
    assert (server.lost, server.ordinary) == (["/kept"], [])


async def test_what_came_behind_a_request_that_is_handed_over_is_answered_behind_it() -> None:
    async with serving() as server, raw_connection(server) as connection:
        for number in range(40):  # more than aiohttp's queue holds
            await connection.send(request_head("GET", "/kept"))
            await wait_until(lambda: server.kept)
            (handler,) = connections_of(server)
            await connection.send(whole_put(f"/{number}", b"abc"))
            await wait_until(lambda: handler._held)  # noqa: B023
            server.kept.pop().hand_over(server.handle)
            assert await read_contents(connection, 2) == ["/kept 0 0", f"/{number} 3 294"]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(request_head("GET", "/x", *PLAIN, "Upgrade: h2c"), id="upgrade"),
        pytest.param(request_head("GET", "/x", *PLAIN, "Connection: close"), id="close"),
        pytest.param(request_head("GET", "/x", *PLAIN).replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param(request_head("GET", "/x", *PLAIN).replace(b"Host: l", b"Host: /l"), id="host"),
        pytest.param(request_head("GET", "http://localhost/x", *PLAIN), id="absolute target"),
        pytest.param(request_head("CONNECT", "localhost:1", *PLAIN), id="CONNECT"),
        pytest.param(
            request_head("GET", "/x", *PLAIN, "Transfer-Encoding: chunked") + b"0\r\n\r\n", id="chunked"
        ),
    ],
)
async def test_a_request_like_the_last_one_is_left_where_it_differs(request_: bytes) -> None:
    async with serving() as server, raw_connection(server) as connection:
        for _ in range(2):
            await connection.send(request_head("GET", "/plain", *PLAIN))
            assert await read_contents(connection, 1) == ["/plain 0 0"]
        await connection.send(request_)
        await connection.answer()
    assert server.short == ["/plain", "/plain"]


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
