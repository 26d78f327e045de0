"""Detaches the rest of a body from aiohttp, together with the socket, and tests at start that it can.

The only module that reaches behind aiohttp: it relies on how aiohttp and the event loop work inside,
which a new version may change. Then all uploads are streamed through the loop, and the log says so. No
byte is lost, doubled or read beyond the body; a detached connection never serves another request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.http.protocol import READ_BUFFER_BYTES, make_runner
from gateway.http.responses import DETACHED, Response
from gateway.http.socket_turns import duplicate_tcp_socket
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")

SELFTEST_TIMEOUT: Final = 5.0
"""Seconds; the test takes milliseconds."""

BODY_BYTES: Final = 4 * READ_BUFFER_BYTES
"""Twice what aiohttp reads before it pauses the connection."""

_HEAD: Final = f"PUT /trial HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
_NEXT_REQUEST: Final = b"GET /behind HTTP/1.1\r\nHost: test\r\n\r\n"

Wait = Callable[[web.BaseRequest], Awaitable[None]]


@dataclass(slots=True)
class DetachedSocket:
    """A duplicate of the socket (ours to close), bytes already parsed, number of bytes to come."""

    socket: socket.socket
    parsed: list[bytes]
    remaining: int


def detach_socket(request: web.BaseRequest, declared: int, min_remaining: int) -> DetachedSocket | None:
    """Detach the connection, if it is plain TCP and `min_remaining` bytes or more are to come.

    No await happens inside, so that no byte moves meanwhile. None leaves everything as it was.
    """
    transport = request.transport
    if transport is None or not has_to_come(request, declared, min_remaining):
        return None
    own = duplicate_tcp_socket(transport)
    if own is None:
        return None
    try:
        parsed = parsed_bytes(request)
    except BaseException:
        own.close()
        raise
    transport.pause_reading()
    request[DETACHED] = True
    return DetachedSocket(own, parsed, declared - request.content.total_bytes)


def has_to_come(request: web.BaseRequest, declared: int, min_remaining: int) -> bool:
    """Tell whether `min_remaining` bytes of an undamaged body, or more, are still to come."""
    transport, protocol, content = request.transport, request.protocol, request.content
    if declared - content.total_bytes < min_remaining or content.exception() is not None:
        return False
    # A protocol that is being closed drops what comes: then there may be a hole already.
    closing = transport is None or transport.is_closing() or protocol._close or protocol._force_close
    return not closing


def parsed_bytes(request: web.BaseRequest) -> list[bytes]:
    """Take all that aiohttp has read from the socket, also what a paused parser holds back."""
    content, protocol = request.content, request.protocol
    chunks = []
    while (chunk := content.read_nowait()) or protocol._reading_paused:
        chunks.append(chunk)
        if protocol._reading_paused:
            protocol.resume_reading()  # it delivers the rest, or as much as fits
    return chunks


def unread_bytes(request: web.BaseRequest) -> bytes:
    """Take what was read from a connection that has been lost since, and was not read by us."""
    content = request.content
    if not request.body_exists:  # its reader has no buffer
        return b""
    pieces = (
        [content._buffer[0][content._buffer_offset :], *list(content._buffer)[1:]]
        if content._buffer
        else []
    )
    content._buffer.clear()
    content._buffer_offset = content._size = 0
    return b"".join(pieces)


async def socket_path_works() -> bool:
    """Send bodies through real connections of this loop, detach them, compare every byte."""
    body = os.urandom(BODY_BYTES)
    try:
        async with asyncio.timeout(SELFTEST_TIMEOUT):
            for wait in (_at_once, _until_paused):
                await _transfer(wait, body)
    except Exception as error:
        log.warning(
            "large uploads are streamed through the event loop: this aiohttp or event loop does not let"
            " their sockets be detached (%s: %s)",
            type(error).__name__,
            error,
            extra=event("socket_path.disabled"),
        )
        return False
    return True


async def _at_once(request: web.BaseRequest) -> None:
    """Detach as soon as the head was read."""


async def _until_paused(request: web.BaseRequest) -> None:
    """Wait until aiohttp's buffer is full and the connection is paused."""
    while not request.protocol._reading_paused:  # noqa: ASYNC110  aiohttp has no event for it
        await asyncio.sleep(0)


async def _transfer(wait: Wait, body: bytes) -> None:
    """Send one body with another request behind it. Raises where the result is not exact."""
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/trial":
            raise RuntimeError("the request behind the body was served")
        response = Response(text="taken")
        try:
            await wait(request)
            received.set_result(await _receive(request))
        except Exception as error:
            received.set_exception(error)
        if DETACHED in request:
            await response.send(request)
        return response

    runner = make_runner(handle)
    await runner.setup()
    try:
        with _socket_pair() as (client, server):
            response = await _exchange(runner, client, server, body)
    finally:
        await runner.cleanup()
    if await received != body:
        raise RuntimeError("the body was changed")
    if response.count(b"HTTP/1.1 ") != 1 or not response.endswith(b"taken"):
        raise RuntimeError("the response was changed")


async def _exchange(
    runner: web.ServerRunner, client: socket.socket, server: socket.socket, body: bytes
) -> bytes:
    loop = asyncio.get_running_loop()
    if runner.server is None:
        raise RuntimeError("there is no server")
    await loop.connect_accepted_socket(runner.server, server)
    sending = asyncio.ensure_future(loop.sock_sendall(client, _HEAD + body + _NEXT_REQUEST))
    response = b""
    try:
        while chunk := await loop.sock_recv(client, 65536):
            response += chunk
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
    return response


async def _receive(request: web.BaseRequest) -> bytes:
    detached = detach_socket(request, BODY_BYTES, 1)
    if detached is None:
        raise RuntimeError("the connection could not be detached")
    loop, chunks, remaining = asyncio.get_running_loop(), list(detached.parsed), detached.remaining
    with detached.socket as own:
        while remaining:
            chunk = await loop.sock_recv(own, min(remaining, 1 << 20))
            if not chunk:
                raise RuntimeError("bytes are missing")
            chunks.append(chunk)
            remaining -= len(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def _socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield two connected TCP sockets; the event loop closes the second one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), SELFTEST_TIMEOUT)
        server, _ = listening.accept()
    client.setblocking(False)
    server.setblocking(False)
    with client, server:
        yield client, server
