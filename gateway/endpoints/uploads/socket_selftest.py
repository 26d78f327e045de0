"""Does the fast road hold on this ground? Tried once, when the gateway starts.

Taking a body away from aiohttp leans on how it and the event loop work inside. A new version may
move that; then uploads go the ordinary road and the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aiohttp import web

from gateway.endpoints.uploads.socket_takeover import TAKEN, answer_taken, take
from gateway.http.protocol import READ_BUFFER, make_runner

log = logging.getLogger("gateway.uploads")

SECONDS: Final = 5.0
"""Patience with the trial, which takes milliseconds."""

SIZE: Final = 4 * READ_BUFFER
"""Twice what aiohttp takes before it holds the connection up."""

_HEAD: Final = f"PUT /trial HTTP/1.1\r\nHost: test\r\nContent-Length: {SIZE}\r\n\r\n".encode()
_BEHIND: Final = b"GET /behind HTTP/1.1\r\nHost: test\r\n\r\n"

Wait = Callable[[web.BaseRequest], Awaitable[None]]


async def fast_road_works() -> bool:
    """Send bodies through real connections of this loop, take them over, compare every byte."""
    body = os.urandom(SIZE)
    try:
        async with asyncio.timeout(SECONDS):
            for wait in (_at_once, _until_held_up):
                await _try(wait, body)
    except Exception as fault:
        log.warning(
            "the fast road for large uploads is not used: this aiohttp or event loop works otherwise "
            "than it needs (%s: %s)",
            type(fault).__name__,
            fault,
        )
        return False
    return True


async def _at_once(request: web.BaseRequest) -> None:
    """Take over as soon as the head is there."""


async def _until_held_up(request: web.BaseRequest) -> None:
    """Wait until aiohttp's buffer is full and the connection is paused."""
    while not request.protocol._reading_paused:  # noqa: ASYNC110  aiohttp tells nobody
        await asyncio.sleep(0)


async def _try(wait: Wait, body: bytes) -> None:
    """Send one body with another request behind it. Raises where anything is not as it should be."""
    found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/trial":
            raise RuntimeError("the request behind the body was served")
        answer = web.Response(text="taken")
        try:
            await wait(request)
            found.set_result(await _receive(request))
        except Exception as fault:
            found.set_exception(fault)
        if TAKEN in request:
            await answer_taken(request, answer)
        return answer

    runner = make_runner(handle)
    await runner.setup()
    try:
        with _pair() as (client, server):
            answer = await _speak(runner, client, server, body)
    finally:
        await runner.cleanup()
    if await found != body:
        raise RuntimeError("the body came out changed")
    if answer.count(b"HTTP/1.1 ") != 1 or not answer.endswith(b"taken"):
        raise RuntimeError("the answer came out changed")


async def _speak(
    runner: web.ServerRunner, client: socket.socket, server: socket.socket, body: bytes
) -> bytes:
    loop = asyncio.get_running_loop()
    if runner.server is None:
        raise RuntimeError("there is no server")
    await loop.connect_accepted_socket(runner.server, server)
    sending = asyncio.ensure_future(loop.sock_sendall(client, _HEAD + body + _BEHIND))
    answer = b""
    try:
        while piece := await loop.sock_recv(client, 65536):
            answer += piece
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
    return answer


async def _receive(request: web.BaseRequest) -> bytes:
    taken = take(request, SIZE, 1)
    if taken is None:
        raise RuntimeError("the connection could not be taken")
    loop, pieces, rest = asyncio.get_running_loop(), list(taken.parsed), taken.rest
    with taken.socket as own:
        while rest:
            piece = await loop.sock_recv(own, min(rest, 1 << 20))
            if not piece:
                raise RuntimeError("bytes are missing")
            pieces.append(piece)
            rest -= len(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two connected TCP sockets; the second becomes the event loop's to close."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), SECONDS)
        server, _ = listening.accept()
    client.setblocking(False)
    server.setblocking(False)
    with client, server:
        yield client, server
