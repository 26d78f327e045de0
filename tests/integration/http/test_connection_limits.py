"""What one connection, and one client with many, can take of the server."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import cast

import pytest

from gateway.http import connection, limits
from gateway.http.connection import ClientConnection
from gateway.limits import FairShare
from gateway.server import app
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import put, raw_connection, request_head, wait_until, write_plugin

HEALTH = request_head("GET", "/-/health")
KIB = 1 << 10


def _connections(gateway: Gateway) -> list[ClientConnection]:
    server = gateway.servers[0].server
    assert server is not None
    return cast(list[ClientConnection], server.connections)


@pytest.fixture
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CHECK_INTERVAL", 0.05)


def _silent_client(gateway: Gateway, request: bytes) -> socket.socket:
    """Send what the kernel takes of a request, with a small buffer for the answers, and never read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(gateway.address)
    client.setblocking(False)
    client.send(request)
    return client


# -- heads


MANY_LINES = [f"X-{number}: {'a' * 1000}" for number in range(40)]
LARGE_HEADS = {
    "many lines": request_head("GET", "/-/health", *MANY_LINES),
    "one line": request_head("GET", "/-/health", f"X-A: {'a' * 40_000}"),
    "request line": request_head("GET", "/-/health?" + "a" * 40_000),
    "no end": request_head("GET", "/-/health", *MANY_LINES)[:-2],
    "more than a megabyte": request_head("GET", "/-/health", *MANY_LINES * 40),
}


@pytest.mark.parametrize("head", LARGE_HEADS.values(), ids=LARGE_HEADS.keys())
async def test_a_head_above_the_limit_is_refused_with_431_and_the_connection_closed(
    start_gateway: StartGateway, head: bytes
) -> None:
    gateway = await start_gateway(auth="token")
    async with raw_connection(gateway) as client:
        client.writer.write(head)
        answer = await client.answer()
        assert answer.headers["Connection"] == "close"
        assert await client.closed() == b""
    assert (answer.status, answer.json["error"]) == (431, "headers_too_large")
    assert "32768" in answer.json["message"]


async def test_a_head_just_below_the_limit_is_served(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_header_bytes="4KiB")
    padding = 4 * KIB - len(HEALTH) - len("X-A: \r\n")
    for extra, status in ((0, 200), (1, 431)):
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/-/health", "X-A: " + "a" * (padding + extra)))
            assert (await client.answer()).status == status


async def test_each_pipelined_head_counts_by_itself(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_header_bytes="4KiB")
    head = request_head("GET", "/-/health", "X-A: " + "a" * 3000)
    large = request_head("GET", "/-/health", "X-A: " + "a" * 5000)
    async with raw_connection(gateway) as client:
        await client.send(head * 20 + large + head)
        assert [(await client.answer()).status for _ in range(21)] == [200] * 20 + [431]
        assert await client.closed() == b""


async def test_a_head_that_arrives_with_the_end_of_another_body_is_counted(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(max_header_bytes="4KiB")
    body = b"a" * 100_000
    upload = request_head("PUT", "/upload/x", f"Content-Length: {len(body)}") + body
    large = request_head("GET", "/-/health", "X-A: " + "a" * 5000)
    async with raw_connection(gateway) as client:
        await client.send(upload + HEALTH + large)
        assert [(await client.answer()).status for _ in range(3)] == [201, 200, 431]


async def test_trailers_without_end_are_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as client:
        await client.send(request_head("PUT", "/upload/x", "Transfer-Encoding: chunked") + b"0\r\n")
        lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(100))
        client.writer.write(lines)
        assert (await client.answer()).status == 400
        await client.closed()


@pytest.mark.usefixtures("frequent_checks")
@pytest.mark.parametrize("before", [b"", HEALTH], ids=["first request", "second request"])
async def test_a_head_that_comes_too_slowly_is_answered_with_408(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.2)
    gateway = await start_gateway()
    async with raw_connection(gateway) as client:
        if before:
            await client.send(before)
            assert (await client.answer()).status == 200
        await client.send(b"GET /-/health HTTP/1.1\r\nHost: test\r\n")
        answer = await client.answer()
        assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
        assert await client.closed() == b""


