"""The short path of a connection: what it takes, and that no client can tell which path served it."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from gateway.http import short_path
from gateway.http.short_path import MAX_HELD_BYTES
from tests.support.harness import RawConnection, raw_connection, request_head, wait_until
from tests.support.short_path import connections_of, read_contents, serving, whole_put

pytestmark = pytest.mark.integration

ORDERS = ("at once", "later")
"""Whether a request of the short path is answered before `take` returns."""


@pytest.mark.parametrize("order", ORDERS)
async def test_a_whole_small_request_is_served_without_the_ordinary_path(order: str) -> None:
    async with serving(order) as server, raw_connection(server) as connection:
        for number in range(3):
            await connection.send(whole_put(f"/{number}", b"abc"))
            assert await read_contents(connection, 1) == [f"/{number} 3 294"]
    assert (server.short, server.ordinary) == (["/0", "/1", "/2"], [])


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(whole_put("/a", b"x" * (short_path.MAX_BODY_BYTES + 1)), id="a larger body"),
        pytest.param(whole_put("/a", b"abc", "Expect: 100-continue"), id="expectation"),
        pytest.param(whole_put("/a", b"abc", "Connection: close"), id="connection to be closed"),
        pytest.param(whole_put("/a", b"abc", "Upgrade: h2c", "Connection: upgrade"), id="upgrade"),
        pytest.param(b"PUT /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", id="HTTP/1.0"),
        pytest.param(
            request_head("PUT", "/a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
            id="chunked body",
        ),
        pytest.param(
            b"GET http://localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n", id="absolute target"
        ),
        pytest.param(b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", id="invalid host"),
        pytest.param(whole_put("/a", b"abc", "Content-Type: a/b", "Content-Type: c/d"), id="two types"),
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
    request = whole_put("/cut", b"0123456789")
    async with serving(order) as server, raw_connection(server) as connection:
        for cut in range(1, len(request)):
            await connection.send(request[:cut])
            await asyncio.sleep(0.001)
            await connection.send(request[cut:])
            assert await read_contents(connection, 1) == ["/cut 10 525"]
    assert len(server.short) + len(server.ordinary) == len(request) - 1
    assert len(server.short) > 30, "heads and bodies that come in two pieces are served here too"


async def test_a_body_that_does_not_come_is_left_to_the_ordinary_path_which_waits_for_it() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(whole_put("/slow", b"abc")[:-2])
        await wait_until(lambda: server.ordinary)
        await connection.send(b"bc")
        assert await read_contents(connection, 1) == ["/slow 3 294"]
        await connection.send(whole_put("/next", b"abc"))
        assert await read_contents(connection, 1) == ["/next 3 294"]
    assert (server.short, server.ordinary) == (["/next"], ["/slow"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("short", [True, False], ids=["short", "ordinary"])
async def test_pipelined_requests_are_answered_in_their_order(order: str, *, short: bool) -> None:
    random.seed(1)
    paths = [random.choice(["/a", "/ordinary/b", "/c", "/ordinary/d"]) + str(n) for n in range(300)]
    requests = [
        whole_put(path, b"z" * (number % 50)) if number % 3 else request_head("GET", path)
        for number, path in enumerate(paths)
    ]
    answered: list[str] = []

    async def read(connection: RawConnection) -> None:
        for _ in paths:
            answered.extend(await read_contents(connection, 1))

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
        await connection.send(whole_put("/held", b""))
        await wait_until(lambda: server.short)
        (handler,) = connections_of(server)
        flood = whole_put("/behind", b"y" * 40_000) * 200
        sending = asyncio.create_task(connection.send(flood))
        await wait_until(lambda: not handler.transport.is_reading())
        assert handler._held_bytes < MAX_HELD_BYTES + (512 << 10)
        assert (server.short, server.ordinary) == (["/held"], [])
        server.release.set()
        contents = await read_contents(connection, 201)
        await sending
    assert contents[0].startswith("/held")
    assert all(content.startswith("/behind 40000") for content in contents[1:])


async def test_a_client_that_leaves_is_told_to_its_request_and_harms_nobody() -> None:
    async with serving() as server:
        async with raw_connection(server) as connection:
            await connection.send(whole_put("/held", b"abc") + b"GET /behi")
            await wait_until(lambda: server.short)
            connection.reset()
        await wait_until(lambda: server.lost == ["/held"])
        server.release.set()
        async with raw_connection(server) as connection:
            await connection.send(whole_put("/other", b""))
            assert await read_contents(connection, 1) == ["/other 0 0"]


async def test_a_connection_that_waits_for_its_response_is_not_idle() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(whole_put("/held", b"abc"))
        await wait_until(lambda: server.short)
        (handler,) = connections_of(server)
        handler._next_keepalive_close_time = 0.0
        handler._process_keepalive()
        server.release.set()
        assert await read_contents(connection, 1) == ["/held 3 294"]
        handler._next_keepalive_close_time = 0.0
        handler._process_keepalive()
        assert await connection.closed() == b""


async def test_a_stop_waits_for_a_request_that_is_being_served() -> None:
    async with serving() as server, raw_connection(server) as connection:
        await connection.send(whole_put("/held", b"abc"))
        await wait_until(lambda: server.short)
        assert server.runner is not None
        stopping = asyncio.create_task(server.runner.cleanup())
        await asyncio.sleep(0)
        server.release.set()
        assert await read_contents(connection, 1) == ["/held 3 294"]
        assert await connection.closed() == b""
        await stopping


async def test_a_client_that_does_not_read_gets_no_more_than_its_connection_holds() -> None:
    async with serving() as server, raw_connection(server) as connection:
        (handler,) = connections_of(server)
        handler.pause_writing()
        await connection.send(whole_put("/paused", b""))
        await wait_until(lambda: server.ordinary)
        handler.resume_writing()
        assert await read_contents(connection, 1) == ["/paused 0 0"]
    assert server.short == []


async def test_one_connection_that_pipelines_keeps_no_other_from_being_served() -> None:
    others, count = 50, 10_000
    done: list[str] = []
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        greedy = await stack.enter_async_context(raw_connection(server))
        connections = [await stack.enter_async_context(raw_connection(server)) for _ in range(others)]
        sending = asyncio.create_task(greedy.send(request_head("GET", "/greedy") * count))

        async def read_greedy() -> None:
            await read_contents(greedy, count)
            done.append("greedy")

        async def ask(connection: RawConnection) -> None:
            for _ in range(5):
                await connection.send(whole_put("/other", b"abc"))
                await connection.answer()
            done.append("other")

        await asyncio.gather(read_greedy(), *(ask(connection) for connection in connections))
        await sending
    assert done.index("greedy") >= others // 2
