"""The handshake of WebSocket connections: what opens one, what is refused, and what upstreams answer."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.auth.tokens import token_digest
from tests.support.harness import (
    TIMEOUT,
    raw_connection,
    request_head,
    self_signed_certificate,
    wait_until,
)
from tests.support.routing.proxying import lines_of, read_head, upstream
from tests.support.routing.scripted import Serve
from tests.support.routing.websocket import (
    ACCEPT,
    HANDSHAKE,
    KEY,
    SWITCH,
    ServerConnection,
    connecting,
    echo,
    socket_route,
    socket_server,
)


async def test_messages_pass_both_ways(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server))
        async with connecting(gateway) as socket:
            for message in ("text", b"bytes", "", "ü" * 70_000):
                await socket.send(message)
                assert await socket.recv() == message


async def test_an_upstream_gets_the_handshake_as_a_proxy_forwards_it(serve: Serve) -> None:
    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH)
        await reader.read()

    async with upstream(switch) as up:
        gateway = await serve(socket_route(up.authority, path="/ws/{rest:path}"))
        async with raw_connection(gateway) as client:
            more = ("Sec-WebSocket-Protocol: chat", "X-Own: 1", "Cookie: a=b")
            await client.send(request_head("GET", "/ws/room?q=1", *HANDSHAKE, *more))
            assert (await client.head()).status == 101
        await up.ended.wait()
    head = up.only
    assert head.startswith(b"GET /ws/room?q=1 HTTP/1.1\r\n")
    assert lines_of(head, "Host") == [up.authority]
    assert lines_of(head, "Connection") == ["Upgrade"]
    assert lines_of(head, "Upgrade") == ["websocket"]
    assert lines_of(head, "Sec-WebSocket-Key") == [KEY]
    assert lines_of(head, "Sec-WebSocket-Version") == ["13"]
    assert lines_of(head, "Sec-WebSocket-Protocol") == ["chat"]
    assert lines_of(head, "X-Own") == ["1"]
    assert lines_of(head, "Cookie") == ["a=b"]
    assert lines_of(head, "X-Forwarded-For") == ["127.0.0.1"]
    assert lines_of(head, "Via") == ["1.1 upload-gateway"]


async def test_a_client_gets_the_fields_of_the_101(serve: Serve) -> None:
    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        fields = b"Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
        writer.write(SWITCH[:-2] + fields)
        await reader.read()

    async with upstream(switch) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws", *HANDSHAKE))
            head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert lines_of(head, "Upgrade") == ["websocket"]
    assert lines_of(head, "Connection") == ["Upgrade"]
    assert lines_of(head, "Sec-WebSocket-Accept") == [ACCEPT]
    assert lines_of(head, "Sec-WebSocket-Protocol") == ["chat"]
    assert lines_of(head, "Set-Cookie") == ["a=1", "b=2"]
    assert len(lines_of(head, "X-Request-Id")) == 1
    assert lines_of(head, "Content-Type") == lines_of(head, "Content-Length") == []


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426, "version 13"),
        ({"Sec-WebSocket-Version": None}, 400, "Sec-WebSocket-Version is missing"),
        ({"Sec-WebSocket-Key": None}, 400, "Sec-WebSocket-Key"),
        ({"Sec-WebSocket-Key": "short"}, 400, "Sec-WebSocket-Key"),
        ({"Connection": "keep-alive"}, 400, "Connection: Upgrade"),
        ({"Upgrade": "websocket, h2c"}, 400, "Upgrade has to be"),
        ({"Content-Length": "5"}, 400, "body"),
        ({"Transfer-Encoding": "chunked"}, 400, "body"),
    ],
)
async def test_a_malformed_handshake_is_refused_with_what_is_wrong(
    serve: Serve, changed: dict[str, str | None], status: int, message: str
) -> None:
    fields = dict(line.split(": ", 1) for line in HANDSHAKE) | changed
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    async with upstream(_never) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            body = {"Content-Length": b"hello", "Transfer-Encoding": b"0\r\n\r\n"}
            sent = next((body[name] for name in changed if name in body), b"")
            hidden = b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await client.send(request_head("GET", "/ws", *lines) + sent + hidden)
            answer = await client.answer()
            assert (answer.status, message in answer.json["message"]) == (status, True), answer.json
            assert await client.closed() == b""
    assert up.received == []
    assert ("Sec-WebSocket-Version" in answer.headers) == (status == 426)


async def test_a_handshake_of_http_1_0_is_refused(serve: Serve) -> None:
    gateway = await serve(socket_route("127.0.0.1:9"))
    async with raw_connection(gateway) as client:
        head = request_head("GET", "/ws", *HANDSHAKE).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        await client.send(head)
        assert (await client.head()).status == 400


async def test_a_route_without_the_key_says_which_key_is_missing(serve: Serve) -> None:
    gateway = await serve(socket_route("127.0.0.1:9").replace("websocket: true", ""))
    async with raw_connection(gateway) as client:
        await client.send(request_head("GET", "/ws", *HANDSHAKE))
        answer = await client.answer()
        assert (answer.status, "`websocket: true`" in answer.json["message"]) == (400, True)
        assert await client.closed() == b""


async def test_other_requests_of_the_route_are_proxied_as_ever(serve: Serve) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await reader.read()

    async with upstream(greet) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws"))
            assert (await client.answer()).body == b"hi"


@pytest.mark.parametrize("status", [200, 302, 401, 426, 503])
async def test_another_response_is_relayed_and_opens_nothing(serve: Serve, status: int) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 %d No\r\nX-Why: so\r\nContent-Length: 4\r\n\r\nbody" % status)
        await reader.read()

    async with upstream(refuse) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            hidden = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await client.send(request_head("GET", "/ws", *HANDSHAKE) + hidden)
            answer = await client.answer()
            assert (answer.status, answer.body, answer.headers["X-Why"]) == (status, b"body", "so")
            assert await client.closed() == b""
        await up.ended.wait()
    assert b"hidden" not in up.only


@pytest.mark.parametrize(
    "switch",
    [
        SWITCH.replace(ACCEPT.encode(), b"x" * 28),
        SWITCH.replace(b"Upgrade: websocket\r\n", b"Upgrade: other\r\n"),
        SWITCH.replace(b"Connection: Upgrade\r\n", b""),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_a_101_that_does_not_belong_to_the_request_is_502(serve: Serve, switch: bytes) -> None:
    async def cheat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switch)
        await reader.read()

    async with upstream(cheat) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws", *HANDSHAKE) + b"GET /hidden HTTP/1.1\r\n\r\n")
            assert (await client.answer()).status == 502
            assert await client.closed() == b""
        await up.ended.wait()
    assert b"hidden" not in up.only


async def test_bytes_right_behind_the_handshake_are_not_lost(serve: Serve) -> None:
    frames = b"\x81\x85\0\0\0\0hello"

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH + b"\x81\x02hi")
        got.set_result(await reader.readexactly(len(frames)))
        await reader.read()

    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with upstream(early) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws", *HANDSHAKE) + frames)
            assert (await client.head()).status == 101
            assert await client.reader.readexactly(4) == b"\x81\x02hi"
            assert await got == frames


async def test_the_next_upstream_gets_the_handshake_where_one_cannot_be_reached(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route("127.0.0.1:9", server))
        for _ in range(2):
            async with connecting(gateway) as socket:
                await socket.send("a")
                assert await socket.recv() == "a"


async def test_no_upstream_is_502(serve: Serve) -> None:
    gateway = await serve(socket_route("127.0.0.1:9"))
    with pytest.raises(InvalidStatus) as refused:
        await connecting(gateway)
    assert refused.value.response.status_code == 502


@pytest.mark.parametrize(
    ("origin", "more", "opens"),
    [
        ("http://localhost", "", True),
        ("http://evil.example", "", False),
        ("null", "", False),
        ("http://localhost.evil.example", "", False),
        ("http://friend.example", "cors: {origins: ['http://friend.example']}\n", True),
        ("http://evil.example", "cors: {origins: ['http://friend.example']}\n", False),
    ],
)
async def test_pages_of_other_origins_may_not_connect_unless_they_are_named(
    serve: Serve, origin: str, more: str, opens: bool
) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server, more=more))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws", *HANDSHAKE, f"Origin: {origin}"))
            assert (await client.head()).status == (101 if opens else 403)


async def test_origins_of_the_gateway_may_connect(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server), cors_origins=["http://friend.example"])
        async with connecting(gateway, origin="http://friend.example") as socket:
            await socket.send("a")
            assert await socket.recv() == "a"


async def test_authorization_comes_before_the_upstream(serve: Serve) -> None:
    callers = []

    async def tell(connection: ServerConnection) -> None:
        assert connection.request is not None
        callers.append(connection.request.headers.get("Authorization"))
        await echo(connection)

    async with socket_server(tell) as server:
        tokens = [f"ann:{token_digest('ours')}"]
        gateway = await serve(socket_route(server, auth="token"), auth="token", tokens=tokens)
        with pytest.raises(InvalidStatus) as refused:
            await connecting(gateway)
        assert refused.value.response.status_code == 401
        headers = {"Authorization": "Bearer ours"}
        async with connecting(gateway, additional_headers=headers) as socket:
            await socket.send("a")
            assert await socket.recv() == "a"
    assert callers == [None]  # of the one that was let in; the token is ours


async def test_the_other_steps_come_before_the_upstream(serve: Serve) -> None:
    async def tell(connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send(connection.request.headers.get("X-From-Script", ""))
        await echo(connection)

    script = """