@pytest.mark.usefixtures("frequent_checks")
async def test_an_idle_connection_stays_open_behind_a_body_that_ended_alone(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.1)
    gateway = await start_gateway()
    async with raw_connection(gateway) as client:
        await client.send(request_head("PUT", "/upload/x", "Transfer-Encoding: chunked") + b"1\r\na\r\n")
        await wait_until(lambda: len(gateway.endpoints.dispatcher.files.uploads.outcomes.inflight))
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).status == 201
        await asyncio.sleep(0.3)
        await client.send(HEALTH)
        assert (await client.answer()).status == 200


# -- what waits, and what is not read


async def test_bodies_of_requests_that_wait_behind_another_are_bounded(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    text = """
    name: slow
    upstreams: []
    proxy: {path: /slow, authorization: {auth_mode: none}}
    request_script: |
      await asyncio.sleep(60)
    """
    lines = (line.removeprefix("    ") for line in text.splitlines())
    plugins = write_plugin(tmp_path / "plugins", "\n".join(lines))
    gateway = await start_gateway(plugins=[str(plugins)], grace="0.1")
    body = b"a" * (300 * KIB)
    upload = request_head("PUT", "/upload/x", f"Content-Length: {len(body)}") + body
    async with raw_connection(gateway) as client:
        client.writer.write(request_head("GET", "/slow") + upload * 30)
        served = (await wait_until(lambda: _connections(gateway)))[0]
        await wait_until(lambda: served._buffer_paused)
        assert served._waiting_bytes() <= limits.MAX_WAITING_BYTES + 2 * len(body)
        client.reset()


async def test_requests_that_waited_behind_a_pause_are_all_served(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    body = b"a" * (300 * KIB)
    upload = request_head("PUT", "/upload/x", f"Content-Length: {len(body)}") + body
    async with raw_connection(gateway) as client:
        client.writer.write(upload * 30)
        assert {(await client.answer()).status for _ in range(30)} <= {200, 201}


@pytest.mark.usefixtures("frequent_checks")
@pytest.mark.parametrize(
    "request_",
    [HEALTH * 20_000, request_head("GET", "/-/metrics", "Connection: close") + HEALTH * 10],
    ids=["small answers", "a last answer"],
)
async def test_a_client_that_reads_none_of_its_answers_is_disconnected(
    start_gateway: StartGateway, request_: bytes
) -> None:
    gateway = await start_gateway(idle_timeout="0.3")
    with _silent_client(gateway, request_):
        await wait_until(lambda: _connections(gateway))
        await wait_until(lambda: not _connections(gateway))


async def test_uploads_of_a_client_that_reads_no_answers_do_not_pile_up_answers(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(durability="none")
    upload = request_head("PUT", "/upload/x", "Content-Length: 1") + b"x"
    with _silent_client(gateway, b"") as client:
        served = (await wait_until(lambda: _connections(gateway)))[0]
        assert served.transport is not None
        served.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(client, upload * 5_000))
        await wait_until(lambda: served.writing_paused and served._buffer_paused)
        unsent = served.transport.get_write_buffer_size()
        for number in range(10):  # meanwhile hundreds would have been answered
            assert (await put(gateway, f"/upload/{number}")).status == 201
        assert served.transport.get_write_buffer_size() - unsent < KIB
        sending.cancel()


# -- how many connections


async def test_more_connections_than_a_client_s_share_are_answered_with_503(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "connection_share", lambda: FairShare("connections", 4))
    gateway = await start_gateway()
    async with raw_connection(gateway) as first, raw_connection(gateway) as second:
        for client in (first, second):
            await client.send(HEALTH)
            assert (await client.answer()).status == 200
        async with raw_connection(gateway) as third:
            answer = await third.answer()
            assert (answer.status, answer.json["error"]) == (503, "overloaded")
            assert "Retry-After" in answer.headers
            assert await third.closed() == b""
        first.reset()
        await wait_until(lambda: len(_connections(gateway)) == 1)
        async with raw_connection(gateway) as fourth:
            await fourth.send(HEALTH)
            assert (await fourth.answer()).status == 200


async def test_connections_of_a_trusted_proxy_count_for_no_client(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "connection_share", lambda: FairShare("connections", 2))
    gateway = await start_gateway(trusted_proxies=["127.0.0.0/8"])
    async with raw_connection(gateway) as first, raw_connection(gateway) as second:
        for client in (first, second):
            await client.send(HEALTH)
            assert (await client.answer()).status == 200
