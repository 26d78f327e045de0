"""Taking the rest of a body away from aiohttp, socket and all.

The one place that reaches behind aiohttp's back; `roadcheck` tries at start whether it still can.
The rule: not one byte is lost, doubled or read beyond the body, and a connection that was taken
never serves another request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.http.protocol import DRAIN_BYTES, DRAIN_SECONDS, DRAIN_SECONDS_EXPECT
from gateway.http.socket_turns import duplicate_tcp_socket

TAKEN: Final = web.RequestKey("taken", bool)
"""Set on a request whose connection was taken: it is answered with `answer_taken`."""

_DRAIN_PIECE: Final = 64 << 10


@dataclass(slots=True)
class TakenSocket:
    """What was taken: a duplicate of the socket (ours to close), bytes already parsed, bytes to come."""

    socket: socket.socket
    parsed: list[bytes]
    rest: int


def take(request: web.BaseRequest, declared: int, least: int) -> TakenSocket | None:
    """Take the connection, if it is plain TCP and `least` bytes or more of the body are to come.

    No await happens inside, so that no byte moves meanwhile. None leaves all as it was.
    """
    transport, protocol, content = request.transport, request.protocol, request.content
    if declared - content.total_bytes < least or content.exception() is not None:
        return None
    # A protocol that is being closed drops what comes: then there may be a hole already.
    if transport is None or transport.is_closing() or protocol._close or protocol._force_close:
        return None
    own = duplicate_tcp_socket(transport)
    if own is None:
        return None
    try:
        parsed = _parsed(request)
    except BaseException:
        own.close()
        raise
    transport.pause_reading()
    request[TAKEN] = True
    return TakenSocket(own, parsed, declared - content.total_bytes)


def _parsed(request: web.BaseRequest) -> list[bytes]:
    """Take all that aiohttp has read from the socket, also what a paused parser holds back."""
    content, protocol = request.content, request.protocol
    pieces = []
    while (piece := content.read_nowait()) or protocol._reading_paused:
        pieces.append(piece)
        if protocol._reading_paused:
            protocol.resume_reading()  # it hands on the rest, or as much as fits
    return pieces


async def answer_taken(request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Send `answer` on a connection that was taken, and say that we close.

    Then wait, bounded, until the client closes too: bytes behind the body, if there are any, are
    swallowed, for closing over them would reset the connection and lose the answer.
    """
    answer.force_close()
    await answer.prepare(request)
    await answer.write_eof()
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    own = duplicate_tcp_socket(transport)
    if own is None:
        return
    transport.write_eof()
    waits_for_us = answer.status < 400 or "Expect" in request.headers
    with own, contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS_EXPECT if waits_for_us else DRAIN_SECONDS):
            await _drain(own)


async def _drain(own: socket.socket) -> None:
    loop, left, scratch = asyncio.get_running_loop(), DRAIN_BYTES, bytearray(_DRAIN_PIECE)
    while left > 0 and (size := await loop.sock_recv_into(own, scratch)):
        left -= size
