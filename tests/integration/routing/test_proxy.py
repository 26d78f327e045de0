"""The proxy between a client and an upstream made by hand: what passes, what breaks, who learns."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from gateway.endpoints.routing.model import Limits, RequestContext
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.http.responses import GatewayResponse, Response
from tests.support.harness import TIMEOUT, curl, request_head, self_signed_certificate
from tests.support.ports import free_port
from tests.support.routing.proxying import (
    Last,
    answer_all,
    front,
    lines_of,
    read_head,
    read_request,
    respond,
    upstream,
)

pytestmark = pytest.mark.both_paths

MIB = 1 << 20
HASTY = Limits(connect=5.0, idle=0.2)


# -- what passes


async def test_a_request_reaches_the_upstream_as_it_was_but_for_what_belongs_to_the_hop() -> None:
    lines = ("X-Mine: a", "X-Mine: b", "Connection: keep-alive, X-Hop", "X-Hop: 1", "TE: trailers",
             "Keep-Alive: 5", "Proxy-Authorization: Basic eA==", "Authorization: Bearer t",
             "X-Gateway-Signature: secret", "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6",
             "Forwarded: for=6.6.6.6")  # fmt: skip
    async with upstream(answer_all) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/a%2Fb/%7Ec?q=1&q=%20&X-Gateway-Expires=1", *lines))
        assert (await client.answer()).body == b"ok"
    sent = up.only
    assert sent.startswith(b"GET /a%2Fb/%7Ec?q=1&q=%20 HTTP/1.1\r\n")
    assert lines_of(sent, "X-Mine") == ["a", "b"]
    assert lines_of(sent, "Authorization") == ["Bearer t"]
    assert lines_of(sent, "Host") == [up.authority]
    assert lines_of(sent, "X-Forwarded-For") == ["127.0.0.1"]
    assert lines_of(sent, "Forwarded") == ['for=127.0.0.1;proto=http;host="localhost"']
    assert lines_of(sent, "Via") == ["1.1 upload-gateway"]
    for name in ("X-Hop", "TE", "Keep-Alive", "Proxy-Authorization", "X-Gateway-Signature", "X-Real-IP",
                 "User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Cookie"):  # fmt: skip
        assert lines_of(sent, name) == [], name


async def test_an_answer_reaches_the_client_as_it_was_but_for_what_belongs_to_the_hop() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        fields = ("Set-Cookie: a=1", "Set-Cookie: b=2", "Location: /there", "Keep-Alive: 5",
                  "Connection: X-Hop, keep-alive", "X-Hop: 1", "Content-Encoding: gzip")  # fmt: skip
        writer.write(respond(b"not really gzip", "302 Over There", *fields))
        await writer.drain()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        first = await client.line()
        block = await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(15) == b"not really gzip"
    assert first == b"HTTP/1.1 302 Over There\r\n"
    answer = first + block
    assert lines_of(answer, "Set-Cookie") == ["a=1", "b=2"]
    assert lines_of(answer, "Location") == ["/there"]
    assert lines_of(answer, "Content-Encoding") == ["gzip"]
    for name in ("X-Hop", "Keep-Alive", "Connection", "Content-Type", "Transfer-Encoding", "Server"):
        assert lines_of(answer, name) == [], name


@pytest.mark.parametrize("how", ["declared", "chunked"])
async def test_a_body_keeps_its_framing_and_its_bytes_both_ways(how: str, tmp_path: Path) -> None:
    body = bytes(range(256)) * 4096 * 3
    heads: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent, received = await read_request(reader)
        heads.append(sent)
        if how == "declared":
            writer.write(respond(received))
        else:
            fields = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: a/b\r\n\r\n"
            writer.write(fields + b"%x\r\n%s\r\n0\r\n\r\n" % (len(received), received))
        await writer.drain()

    framing = ["-H", "Transfer-Encoding: chunked"] if how == "chunked" else []
    async with upstream(echo) as up, front(up.authority) as gate:
        fields = [*framing, "-H", "Content-Type: a/b", "-D", "-"]
        result = await curl(
            *fields, "-o", str(tmp_path / "out"), "--data-binary", "@-", gate.url, stdin=body
        )
    assert (tmp_path / "out").read_bytes() == body
    declared = [str(len(body))] if how == "declared" else []
    chunked = ["chunked"] if how == "chunked" else []
    assert lines_of(heads[0], "Content-Length") == declared
    assert lines_of(heads[0], "Transfer-Encoding") == chunked
    assert lines_of(result.body.encode(), "Transfer-Encoding") == chunked
    assert lines_of(result.body.encode(), "Content-Length") == declared


async def test_connections_are_kept_on_both_sides() -> None:
    async with upstream(answer_all) as up, front(up.authority) as gate, gate.raw() as client:
        for number in range(5):
            await client.send(request_head("POST", f"/{number}", "Content-Length: 3") + b"abc")
            assert (await client.answer()).status == 200
    assert up.only.count(b"POST /") == 5


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "GET"])
async def test_a_request_without_body_goes_up_without_body(method: str) -> None:
    async with upstream(answer_all) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head(method, "/"))
        assert (await client.answer()).status == 200
    assert lines_of(up.only, "Transfer-Encoding") == []
    assert lines_of(up.only, "Content-Length") in ([], ["0"])


async def test_a_body_that_a_step_has_read_is_sent_as_it_was_read() -> None:
    def last(proxy: Proxy) -> Last:
        async def read_first(context: RequestContext) -> GatewayResponse:
            context.body = await context.request.content.read()
            return await proxy(context)

        return read_first

    async with upstream(answer_all) as up, front(up.authority, last=last) as gate, gate.raw() as client:
        await client.send(
            request_head("POST", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
        )
        assert (await client.answer()).status == 200
    assert up.only.endswith(b"\r\n\r\nabc")
    assert lines_of(up.only, "Content-Length") == ["3"]


async def test_a_field_that_a_step_has_set_cannot_be_taken_away_by_the_client() -> None:
    def last(proxy: Proxy) -> Last:
        async def set_user(context: RequestContext) -> GatewayResponse:
            context.headers["X-User"] = "ada"
            return await proxy(context)

        return set_user

    async with upstream(answer_all) as up, front(up.authority, last=last) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/", "Connection: X-User, close", "X-User: root"))
        assert (await client.answer()).status == 200
    assert lines_of(up.only, "X-User") == ["ada"]


@contextlib.contextmanager
def wsgi() -> Iterator[str]:
    """Start a server of the standard library's that answers with what its application is told."""

    class Silent(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    def tell(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [("Content-Type", "application/json")])
        names = [name for name in environ if name.startswith("HTTP_X_") and name != "HTTP_X_REQUEST_ID"]
        told = {name: environ[name] for name in names}
        return [json.dumps(told).encode()]

    with make_server("127.0.0.1", 0, tell, handler_class=Silent) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("trusts", [False, True])
async def test_a_name_with_an_underscore_does_not_pass_for_one_with_a_hyphen(trusts: bool) -> None:
    def last(proxy: Proxy) -> Last:
        async def set_user(context: RequestContext) -> GatewayResponse:
            context.headers["X-User"] = "ada"
            context.headers["X_Step"] = "set"
            return await proxy(context)

        return set_user

    lines = ("X_User: root", "x_forwarded_for: 6.6.6.6", "X-Forwarded_Host: evil", "X_Step: forged")
    with wsgi() as authority:
        async with front(authority, last=last, trusts=trusts) as gate:
            done = await curl(*(word for line in lines for word in ("-H", line)), gate.url)
    assert json.loads(done.body) == {
        "HTTP_X_USER": "ada", "HTTP_X_STEP": "set", "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "http",
        "HTTP_X_FORWARDED_HOST": gate.url.removeprefix("http://"),
    }  # fmt: skip


async def test_a_client_of_http_1_0_gets_an_answer_of_unknown_length_until_the_close() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        await writer.drain()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")
        answer = await client.closed()
    assert answer.startswith(b"HTTP/1.0 200")
    assert lines_of(answer, "Transfer-Encoding") == []
    assert answer.endswith(b"\r\n\r\nok")


# -- waiting and refusing early


async def test_the_client_is_told_to_go_on_only_when_the_upstream_says_so() -> None:
    steps: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = await read_head(reader)
        assert lines_of(sent, "Expect") == ["100-continue"]
        steps.append("asked")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(3) == b"abc"
        writer.write(respond())

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("PUT", "/", "Content-Length: 3", "Expect: 100-continue"))
        assert b"100 Continue" in await client.line()
        assert steps == ["asked"]
        assert await client.line() == b"\r\n"
        await client.send(b"abc")
        assert (await client.answer()).status == 200


