"""A request of the short path (`short_path`), as an endpoint takes and answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDictProxy

if TYPE_CHECKING:
    from gateway.http.short_path import ShortPathConnection

Respond = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Sends the response to a request of aiohttp's task."""


class ShortRequest:
    """A whole small request, and the way to answer it: `begin`, then one `end`."""

    __slots__ = ("_connection", "_message", "_payload", "headers", "method", "raw_path")

    def __init__(
        self, connection: ShortPathConnection, message: RawRequestMessage, payload: StreamReader
    ) -> None:
        self._connection = connection
        self._message = message
        self._payload = payload
        self.method = message.method
        self.raw_path = message.path
        self.headers: CIMultiDictProxy[str] = message.headers

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The header lines as they came."""
        return self._message.raw_headers

    @property
    def scheme(self) -> str:
        """The scheme that the client uses: `http` or `https`."""
        return "http" if self._connection.ssl_context is None else "https"

    @property
    def remote(self) -> str | None:
        """The address of the client; None for a Unix socket."""
        peer = self._connection.peername
        return peer[0] if isinstance(peer, tuple) else peer

    @property
    def certificate(self) -> str | None:
        """The name in the certificate of the client."""
        return self._connection.certificate

    @property
    def body_exists(self) -> bool:
        """Whether the request has a body."""
        return self._payload is not EMPTY_PAYLOAD

    @property
    def body(self) -> bytes:
        """The body; reading it takes nothing from the ordinary path."""
        return b"".join(self._payload._buffer) if self.body_exists else b""

    @property
    def connection(self) -> ShortPathConnection:
        """The connection, on which a memo of the last request may be kept."""
        return self._connection

    @property
    def body_bytes(self) -> int:
        """The length of the body."""
        return self._payload.total_bytes

    def begin(self) -> None:
        """Take the request: the ordinary path will not serve it."""
        self._connection.begin_request()

    def end(self, response: bytes | None, *, close: bool = False) -> None:
        """Send the response (None: none is true, the connection is aborted); `close` as it says."""
        self._connection.end_request(response, close=close)

    def hand_over(self, respond: Respond) -> None:
        """Let aiohttp's task answer in the place of `end`, by calling `respond`.

        It never does where the client disconnects first.
        """
        self._connection.hand_over_request(self._message, self._payload, respond)

    @property
    def disconnected(self) -> bool:
        """Whether the client's connection is lost."""
        return self._connection.transport is None

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once the connection is lost; return what ends that."""
        callbacks = self._connection.disconnect_callbacks
        callbacks.add(callback)
        return lambda: callbacks.discard(callback)


Take = Callable[[ShortRequest], bool]
"""Takes a request (`begin` was called) or leaves it, then without any side effect."""
