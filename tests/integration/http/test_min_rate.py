"""`--min-rate`: a client that is waited for too long, though it sends or reads something, is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest
from aiohttp import web

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import (
    RawResponse,
    leftovers,
    raw_connection,
    request_head,
    self_signed_certificate,
)
from tests.support.routing.api import api
from tests.support.routing.scripted import route, write

MIB = 1 << 20
WINDOW = 0.1
"""Seconds over which the rate is judged here."""


@pytest.fixture(autouse=True)
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limits.rates.RATE_WINDOW", WINDOW)


async def trickle(gateway: Gateway, head: bytes, piece: bytes) -> RawResponse:
    """Send a piece now and then until the answer comes."""
    async with raw_connection(gateway) as connection:
        await connection.send(head)
        answer = asyncio.ensure_future(connection.answer())
        while not answer.done():
            with contextlib.suppress(ConnectionError):
                await connection.send(piece)
            await asyncio.wait({answer}, timeout=WINDOW / 4)
        return await answer


@pytest.mark.parametrize("detach", [False, True], ids=["on the loop", "in a thread"])
async def test_an_upload_that_trickles_is_refused_and_leaves_no_trace(
    start_gateway: StartGateway, tmp_path: Path, detach: bool
) -> None:
    gateway = await start_gateway(min_rate="1G")
    receiver = gateway.endpoints.body_receiver
    receiver.socket_path, receiver.min_detach_bytes = detach, 1
    head = request_head("PUT", "/upload/slow", f"Content-Length: {MIB}")
    answer = await trickle(gateway, head, b"x")
    assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
    assert "bytes a second" in answer.json["message"]
    assert leftovers(tmp_path / "data") == []


async def test_a_form_that_trickles_is_refused_and_leaves_no_trace(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(min_rate="1G")
    lines = ("Content-Type: multipart/form-data; boundary=b", f"Content-Length: {MIB}")
    begun = b'--b\r\nContent-Disposition: form-data; name="f"; filename="slow"\r\n\r\n'
    answer = await trickle(gateway, request_head("POST", "/upload/", *lines) + begun, b"x")
    assert (answer.status, answer.json["error"]) == (408, "idle_timeout")
    assert leftovers(tmp_path / "data") == []
    assert not (tmp_path / "data/upload").exists()


async def test_a_body_of_a_route_that_trickles_is_refused(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins = write(tmp_path / "plugins", route("/read", "return request.body"))
    gateway = await start_gateway(min_rate="1G", plugins=[str(plugins)])
    head = request_head("POST", "/read", "Content-Type: application/json", f"Content-Length: {MIB}")
    answer = await trickle(gateway, head, b" ")
    assert (answer.status, answer.json["error"]) == (408, "idle_timeout")


async def test_a_rate_of_0_allows_every_trickle(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(min_rate="0")
    answer = await trickle(gateway, request_head("PUT", "/upload/slow", "Content-Length: 12"), b"x")
    assert answer.status == 201


@pytest.mark.parametrize("kind", ["file over TCP", "file over TLS", "archive"])
async def test_a_download_that_is_read_too_slowly_is_cut_off(
    start_gateway: StartGateway, tmp_path: Path, kind: str
) -> None:
    """The reader has a small window, and takes a little now and then."""
    folder = tmp_path / "data/upload"
    folder.mkdir(parents=True)
    (folder / "big").write_bytes(os.urandom(16 * MIB))
    settings: dict[str, object] = {"downloads": True, "min_rate": "1G"}
    if kind == "file over TLS":
        settings["tls_cert"], settings["tls_key"] = self_signed_certificate(tmp_path)
    gateway = await start_gateway(**settings)
    target = "/upload/?format=zip" if kind == "archive" else "/upload/big"
    received = await asyncio.to_thread(_read_slowly, gateway.address, target, "TLS" in kind)
    assert received < 16 * MIB


async def test_a_proxied_response_that_is_read_too_slowly_is_cut_off(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async def large(request: web.Request) -> web.Response:
        return web.Response(body=bytes(16 * MIB))

    async with api(large) as up:
        plugins = write(tmp_path / "plugins", up.route())
        gateway = await start_gateway(min_rate="1G", auth="none", plugins=[str(plugins)])
        received = await asyncio.to_thread(_read_slowly, gateway.address, "/r", False)
    assert received < 16 * MIB


def _read_slowly(address: tuple[str, int], target: str, tls: bool) -> int:
    """Read until the other side closes; return how many bytes came."""
    import ssl

    received = 0
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 30, 0))
        connection.connect(address)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = stack.enter_context(context.wrap_socket(connection))
        connection.sendall(request_head("GET", target))
        pause = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        pause.settimeout(WINDOW / 10)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += len(chunk)
                if received < 15 * MIB:
                    with contextlib.suppress(TimeoutError):
                        pause.recv(1)
    return received