async def test_an_upstream_that_ignores_the_expectation_gets_the_body_all_the_same() -> None:
    async with upstream(answer_all) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("PUT", "/", "Content-Length: 3", "Expect: 100-continue"))
        assert b"100 Continue" in await client.line()
        await client.line()
        await client.send(b"abc")
        assert (await client.answer()).status == 200
    assert up.only.endswith(b"abc")


async def test_an_upstream_that_refuses_at_once_costs_the_client_no_byte_of_its_body() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(respond(b"no", "413 Too Much", "Connection: close"))
        await writer.drain()

    async with upstream(serve) as up, front(up.authority) as gate:
        result = await curl("-H", "Expect: 100-continue", "-X", "PUT", "--data-binary", "@-", gate.url,
                            stdin=b"x" * MIB)  # fmt: skip
    assert (result.status, result.body, result.uploaded) == (413, "no", 0)
    assert not up.only.endswith(b"x")


async def test_an_answer_that_comes_before_the_body_is_over_goes_out_and_the_connection_is_closed() -> (
    None
):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(respond(b"enough", "403 Forbidden"))
        await writer.drain()
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("PUT", "/", f"Content-Length: {MIB}") + b"x" * 1000)
        answer = await client.answer()
        assert (answer.status, answer.body) == (403, b"enough")
        assert answer.headers["Connection"] == "close"
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()


