"""WebSocket connections between a client and a server of Autobahn."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio

import autobahn.asyncio.websocket as autobahn

from tests.support.harness import TIMEOUT
from tests.support.routing.scripted import Serve
from tests.support.routing.websocket import socket_route, socket_url


async def test_both_ends_of_autobahn_converse(serve: Serve) -> None:
    """A second library on both sides: messages, pings, and a Close frame."""
    received: asyncio.Queue[tuple[str, object]] = asyncio.Queue()

    class Echo(autobahn.WebSocketServerProtocol):
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.sendMessage(payload, isBinary)

        def onClose(self, wasClean: bool, code: int, reason: str) -> None:
            ended.set_result((wasClean, code, reason))

    class Ask(autobahn.WebSocketClientProtocol):
        def onOpen(self) -> None:
            self.sendPing(b"ping")
            self.sendMessage("é".encode())
            self.sendMessage(bytes(200_000), isBinary=True)

        def onPong(self, payload: bytes) -> None:
            received.put_nowait(("pong", payload))

        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            received.put_nowait(("message", payload))
            if isBinary:
                self.sendClose(4001, "enough")

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[bool, int, str]] = loop.create_future()
    servers, clients = autobahn.WebSocketServerFactory(), autobahn.WebSocketClientFactory()
    servers.protocol, clients.protocol = Echo, Ask
    server = await loop.create_server(servers, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        gateway = await serve(socket_route(f"{host}:{port}"))
        clients.setSessionParameters(socket_url(gateway))
        await loop.create_connection(clients, *gateway.address)
        async with asyncio.timeout(TIMEOUT):
            assert [await received.get() for _ in range(3)] == [
                ("pong", b"ping"),
                ("message", "é".encode()),
                ("message", bytes(200_000)),
            ]
            assert await ended == (True, 4001, "enough")
