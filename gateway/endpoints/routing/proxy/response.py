"""Streams an upstream's response to the client.

It ends cleanly only if the upstream ended it cleanly; otherwise the client's connection is aborted.
The upstream is read as fast as the client takes the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

import aiohttp
from aiohttp import hdrs, web

from gateway.endpoints.routing.forwarding import response_headers
from gateway.endpoints.routing.proxy.connection import PlainResponse
from gateway.endpoints.routing.proxy.request import ProxyRequestBody, UpstreamTimeout
from gateway.http.protocol import abort, facts_of
from gateway.http.responses import GatewayResponse, is_unread
from gateway.http.tracebacks import drop_tracebacks
from gateway.limits import TransferMeter
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

MAX_SHORT_BYTES: Final = 32 << 10
"""Bytes of a body that the client's connection takes without waiting."""


NOT_ADDED: Final = (hdrs.CONTENT_TYPE, hdrs.SERVER)
"""What aiohttp may not add to a response that came without it."""


class UpstreamResponse:
    """The response of an upstream: status and headers are received, the body is still to be read."""

    def __init__(
        self,
        response: aiohttp.ClientResponse | PlainResponse,
        request: web.BaseRequest,
        timeout: UpstreamTimeout,
        request_body: ProxyRequestBody | None,
    ) -> None:
        self.response = response
        self.request = request
        self.timeout = timeout
        self._request_body = request_body
        self._closed = False
        self._callbacks = contextlib.ExitStack()
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._connection_lost = None if protocol is None else protocol.closed
        if self._connection_lost is not None:
            self._connection_lost.add_done_callback(self._fail_unfinished)

    def _fail_unfinished(self, _: asyncio.Future[None]) -> None:
        """Fail the body: aiohttp (3.14) disconnects on a malformed one, and its reader waits forever."""
        content = self.response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the upstream's body is not well-formed"))

    async def close(self) -> None:
        """Release the upstream's connection: it is kept only after a complete request and response.

        A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._connection_lost is not None:
                self._connection_lost.remove_done_callback(self._fail_unfinished)
            if self._request_body is not None:
                await self._request_body.stop()
        finally:
            error = self.response.content.exception()
            if self.response.content.at_eof() and error is None:
                self.response.release()
            else:
                self.response.close()
            drop_tracebacks(error)
            self._callbacks.close()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call this once the connection is released, now if it is."""
        if self._closed:
            callback()
        else:
            self._callbacks.callback(callback)


class BodyCopy(Protocol):
    """Takes a copy of a body."""

    def add(self, chunk: bytes, /) -> None:
        """Take a part of it."""

    async def end(self) -> None:
        """Take note that the body has ended well."""

    def drop(self) -> None:
        """Take note that nothing will follow."""


def plain_reason(reason: str | None) -> str | None:
    """Return a reason phrase that can be sent; None: that of the status."""
    reason = reason or ""
    return reason if reason.isascii() and reason.isprintable() else None