async def test_bytes_flow_down_while_bytes_flow_up() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for _ in range(2):
            writer.write((await reader.readexactly(3)).upper())
        await reader.read()

    async with upstream(shout) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("POST", "/", "Content-Length: 6") + b"abc")
        await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(3) == b"ABC"
        await client.send(b"def")
        assert await client.reader.readexactly(3) == b"DEF"


@pytest.mark.parametrize(
    "lines", [("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")]
)
async def test_web_sockets_are_refused_in_plain_words(lines: tuple[str, ...]) -> None:
    async with upstream(answer_all) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/", *lines))
        answer = await client.answer()
        assert (answer.status, answer.json["error"]) == (400, "bad_request")
        assert await client.closed() == b""
    assert up.received == []


@pytest.mark.parametrize(
    ("upstreams", "ours"),
    [(b"200 Fine", b"200 Fine"), (b"200", b"200 "), (b"404 \xff", b"404 Not Found")],
)
async def test_a_reason_passes_where_it_is_plain_text(upstreams: bytes, ours: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 " + upstreams + b"\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        assert await client.line() == b"HTTP/1.1 " + ours + b"\r\n"


async def test_interim_answers_are_passed_over() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + respond())
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"ok")
    assert "Link" not in answer.headers


async def test_trailers_are_left_out_both_ways() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await read_request(reader))[1] == b"abc"
        fields = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(fields + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        body = b"3\r\nabc\r\n0\r\nX-Sum: 2\r\n\r\n"
        await client.send(
            request_head("POST", "/", "Transfer-Encoding: chunked", "Connection: close") + body
        )
        answer = await client.closed()
    assert answer.endswith(b"2\r\nok\r\n0\r\n\r\n")
    assert b"X-Sum" not in up.only


# -- what breaks


@pytest.mark.parametrize(("method", "status", "times"), [("GET", 200, 3), ("POST", 502, 2)])
async def test_a_kept_connection_that_dies_is_replaced_only_where_a_second_try_does_no_harm(
    method: str, status: int, times: int
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(respond())
        await writer.drain()
        await read_request(reader)  # and close without an answer

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        assert (await client.answer()).status == 200
        body = b"abc" if method == "POST" else b""
        lines = (f"Content-Length: {len(body)}",) if body else ()
        await client.send(request_head(method, "/", *lines) + body)
        assert (await client.answer()).status == status
    assert sum(record.count(b" / HTTP/1.1\r\n") for record in up.received) == times


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize(
    ("method", "body", "times"),
    [
        ("GET", b"", 2), ("HEAD", b"", 2), ("OPTIONS", b"", 2), ("DELETE", b"", 2), ("PUT", b"", 2),
        ("POST", b"", 1), ("PATCH", b"", 1),
        ("GET", b"abc", 1), ("DELETE", b"abc", 1), ("PUT", b"abc", 1), ("POST", b"abc", 1),
    ],
)  # fmt: skip
async def test_an_upstream_that_takes_a_request_and_hangs_up_gets_it_again_only_without_a_body(
    method: str, body: bytes, times: int, read_first: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)  # and close without an answer, on a new connection

    def last(proxy: Proxy) -> Last:
        async def ask(context: RequestContext) -> GatewayResponse:
            if read_first:
                context.body = await context.request.content.read()
            return await proxy(context)

        return ask

    async with upstream(serve) as up, front(up.authority, last=last) as gate, gate.raw() as client:
        lines = (f"Content-Length: {len(body)}",) if body else ()
        await client.send(request_head(method, "/", *lines) + body)
        assert (await client.answer(head=method == "HEAD")).status == 502
    assert [bytes(record).count(b" / HTTP/1.1\r\n") for record in up.received] == [1] * times
    assert all(record.endswith(b"\r\n\r\n" + body) for record in up.received)


async def test_an_upstream_that_hangs_up_instead_of_asking_for_the_body_is_not_asked_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)  # and close: it never says `100 Continue`

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("PUT", "/", "Content-Length: 3", "Expect: 100-continue"))
        assert (await client.answer()).status == 502
    assert len(up.received) == 1


