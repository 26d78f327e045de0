"""Detaches the rest of a body from aiohttp, together with the socket.

The only module that reaches behind aiohttp; `socket_selftest` tests at start whether it still can. Not
one byte is lost, doubled or read beyond the body, and a detached connection never serves another
request.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from aiohttp import web

from gateway.http.responses import DETACHED
from gateway.http.socket_turns import duplicate_tcp_socket


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
    transport, protocol, content = request.transport, request.protocol, request.content
    if declared - content.total_bytes < min_remaining or content.exception() is not None:
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
    request[DETACHED] = True
    return DetachedSocket(own, parsed, declared - content.total_bytes)


def _parsed(request: web.BaseRequest) -> list[bytes]:
    """Take all that aiohttp has read from the socket, also what a paused parser holds back."""
    content, protocol = request.content, request.protocol
    chunks = []
    while (chunk := content.read_nowait()) or protocol._reading_paused:
        chunks.append(chunk)
        if protocol._reading_paused:
            protocol.resume_reading()  # it delivers the rest, or as much as fits
    return chunks