class ProxyResponse(GatewayResponse):
    """The response for the client. Its body moves in `write_eof`, after the steps have changed it.

    `meter` judges how fast the client reads it.
    """

    def __init__(self, upstream_response: UpstreamResponse, meter: TransferMeter | None) -> None:
        response = upstream_response.response
        super().__init__(
            status=response.status,
            reason=plain_reason(response.reason),
            headers=response_headers(response.headers),
        )
        if response.method == hdrs.METH_HEAD != upstream_response.request.method:
            self.headers.popall(hdrs.CONTENT_LENGTH, None)  # of a body that is not sent
        self._upstream_response = upstream_response
        self._meter = meter
        self._copy: BodyCopy | None = None

    def copy_to(self, copy: BodyCopy) -> None:
        """Copy the body while it is sent; it is told when the body has ended well."""
        self._copy = copy

    def call_at_end(self, callback: Callable[[], None]) -> None:
        """Call this once the response has ended at the upstream."""
        self._upstream_response.on_close(callback)

    async def discard(self) -> None:
        """Release the upstream's connection: the response was sent, or is not needed."""
        await self._upstream_response.close()

    async def send(self, request: web.BaseRequest, *, close: bool = False) -> None:
        """Send headers and body. Raises `ConnectionError` if the client has disconnected."""
        try:  # headers that cannot be sent must not keep the upstream's connection
            await super().send(request, close=close)
        finally:
            await self.discard()

    def whole_bytes(self) -> int | None:
        """Return the length of a body that has arrived as a whole, and goes out at once."""
        if not self._is_short_and_complete():
            return None
        return self._upstream_response.response.content.total_bytes

    def set_gateway_headers(self, request_id: str) -> None:
        """Set the id alone: the other headers are the upstream's."""
        self.headers["X-Request-Id"] = request_id

    def _closes_connection(self, request: web.BaseRequest) -> bool:
        """An upstream's error says nothing about the rest of the request's body."""
        return is_unread(request)

    async def _prepare_headers(self) -> None:
        """Leave out what the upstream left out and aiohttp would add.

        Headers whose body has arrived already wait for it: one packet instead of two.
        """
        self._send_headers_immediately = not self._upstream_response.response.content.is_eof()
        missing = [name for name in NOT_ADDED if name not in self.headers]
        await super()._prepare_headers()
        for name in missing:
            self.headers.popall(name, None)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body, then end it; abort the client's connection if it did not end cleanly."""
        if self._eof_sent:
            return
        copy, self._copy = self._copy, None
        try:
            await self._send_body(copy)
        except (aiohttp.ClientError, OSError) as error:
            self._eof_sent = True
            fields = {"reason": self._reason_of(error), "status": self.status}
            log.warning("proxied response aborted", extra=event("response.aborted", **fields))
            abort(self._upstream_response.request)
            drop_tracebacks(error)
        else:
            if copy is not None:
                await self.discard()
                await copy.end()
        finally:
            await self.discard()
            if copy is not None:
                copy.drop()

    async def _send_body(self, copy: BodyCopy | None) -> None:
        if self._must_be_empty_body:
            await super().write_eof()
        elif self._is_short_and_complete():
            content = self._upstream_response.response.content.read_nowait()
            if copy is not None:
                copy.add(content)
            await super().write_eof(content)
        else:
            await self._stream_body(copy)

    def _is_short_and_complete(self) -> bool:
        """Tell whether the whole body has arrived and is short: then nothing has to wait."""
        content = self._upstream_response.response.content
        transport = self._upstream_response.request.transport
        short = content.is_eof() and content.total_bytes <= MAX_SHORT_BYTES
        return short and transport is not None and not transport.get_write_buffer_size()

    async def _stream_body(self, copy: BodyCopy | None) -> None:
        content = self._upstream_response.response.content
        timeout = self._upstream_response.timeout
        async with timeout.limit_wait(self._upstream_response.request):
            while not content.at_eof():
                chunk = await content.readany()
                timeout.renew()
                if copy is not None:
                    copy.add(chunk)
                await self._write_chunk(chunk)
                timeout.renew()
            await super().write_eof()

    async def _write_chunk(self, chunk: bytes) -> None:
        """Write a chunk. Raises `TimeoutError` for a client that reads slower than `--min-rate`."""
        started = time.monotonic()
        await self.write(chunk)
        facts_of(self._upstream_response.request).bytes_out += len(chunk)
        if self._meter is not None and self._meter.too_slow(time.monotonic() - started, len(chunk)):
            raise TimeoutError("the client reads too slowly")

    def _reason_of(self, error: BaseException) -> str:
        disconnected = self._upstream_response.timeout.client_disconnected
        if disconnected or isinstance(error, ConnectionResetError):
            return "client_disconnected"
        return "timeout" if isinstance(error, TimeoutError) else "upstream_disconnected"