async def test_a_client_that_takes_nothing_is_given_up_and_little_was_read_for_it() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {1024 * MIB}\r\n\r\n".encode())
        for _ in range(1024):
            writer.write(b"x" * MIB)
            await writer.drain()
            sent += MIB

    async with upstream(serve) as up, front(up.authority, limits=HASTY) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()
    assert sent < 64 * MIB


async def test_an_upstream_whose_certificate_nobody_vouches_for_gets_no_request(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*self_signed_certificate(tmp_path))
    async with (
        upstream(answer_all, tls=context) as up,
        front(up.authority, scheme="https") as gate,
        gate.raw() as client,
    ):
        await client.send(request_head("GET", "/"))
        assert (await client.answer()).status == 502
    assert up.received == []


async def test_a_dead_upstream_is_a_502() -> None:
    async with front(f"127.0.0.1:{free_port()}") as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        answer = await client.answer()
    assert (answer.status, answer.json["error"]) == (502, "bad_gateway")


async def test_a_name_that_nobody_knows_is_a_502() -> None:
    async with front("nowhere.invalid") as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        assert (await client.answer()).status == 502


async def test_a_request_whose_connection_failed_goes_to_the_next_upstream_with_its_body() -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with upstream(answer_all) as up, front(dead, up.authority) as gate:
        for _ in range(4):
            result = await curl("-X", "PUT", "--data-binary", "@-", gate.url, stdin=b"x" * 1000)
            assert result.status == 200
    assert sum(record.count(b"x" * 1000) for record in up.received) == 4


async def test_a_silent_upstream_is_a_504_and_is_let_go() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(serve) as up, front(up.authority, limits=HASTY) as gate, gate.raw() as client:
        await client.send(request_head("POST", "/", "Content-Length: 1") + b"x")
        answer = await client.answer()
        assert (answer.status, answer.json["error"]) == (504, "gateway_timeout")
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()


