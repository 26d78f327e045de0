"""WebSocket servers of another author (`websockets`), and routes that lead to them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from tests.support.harness import Addressed
from tests.support.routing.proxying import lines_of
from tests.support.routing.scripted import route

Talk = Callable[[ServerConnection], Awaitable[None]]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455 section 1.3."""
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)


def switch_for(head: bytes) -> bytes:
    """Return the response to a handshake."""
    [key] = lines_of(head, "Sec-WebSocket-Key")
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
    ).encode()


SWITCH = switch_for("\r\n".join(("", *HANDSHAKE, "")).encode())
"""The response to HANDSHAKE."""


async def echo(connection: ServerConnection) -> None:
    """Send back every message."""
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


@contextlib.asynccontextmanager
async def socket_server(talk: Talk = echo, **options: Any) -> AsyncIterator[str]:
    """Start a WebSocket server; return its host and port."""
    async with serve(talk, "127.0.0.1", 0, **{"max_size": None, **options}) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        yield f"{host}:{port}"


def socket_route(*upstreams: str, more: str = "", auth: str = "none", path: str = "/ws") -> str:
    """A route that takes WebSocket connections."""
    text = route(path, more=f"websocket: true\n{more}", auth=auth)
    return text.replace("upstreams: []", f"upstreams: {list(upstreams)}", 1)


def socket_url(gateway: Addressed, path: str = "/ws") -> str:
    """The address of a WebSocket of a gateway."""
    host, port = gateway.address
    return f"ws://{host}:{port}{path}"


def connecting(gateway: Addressed, path: str = "/ws", **options: Any) -> connect:
    """Connect to a gateway with the client of `websockets`."""
    return connect(socket_url(gateway, path), **{"max_size": None, "proxy": None, **options})


__all__ = ["ClientConnection", "ServerConnection", "connecting", "echo", "socket_route", "socket_server"]
