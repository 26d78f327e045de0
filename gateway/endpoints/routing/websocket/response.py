"""The 101 for the client: to send it is to serve the WebSocket connection until its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import cast

from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.endpoints.routing.forwarding import response_headers
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.proxy.response import NOT_ADDED, plain_reason
from gateway.endpoints.routing.websocket.call import AnsweredHandshake
from gateway.endpoints.routing.websocket.tunnel import Tunnel
from gateway.endpoints.routing.websocket.tunnel_end import SwitchedConnection
from gateway.endpoints.routing.websocket_handshake import SWITCHING_PROTOCOLS, UPGRADE
from gateway.http.responses import GatewayResponse
from gateway.http.switching import take_received
from gateway.limits import Lease
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

Track = Callable[[Tunnel], AbstractContextManager[None]]
"""While in its context a connection is known to be open."""


class WebSocketResponse(GatewayResponse):
    """Switches the client's connection. `lease` is closed, and `track` left, at its end.

    A response that is not sent has to be closed.
    """

    def __init__(self, answered: AnsweredHandshake, route: Route, lease: Lease, track: Track) -> None:
        response = answered.response
        super().__init__(
            status=SWITCHING_PROTOCOLS,
            reason=plain_reason(response.reason),
            headers=_switch_headers(response.headers),
        )
        self._connection = answered.connection
        self._accept = response.headers[hdrs.SEC_WEBSOCKET_ACCEPT]
        self._route = route
        self._track = track
        self._at_end = contextlib.ExitStack()
        self._at_end.callback(lease.close)

    def close(self) -> None:
        """Close the upstream's connection."""
        self._connection.cancel()
        self._at_end.close()

    def call_at_end(self, callback: Callable[[], None]) -> None:
        """Call this once the connection has ended."""
        self._at_end.callback(callback)

    def whole_bytes(self) -> int:
        """Return 0: the request is recorded at the switch; what follows has an event of its own."""
        return 0

    def set_gateway_headers(self, request_id: str) -> None:
        """Set the id alone: the other headers are the upstream's."""
        self.headers["X-Request-Id"] = request_id

    async def send(self, request: web.BaseRequest, *, close: bool = False) -> None:
        """Send the 101, then carry bytes until the connection has ended. Raises `ConnectionError`."""
        self.force_close()  # it serves no other request
        try:
            await self.prepare(request)
            self._eof_sent = True
            await self._serve(request)
        finally:
            self.close()

    async def _prepare_headers(self) -> None:
        """Set what makes it a switch, whatever the steps did to the header fields."""
        self.headers.update(UPGRADE)
        self.headers[hdrs.SEC_WEBSOCKET_ACCEPT] = self._accept
        missing = [name for name in NOT_ADDED if name not in self.headers]
        await super()._prepare_headers()
        for name in missing:
            self.headers.popall(name, None)

    async def _serve(self, request: web.BaseRequest) -> None:
        client, upstream = request.transport, self._connection.transport
        if client is None or upstream is None:
            raise ConnectionResetError("a connection was lost before the switch")
        tunnel = Tunnel(
            SwitchedConnection(client, cast(asyncio.Protocol, request.protocol), take_received(request)),
            SwitchedConnection(upstream, self._connection, self._connection.tail),
            self._route.limits.idle,
        )
        started = time.monotonic()
        try:
            with self._track(tunnel):
                await tunnel.run()
        finally:
            self._log_end(tunnel, time.monotonic() - started)

    def _log_end(self, tunnel: Tunnel, seconds: float) -> None:
        fields = {
            "route": self._route.name,
            "upstream": self._connection.upstream,
            "seconds": round(seconds, 3),
            "bytes_in": tunnel.client.received,
            "bytes_out": tunnel.upstream.received,
            "ended_by": tunnel.ended_by,
            "how": tunnel.how,
        }
        log.info("WebSocket connection closed", extra=event("websocket.closed", **fields))


def _switch_headers(received: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the header fields of an upstream's 101 for the client. Raises as `response_headers`."""
    headers = response_headers(received)
    headers.popall(hdrs.CONTENT_LENGTH, None)  # RFC 9110 section 8.6
    return headers