rate_limit: {count: 2, seconds: 3600}
request_script: |
  if "refuse" in request.params:
      return 418, "no"
  request.headers["X-From-Script"] = "yes"
response_script: |
  response.headers["X-Never"] = "1"
"""
    async with socket_server(tell) as server:
        gateway = await serve(socket_route(server, more=script))
        with pytest.raises(InvalidStatus) as refused:
            await connecting(gateway, "/ws?refuse=1")
        assert refused.value.response.status_code == 418
        async with connecting(gateway) as socket:
            assert await socket.recv() == "yes"
            assert socket.response is not None
            assert "X-Never" not in socket.response.headers
            assert socket.response.headers["RateLimit-Remaining"] == "0"
        with pytest.raises(InvalidStatus) as refused:
            await connecting(gateway)
        assert refused.value.response.status_code == 429


async def _never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise AssertionError("no request may come here")


async def test_a_client_that_leaves_before_the_101_ends_the_handshake(serve: Serve) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await reader.read()

    asked = asyncio.Event()
    async with upstream(silent) as up:
        gateway = await serve(socket_route(up.authority))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws", *HANDSHAKE))
            await asked.wait()
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()


async def test_an_upstream_that_says_nothing_is_504(serve: Serve) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as up:
        gateway = await serve(socket_route(up.authority, more="limits: {idle: 200ms}\n"))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/ws", *HANDSHAKE))
            assert (await client.answer()).status == 504


async def test_a_status_that_is_a_failure_sends_the_handshake_to_the_next_upstream(
    serve: Serve,
) -> None:
    async def sick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with upstream(sick) as up, socket_server() as server:
        more = "passive: {statuses: [503]}\n"
        gateway = await serve(socket_route(up.authority, server, more=more))
        for _ in range(2):
            async with connecting(gateway) as client:
                await client.send("a")
                assert await client.recv() == "a"
        assert up.received


async def test_one_client_takes_its_share_of_a_route_and_gives_it_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.endpoints.routing.websocket.websockets.MAX_ROUTE_WEBSOCKETS", 4)
    async with socket_server() as server:
        gateway = await serve(socket_route(server))
        for _ in range(2):
            async with connecting(gateway) as one, connecting(gateway):
                with pytest.raises(InvalidStatus) as refused:
                    await connecting(gateway)
                assert refused.value.response.status_code == 429
                await one.send("a")
                assert await one.recv() == "a"
            await wait_until(lambda: not gateway.endpoints.dispatcher.serving.count)


async def test_an_open_connection_is_in_flight(serve: Serve) -> None:
    async with socket_server() as server:
        gateway = await serve(socket_route(server, more="limits: {in_flight: 2}\n"))
        for _ in range(2):
            async with connecting(gateway):
                with pytest.raises(InvalidStatus) as refused:
                    await connecting(gateway)
                assert refused.value.response.status_code in {429, 503}
            await wait_until(lambda: not gateway.endpoints.dispatcher.serving.count)


async def test_a_client_over_tls_is_served(serve: Serve, tmp_path: Path) -> None:
    certificate, key = self_signed_certificate(tmp_path)
    async with socket_server() as server:
        gateway = await serve(socket_route(server), tls_cert=certificate, tls_key=key)
        trusted = ssl.create_default_context(cafile=certificate)
        url = f"wss://localhost:{gateway.address[1]}/ws"
        async with connect(url, proxy=None, ssl=trusted, max_size=None) as client:
            for message in ("a", b"\0" * 3_000_000):
                await client.send(message)
                assert await client.recv() == message
            await client.close(4002, "enough")
            assert client.close_code == 4002


async def test_an_upstream_over_tls_is_served_with_the_authorities_of_the_route(
    serve: Serve, tmp_path: Path
) -> None:
    certificate, key = self_signed_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with socket_server(ssl=context) as server:
        upstream_name = server.replace("127.0.0.1", "localhost")
        secure = "target: {scheme: 'https:'}\n"
        trusting = f"{secure}upstream_tls: {{ca: {certificate}}}\n"
        gateway = await serve(
            socket_route(upstream_name, more=trusting),
            socket_route(upstream_name, more=secure, path="/untrusted"),
        )
        async with connecting(gateway) as client:
            for message in ("a", b"\0" * 3_000_000):
                await client.send(message)
                assert await client.recv() == message
            await client.close(4002, "enough")
            assert client.close_code == 4002
        with pytest.raises(InvalidStatus) as refused:
            await connecting(gateway, "/untrusted")
        assert refused.value.response.status_code == 502