async def test_an_upstream_that_does_not_take_the_body_is_a_504() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await asyncio.Event().wait()

    limits = Limits(connect=5.0, idle=0.5)
    async with upstream(serve) as up, front(up.authority, limits=limits) as gate, gate.raw() as client:
        size = 32 * MIB  # more than the buffers between the two hold
        body = request_head("PUT", "/", f"Content-Length: {size}") + b"x" * size
        sending = asyncio.create_task(client.send(body))  # in this process: it never falls behind
        assert (await client.answer()).status == 504
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_client_that_falls_silent_in_its_body_is_a_408_and_the_upstream_sees_no_end() -> None:
    async with (
        upstream(answer_all) as up,
        front(up.authority, limits=HASTY) as gate,
        gate.raw() as client,
    ):
        await client.send(request_head("POST", "/", "Transfer-Encoding: chunked") + b"1\r\nx\r\n")
        answer = await client.answer()
        assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()
    assert not up.only.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["declared", "chunked"],
)
async def test_an_answer_that_breaks_off_never_ends_cleanly_for_the_client(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with upstream(serve) as up, front(up.authority) as gate:
        result = await curl(gate.url)
        assert result.code in {18, 52, 56}, result
        async with gate.raw() as client:
            await client.send(request_head("GET", "/"))
            assert not (await client.closed()).endswith(b"0\r\n\r\n")


async def test_an_answer_that_turns_into_nonsense_never_ends_cleanly_for_the_client() -> None:
    seen = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await seen.wait()
        writer.write(b"zz\r\n")
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        await client.reader.readuntil(b"half\r\n")
        seen.set()
        assert await client.closed() == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nX-Bad: a\x01b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["nothing", "no http", "control character", "two lengths", "unasked switch", "099", "600"],
)
async def test_an_answer_that_is_none_is_a_502(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with upstream(serve) as up, front(up.authority) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        assert (await client.answer()).status == 502


async def test_an_upstream_that_stalls_in_its_answer_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    async with upstream(serve) as up, front(up.authority, limits=HASTY) as gate:
        result = await curl(gate.url)
        assert result.code in {18, 56}, result
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()


# -- a client that leaves


async def test_a_client_that_leaves_while_it_waits_ends_the_upstreams_request() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        assert await reader.read() == b""

    async with upstream(serve) as up, front(up.authority) as gate:
        async with gate.raw() as client:
            await client.send(request_head("GET", "/"))
            await asked.wait()
            client.reset()
        async with asyncio.timeout(TIMEOUT / 3):
            await up.ended.wait()
    assert gate.outcomes == ["client left"]


async def test_a_client_that_leaves_in_its_body_ends_the_upstreams_request_without_a_clean_end() -> None:
    started = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        started.set()
        await reader.read()

    async with upstream(serve) as up, front(up.authority) as gate:
        async with gate.raw() as client:
            await client.send(request_head("PUT", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
            await started.wait()
            client.reset()
        async with asyncio.timeout(TIMEOUT / 3):
            await up.ended.wait()
    assert not up.only.endswith(b"0\r\n\r\n")
    assert gate.outcomes == ["client left"]


async def test_a_client_that_leaves_in_the_answer_ends_the_upstreams_work() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
        assert await reader.read() == b""

    async with upstream(serve) as up, front(up.authority) as gate:
        async with gate.raw() as client:
            await client.send(request_head("GET", "/"))
            await client.reader.readuntil(b"event")
            client.reset()
        async with asyncio.timeout(TIMEOUT / 3):
            await up.ended.wait()


# -- answers read whole


async def test_an_answer_is_read_whole_for_a_script_up_to_a_limit() -> None:
    def last(proxy: Proxy) -> Last:
        async def whole(context: RequestContext) -> GatewayResponse:
            status, headers, body = await proxy.fetch_whole(context, 2)
            assert headers["Via"] == "1.1 upload-gateway"
            return Response(status=status, body=body.upper())

        return whole

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent, _ = await read_request(reader)
        writer.write(respond(b"long" if b"/long" in sent else b"ok"))
        await writer.drain()

    async with upstream(serve) as up, front(up.authority, last=last) as gate, gate.raw() as client:
        await client.send(request_head("GET", "/"))
        assert (await client.answer()).body == b"OK"
        await client.send(request_head("GET", "/long"))
        assert (await client.answer()).status == 502
