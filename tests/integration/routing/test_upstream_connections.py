"""Plain connections to upstreams: what is used again, what is not, and what a client sees of it.

The upstreams are written by hand, and each does one thing wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from gateway.endpoints.routing.model import Limits
from gateway.endpoints.routing.proxy import pool
from tests.support.harness import TIMEOUT, RawConnection, RawResponse, request_head, wait_until
from tests.support.routing.proxying import (
    Front,
    Upstream,
    answer_all,
    front,
    lines_of,
    read_head,
    read_request,
    respond,
    upstream,
)

pytestmark = pytest.mark.both_paths

HASTY = Limits(connect=5.0, idle=0.2)
OK = respond()


def in_turn(*answers: bytes, close_after: int = 0) -> Callable[..., Awaitable[None]]:
    """Give these answers, then `ok`, over whatever connections; close each after so many."""
    rest = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        while not close_after or count < close_after:
            await read_request(reader)
            writer.write(rest.pop(0) if rest else OK)
            await writer.drain()
            count += 1

    return serve


async def ask(client: RawConnection, method: str = "GET", body: bytes = b"") -> RawResponse:
    """Send a request, and read its answer in whatever framing it has."""
    lines = (f"Content-Length: {len(body)}",) if body else ()
    await client.send(request_head(method, "/", *lines) + body)
    async with asyncio.timeout(TIMEOUT):
        first, *fields = (await client.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        status, headers = int(first.split()[1]), dict(field.split(": ", 1) for field in fields)
        if method == "HEAD" or status in {204, 304}:
            return RawResponse(status, headers, b"")
        if "Transfer-Encoding" in headers:
            chunks = await client.reader.readuntil(b"0\r\n\r\n")
            return RawResponse(status, headers, b"".join(chunks.split(b"\r\n")[1:-3:2]))
        return RawResponse(
            status, headers, await client.reader.readexactly(int(headers["Content-Length"]))
        )


def requests(up: Upstream) -> list[int]:
    """Return how many requests came over each connection."""
    return [bytes(record).count(b" / HTTP/1.1\r\n") for record in up.received]


REUSED = {
    "declared": OK,
    "empty": respond(b""),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked with a trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    ),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    "interim answers before": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + OK,
    "100 unasked": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "keep-alive of HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
    ),
    "an error": respond(b"no", "500 Broken"),
    "a status without a reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("answer", REUSED.values(), ids=REUSED)
async def test_a_connection_whose_answer_ended_cleanly_is_used_again(answer: bytes) -> None:
    async with upstream(in_turn(answer)) as up, front(up.authority) as gate, gate.raw() as client:
        for _ in range(3):
            assert (await ask(client)).status in {200, 204, 304, 500}
    assert requests(up) == [3]


CLOSED = {
    "connection close": respond(b"ok", "200 OK", "Connection: close"),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a second answer": OK + OK,
    "the head of a second answer": OK + b"HTTP/1.1 200 OK\r\nX: ",
    "the first byte of a second answer": OK + b"H",
    "a second answer behind chunks": REUSED["chunked"] + OK,
    "a byte behind 304": REUSED["304"] + b"H",
}


@pytest.mark.parametrize("answer", CLOSED.values(), ids=CLOSED)
async def test_a_connection_that_may_be_out_of_step_is_never_used_again(answer: bytes) -> None:
    async with upstream(in_turn(answer)) as up, front(up.authority) as gate, gate.raw() as client:
        for _ in range(3):
            assert (await ask(client)).status in {200, 304}
    assert requests(up) == [1, 2]


REFUSED = {
    "bytes behind the end that are no HTTP": OK + b"garbage",
    "bytes behind the end after close": respond(b"ok", "200 OK", "Connection: close") + b"x",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    ),
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "no chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok",
    "an unasked switch": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + OK
    ),
    "a body of 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    "status 600": b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
    "a control character": b"HTTP/1.1 200 OK\r\nX-Bad: a\x01b\r\nContent-Length: 2\r\n\r\nok",
    "no HTTP": b"SSH-2.0-OpenSSH_9\r\n",
}


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
async def test_what_is_no_answer_is_a_502_and_nothing_of_it_reaches_the_next_request(
    answer: bytes,
) -> None:
    async with upstream(in_turn(answer)) as up, front(up.authority) as gate, gate.raw() as client:
        assert (await ask(client)).status == 502
        last = await ask(client)
        assert (last.status, last.body) == (200, b"ok")
    assert requests(up) == [1, 1]


async def test_a_body_without_a_declared_end_ends_with_the_connection() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\nok"
    serve = in_turn(endless, close_after=1)
    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        first, second = await ask(client), await ask(client)
    assert [first.body, second.body] == [b"ok", b"ok"]
    assert requests(up) == [1, 1]


async def test_a_body_without_a_declared_end_that_is_reset_never_ends_cleanly() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await writer.drain()
        await seen.wait()
        connection = writer.get_extra_info("socket")
        connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0: a reset, not an end
        writer.transport.abort()

    seen = asyncio.Event()
    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        await client.reader.readuntil(b"half")
        seen.set()
        assert b"0\r\n\r\n" not in await client.closed()


async def test_an_answer_to_head_has_no_body_and_its_connection_is_used_again() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with upstream(in_turn(head)) as up, front(up.authority) as gate, gate.raw() as client:
        answer = await ask(client, "HEAD")
        assert answer.headers["Content-Length"] == "1000"
        assert (await ask(client)).body == b"ok"
    assert requests(up) == [2]


async def test_a_body_in_answer_to_head_is_never_read_as_the_next_answer() -> None:
    async with upstream(in_turn(OK)) as up, front(up.authority) as gate, gate.raw() as client:
        assert (await ask(client, "HEAD")).status in {200, 502}
        assert (await ask(client)).body == b"ok"
    assert requests(up) == [1, 1]


async def test_an_answer_is_read_whatever_pieces_it_comes_in() -> None:
    whole = REUSED["interim answers before"] + REUSED["chunked with a trailer"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for at in range(len(whole)):
            writer.write(whole[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await in_turn()(reader, writer)

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        assert (await ask(client)).body == b"ok"
        await ask(client)
    assert sum(requests(up)) == 2


async def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await answered.wait()
        writer.write(respond(b"poison"))
        await writer.drain()
        await reader.read()
        ended.set()

    answered, ended = asyncio.Event(), asyncio.Event()
    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        assert (await ask(client)).body == b"ok"
        answered.set()
        async with asyncio.timeout(TIMEOUT):
            await ended.wait()
        assert (await ask(client)).body == b"ok"
    assert requests(up) == [1, 1]


# -- connections that the upstream closes


@pytest.mark.parametrize(
    ("method", "body"), [("POST", b"abc"), ("POST", b""), ("PUT", b"abc"), ("GET", b"")]
)
async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_request(
    method: str, body: bytes
) -> None:
    serve = in_turn(close_after=1)
    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        assert (await ask(client)).status == 200
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()
        await wait_until(lambda: not open_connections(gate))
        assert (await ask(client, method, body)).status == 200
    assert requests(up) == [1, 1]


def open_connections(gate: Front) -> int:
    return len(gate.proxy.caller.pool._open)


@pytest.mark.parametrize(
    ("method", "body", "status", "times"),
    [("GET", b"", 200, 3), ("PUT", b"", 200, 3), ("POST", b"", 502, 2), ("POST", b"abc", 502, 2),
     ("PUT", b"abc", 502, 2)],
)  # fmt: skip
@pytest.mark.parametrize(
    "point", ["at once", "within the request", "behind it", "within the answer's head"]
)
async def test_a_kept_connection_that_dies_with_a_request_is_replaced_only_where_that_does_no_harm(
    method: str, body: bytes, status: int, times: int, point: str
) -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await read_request(reader)
        writer.write(OK)
        if served > 1:
            return await in_turn()(reader, writer)
        if point == "within the request":
            await reader.readexactly(10)
        elif point != "at once":
            await read_request(reader)
        else:
            await reader.readexactly(1)
        if point == "within the answer's head":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            await writer.drain()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        assert (await ask(client)).status == 200
        assert (await ask(client, method, body)).status == status
    assert len(up.received) == times - 1


async def test_a_second_try_does_not_take_a_connection_that_died_together_with_the_first() -> None:
    together, served = asyncio.Barrier(2), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        if served > 2:
            return await in_turn()(reader, writer)
        await read_request(reader)
        await together.wait()
        writer.write(OK)
        await reader.readexactly(1)  # and closes

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as a, gate.raw() as b:
        first = await asyncio.gather(ask(a), ask(b))
        assert [answer.status for answer in first] == [200, 200]
        assert (await ask(a)).status == 200
    assert len(up.received) == 3


async def test_an_idle_connection_is_closed_before_the_upstream_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "KEEP_ALIVE_TIMEOUT", 0.05)
    async with upstream(answer_all) as up, front(up.authority) as gate, gate.raw() as client:
        assert (await ask(client)).status == 200
        await wait_until(lambda: not open_connections(gate))
        assert (await ask(client)).status == 200
    assert requests(up) == [1, 1]


async def test_few_idle_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_IDLE_CONNECTIONS", 2)
    together = asyncio.Barrier(6)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await together.wait()
        writer.write(OK)
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate:

        async def one() -> int:
            async with gate.raw() as client:
                return (await ask(client)).status

        assert await asyncio.gather(*(one() for _ in range(6))) == [200] * 6
        assert open_connections(gate) == 2
    assert requests(up) == [1] * 6


# -- time, and a client that leaves


@pytest.mark.parametrize("partial", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 103 X\r\n\r\n"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_upstream_that_begins_no_answer_in_time_is_a_504_and_its_connection_is_closed(
    method: str, partial: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(partial)
        await reader.read()

    async with upstream(serve) as up, front(up.authority, limits=HASTY) as gate, gate.raw() as client:
        answer = await ask(client, method, b"x" if method == "POST" else b"")
        assert (answer.status, answer.json["error"]) == (504, "gateway_timeout")
        assert answer.json["message"] == "the upstream sent nothing for 0.2 seconds"
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()


async def test_a_kept_connection_has_the_whole_time_for_its_next_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(0.6)
            writer.write(OK)

    limits = Limits(connect=5.0, idle=1.0)
    async with upstream(serve) as up, front(up.authority, limits=limits) as gate, gate.raw() as client:
        for _ in range(2):  # together longer than the time-out
            assert (await ask(client)).status == 200
    assert requests(up) == [2]


async def test_a_client_that_leaves_takes_its_upstream_connection_along() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        asked.set()
        assert await reader.read() == b""

    asked = asyncio.Event()
    async with upstream(serve) as up, front(up.authority) as gate:
        async with gate.raw() as client:
            await ask(client)
            await client.send(request_head("POST", "/", "Content-Length: 3") + b"abc")
            await asked.wait()
            client.reset()
        async with asyncio.timeout(TIMEOUT / 3):
            await up.ended.wait()
        assert open_connections(gate) == 0
    assert gate.outcomes == ["200", "client left"]


async def test_a_large_answer_is_read_as_fast_as_the_client_takes_it() -> None:
    sent, size, mib = 0, 192, 1 << 20

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size * mib}\r\n\r\n".encode())
        for _ in range(size):
            writer.write(b"x" * mib)
            await writer.drain()
            sent += 1

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        await client.reader.readuntil(b"\r\n\r\n")
        seen = -1
        while seen != sent:  # until nothing moves any more
            seen = sent
            await asyncio.sleep(0.3)
        assert sent < size // 2  # a kernel may hold 32 MiB for each receiver, and 4 MiB for each sender
        got = 0
        while got < size * mib:
            got += len(await client.reader.readexactly(mib))


# -- what the upstream gets


@pytest.mark.parametrize("length", [0, 1, 4096, 64 << 10, (64 << 10) + 1])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_request_is_the_same_over_a_plain_connection_as_through_the_general_client(
    method: str, length: int
) -> None:
    lines = ("X-Mine: a", "X-Mine: b", f"Content-Length: {length}", "Cookie: c=\xe4")
    head, body = request_head(method, "/a%20b?q=1&q=", *lines), b"x" * length

    def received() -> bytes:
        return re.sub(rb"X-Request-Id: [0-9a-f]*\r\n", b"", b"".join(up.received))

    async with upstream(answer_all) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(head + body)
        assert (await client.answer()).status == 200
        first = received()
        await client.send(head)
        await client.send(body[:-1])
        if length > 1:  # now it streams
            await wait_until(lambda: received() != first)
        await client.send(body[-1:])
        assert (await client.answer()).status == 200
        assert received() == first + first
    assert lines_of(first, "X-Mine") == ["a", "b"]
