"""A connection of the HTTP server, with limits, and with the errors of our table.

aiohttp's parser bounds each header line and their number; here the whole head is bounded while it comes,
and the time for it. What a client does not read is bounded in time too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from gateway.auth.certificates import certificate_name
from gateway.domain.model import random_bytes
from gateway.errors import Refusal
from gateway.http.limits import (
    HEAD_TIMEOUT,
    MAX_WAITING_BYTES,
    ConnectionLimits,
    HeadCounter,
    WriteProgress,
)
from gateway.http.refused_request import refuse_request
from gateway.http.responses import SHORT_DRAIN_TIMEOUT, Response, encode_response, refusal_response
from gateway.http.tracebacks import drop_tracebacks
from gateway.limits import Lease
from gateway.limits.clients import client_network
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.http")

CHECK_INTERVAL: Final = 5.0
"""Seconds between two checks of all connections."""

MAX_DISCARDED_BYTES: Final = 256 << 10
"""Bytes that are read after the answer to a refused head, so that the client can read the answer."""

_TOO_MANY_LINES: Final = "Too many headers"


class ClientConnection(web.RequestHandler):
    """aiohttp's connection, with `ConnectionLimits`; what is malformed gets an error of the table."""

    def __init__(self, limits: ConnectionLimits, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.disconnect_callbacks: set[Callable[[], None]] = set()
        self._limits = limits
        self._head = HeadCounter(limits.max_header_bytes)
        self._head_since: float | None = None
        self._progress = WriteProgress(limits)
        self._latest_body: StreamReader | None = None
        self._lease: Lease | None = None
        self.certificate: str | None = None
        """The name in the certificate of the client."""
        self._refused = False
        self._discarded = 0

    # -- begin and end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the client, or answer 503 at once if it has more connections than its share."""
        try:
            self._lease = self._take_share(transport)
        except Refusal as refusal:
            self._force_close = True
            client, request_id = cast(asyncio.Transport, transport), random_bytes(8).hex()
            fields = {"reason": refusal.message, "request_id": request_id}
            log.info("connection refused", extra=event("connection.refused", **fields))
            response = refusal_response(Refusal("overloaded", refusal.message))
            response.set_gateway_headers(request_id)
            client.write(encode_response(response.small(), close=True))
            client.close()
            return
        self.certificate = certificate_name(transport.get_extra_info("peercert"))
        super().connection_made(transport)

    def _take_share(self, transport: asyncio.BaseTransport) -> Lease | None:
        peer = transport.get_extra_info("peername")
        if self._limits.share is None or not isinstance(peer, tuple):
            return None
        if self._limits.is_shared_address(peer[0]):
            return None
        return self._limits.share.acquire(f"address {client_network(peer[0])}")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Call those that wait for something else than the client."""
        task, waiter = self._task_handler, self._waiter
        super().connection_lost(exc)
        if task is not None and waiter is not None and waiter.done():
            task.cancel()  # it was woken for a request that is dropped here
        if self._lease is not None:
            self._lease.close()
        self._latest_body = None
        self._messages.clear()  # nobody gets to the requests that waited behind the last one
        for callback in tuple(self.disconnect_callbacks):
            callback()

    # -- what arrives

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, in pieces that end where a head would become too large."""
        if self._refused:
            self._discard(len(data))
            return
        while True:
            piece, in_head = data, self._in_head()
            if in_head and len(data) > self._head.remaining:
                piece = data[: self._head.remaining]
                if not piece:
                    self._refuse(431, self._too_large())
                    return
            self._parse(piece, in_head)
            if len(piece) == len(data) or self._refused:
                return
            data = data[len(piece) :]

    def _discard(self, size: int) -> None:
        """Discard what follows a refused head, up to a limit: then the client has to wait."""
        self._discarded += size
        if self._discarded > MAX_DISCARDED_BYTES:
            self._pause_transport_reading()

    def _in_head(self) -> bool:
        body = self._latest_body
        return (body is None or body.is_eof()) and not self._upgraded and self._payload_parser is None

    def _parse(self, piece: bytes, in_head: bool) -> None:
        """Parse one piece. Where the parser gives up inside a body, fail that body.

        aiohttp (3.14) only queues an error behind the request, whose reader would wait in vain.
        """
        count, body, size = self._request_count, self._latest_body, len(piece)
        received = 0 if body is None else body.total_bytes
        super().data_received(piece)
        if new := self._request_count - count:
            if not self._head.is_small(size):
                self._check_heads(new, size)
            if refused := self._limits.filter_heads(self._messages, new, self.peername):
                self._refuse(400, refused.message, refused.place)
            message, self._latest_body = self._messages[-1]
            if isinstance(message, _ErrInfo):
                self._fail_body(body, message)
            self._head.restart(size)
            self._head_since = None
            if len(self._messages) > 1:
                self._pause_for_waiting_bodies()
        elif in_head:
            if self._head_since is None and piece:
                self._head_since = self._loop.time()
            self._head.add(size)
        elif body is None or body.total_bytes > received or body.is_eof():
            self._head.restart(size)
        else:  # trailer lines, or a chunk's head
            self._head.add(size)
            if not self._head.remaining and not self._upgraded:
                self._refuse(431, self._too_large())

    def _check_heads(self, new: int, size: int) -> None:
        """Put an error in the place of a request whose head is too large, and of what follows it."""
        for index in range(len(self._messages) - new, len(self._messages)):
            message = self._messages[index][0]
            if isinstance(message, RawRequestMessage) and not self._head.allows(message):
                self._refuse(431, self._too_large(), index)
                return

    def _fail_body(self, body: StreamReader | None, error: _ErrInfo) -> None:
        drop_tracebacks(error.exc)  # it holds the piece
        if body is not None and not body.is_eof():
            body.set_exception(web.RequestPayloadError("the body is not well-formed"))

    def _refuse(self, status: int, message: str, place: int | None = None) -> None:
        """Answer with an error behind the requests that came before, and read no more.

        The error takes the place of the waiting request with this number, and of those behind it.
        """
        while place is not None and len(self._messages) > place:
            self._messages.pop()
        self._refused = True
        body = self._latest_body
        if body is not None and not body.is_eof():
            body.set_exception(web.RequestPayloadError(message))
        self._messages.append((_ErrInfo(status, BadHttpMessage(message), message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _too_large(self) -> str:
        limit = self._limits.max_header_bytes
        return f"the request line and headers are larger than {limit} bytes together"

    # -- memory of what waits

    def _pause_for_waiting_bodies(self) -> None:
        if not self._buffer_paused and self._waiting_bytes() > MAX_WAITING_BYTES:
            self._pause_reading_for_buffer()

    def _resume_reading_if_drained(self) -> None:
        """Stay paused while the bodies of waiting requests fill the memory of this connection."""
        if self._waiting_bytes() <= MAX_WAITING_BYTES:
            super()._resume_reading_if_drained()

    def _waiting_bytes(self) -> int:
        return sum(body.total_bytes for _, body in self._messages)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading; do nothing where it never stopped (aiohttp calls this for every chunk)."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    # -- time

    def check_times(self, seconds: float) -> None:
        """End the connection of a client that is too slow; `seconds` have passed since the last call."""
        transport = self.transport
        if transport is None or transport.get_protocol() is not self:  # another one has taken it over
            return
        if self._progress.is_too_slow(transport, seconds):
            log.info(
                "connection aborted: the client does not read its answers",
                extra=event("connection.aborted", reason="not_reading"),
            )
            transport.abort()
        elif (
            self._head_since is not None
            and self._waiter is not None
            and self._loop.time() - self._head_since > HEAD_TIMEOUT
            and not self._refused
        ):
            self._refuse(408, f"the headers took more than {HEAD_TIMEOUT:g} seconds")

    # -- errors

    def _make_error_handler(
        self, err_info: _ErrInfo
    ) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        async def refuse(request: web.BaseRequest) -> web.StreamResponse:
            self._refused = True
            response = self.handle_error(request, err_info.status, err_info.exc, err_info.message)
            await response.send(request, close=True)
            await self._discard_rest()
            return response

        return refuse

    async def _discard_rest(self) -> None:
        """Let the client read the response: to close over bytes that it still sends would reset it."""
        transport = self.transport
        if transport is None or not transport.can_write_eof():
            return
        transport.write_eof()
        disconnected = asyncio.Event()
        self.disconnect_callbacks.add(disconnected.set)
        try:
            async with asyncio.timeout(SHORT_DRAIN_TIMEOUT):
                await disconnected.wait()
        except TimeoutError:
            pass
        finally:
            self.disconnect_callbacks.discard(disconnected.set)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Response:
        """Return an error of the table for what the parser could not read."""
        if status >= 500:
            log.error("request failed unexpectedly", exc_info=exc, extra=event("request.failed"))
            return refusal_response(
                Refusal("internal", "internal server error; the server log has details")
            )
        text = (message or "not HTTP").strip().splitlines()[0]
        if status == 431 or isinstance(exc, LineTooLong) or _TOO_MANY_LINES in text:
            refusal = Refusal("headers_too_large", text if status == 431 else self._too_large())
        elif status == 408:
            refusal = Refusal("idle_timeout", text)
        else:
            refusal = Refusal("bad_request", f"malformed request: {text}")
        response = refuse_request(request, refusal)
        response.force_close()
        # aiohttp takes such a request for HTTP/1.0, where closing is the default.
        response.headers["Connection"] = "close"
        return response
