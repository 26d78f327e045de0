"""Hands a client's connection over to another protocol (RFC 9110 section 7.8).

It relies on how aiohttp's `RequestHandler` works inside: behind the request for a protocol that it
knows, it keeps what it reads, and parses nothing.
"""

from __future__ import annotations

from aiohttp import web

from gateway.http.connection import ClientConnection


def can_switch(request: web.BaseRequest) -> bool:
    """Tell whether what came behind a request was kept, and not taken for another request."""
    protocol = request.protocol
    return isinstance(protocol, ClientConnection) and protocol._upgraded and not protocol._messages


def take_received(request: web.BaseRequest) -> bytes:
    """Take what was received behind the request. The caller takes the connection over at once."""
    protocol = request.protocol
    received, protocol._message_tail = protocol._message_tail, b""
    return received
