"""Streams a request's body to the upstream, and limits how long each side may be idle.

No byte is requested from the client before the upstream wants one, and the next chunk is read only
when the last one was written, so memory stays constant.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Final

from aiohttp import ClientRequest, ClientResponse, hdrs, payload, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from multidict import CIMultiDict

from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.errors import not_http, silent, too_long
from gateway.errors import ClientDisconnected, GatewayError
from gateway.http.protocol import on_disconnect
from gateway.http.request_body import (
    body_too_large,
    idle_refusal,
    read_chunk,
    send_continue_or_disconnect,
)

EXPECT_TIMEOUT: Final = 1.0
"""Seconds to wait for an upstream's `100 Continue` before the body is sent without it.

RFC 9110 section 10.1.1: a client must not wait for it indefinitely."""

NOT_ADDED: Final = CIMultiDict({hdrs.CONTENT_TYPE: None})
"""What aiohttp may not add to a request that came without it."""


class IdleTimeout:
    """Raises `TimeoutError` after `idle` seconds in which it was not renewed.

    Renewing only notes the time, as every chunk does it: one timer checks whether that was long ago.
    `expired` tells this timeout from a `TimeoutError` of the network.
    """

    def __init__(self, idle: float) -> None:
        self.idle = idle
        self.expired = False
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        self.expired = False
        self._timeout = asyncio.timeout(None)
        await self._timeout.__aenter__()
        self.renew()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        timeout, self._timeout = self._timeout, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timeout is not None:
            await timeout.__aexit__(kind, error, trace)

    def renew(self) -> None:
        """Wait `idle` seconds for the next byte."""
        self._deadline = self._loop.time() + self.idle
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def suspend(self) -> None:
        """Do not count until renewed: the other side has nothing to send or take."""
        self._deadline = None

    def expire(self) -> None:
        """Expire now; does nothing after the end: a chunk may be reported later than that."""
        if self._timeout is not None and not self.expired:
            self.expired = True
            self._timeout.reschedule(0.0)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timeout is not None and self._deadline is not None:
            self._timer = self._loop.call_at(self._deadline, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._deadline is not None and self._deadline <= self._loop.time():
            self.expire()
        else:
            self._set_timer()


class UpstreamTimeout(IdleTimeout):
    """The timeout of an upstream; it also expires when the client disconnects, and at the deadline.

    `total_passed` tells that the deadline of the request has passed.
    """

    client_disconnected = False
    total_passed = False

    def __init__(self, context: RequestContext) -> None:
        super().__init__(context.route.limits.idle)
        self.total = context.route.limits.total
        self._end = context.deadline

    @contextlib.asynccontextmanager
    async def limit_wait(self, request: web.BaseRequest) -> AsyncIterator[None]:
        """Wait `idle` seconds for each byte. Raises `TimeoutError`."""
        end = None if self._end is None else self._loop.call_at(self._end, self._pass_total)
        try:
            with on_disconnect(request, self._disconnected):
                async with self:
                    if self.client_disconnected:
                        self.expire()
                    yield
        finally:
            if end is not None:
                end.cancel()

    def _pass_total(self) -> None:
        self.total_passed = True
        self.expire()

    def _disconnected(self) -> None:
        self.client_disconnected = True
        self.expire()


class ProxyRequestBody(payload.Payload):
    """The body of a request, streamed in the client's framing. `error`: how the client ended it.

    `complete`: all of it was sent.
    """

    _autoclose = True

    def __init__(self, context: RequestContext, timeout: UpstreamTimeout) -> None:
        super().__init__(None)
        self.error: GatewayError | None = None
        self.complete = False
        self._context = context
        self._upstream_timeout = timeout
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._sent = 0

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Raise `TypeError`: the bytes pass once."""
        raise TypeError("a streamed body cannot be decoded")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body. Raises what `error` is, or `OSError` of the upstream's connection."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """As `write`: the parser of the client's connection has checked the declared length."""
        self._task = asyncio.current_task()
        try:
            await self._stream(writer)
            self.complete = True
        except GatewayError as error:
            self.error = error
            raise
        finally:
            self._task = None
            self._upstream_timeout.renew()
            self._ended.set()

    async def stop(self) -> None:
        """Stop reading the client's body, and wait until that has happened."""
        if self._task is not None and not self._ended.is_set():
            self._task.cancel()
            await self._ended.wait()

    async def _stream(self, writer: AbstractStreamWriter) -> None:
        upstream, request = self._upstream_timeout, self._context.request
        client = IdleTimeout(upstream.idle)
        upstream.suspend()
        if self._context.awaits_continue:
            self._context.awaits_continue = False
            await send_continue_or_disconnect(request)
        try:
            async with client:
                while chunk := await read_chunk(request.content, meter=self._context.meter):
                    client.suspend()
                    self._count(len(chunk))
                    upstream.renew()
                    await writer.write(chunk)
                    upstream.suspend()
                    client.renew()
        except TimeoutError as error:
            if not client.expired:
                raise
            raise idle_refusal(upstream.idle) from error

    def _count(self, size: int) -> None:
        """Count bytes before they are sent. Raises `Refusal("too_large")`."""
        self._sent += size
        limit = self._context.route.limits.body
        if limit is not None and self._sent > limit:
            raise body_too_large(limit)


def mapped_error(
    error: Exception, timeout: UpstreamTimeout, body: ProxyRequestBody | None
) -> GatewayError:
    """Return the error of the table for a request without a response."""
    if body is not None and body.error is not None:
        return body.error
    if timeout.client_disconnected:
        return ClientDisconnected("the client disconnected before the upstream's response")
    if timeout.total_passed:
        return too_long(timeout.total)
    if isinstance(error, TimeoutError):
        return silent(timeout.idle)
    return not_http()


class UpstreamRequest(ClientRequest):
    """aiohttp's request, with no added header fields and a limited wait for `100 Continue`.

    `on_connected` is called as soon as there is a connection to send it over.
    """

    on_connected: Callable[[], None] | None = None

    async def send(self, conn: Connection) -> ClientResponse:
        """Send it over a connection."""
        if self.on_connected is not None:
            self.on_connected()
        return await super().send(conn)

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add no field, not even the Content-Type that `send` would add."""
        self._skip_auto_headers = NOT_ADDED

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """Write the body, after the upstream's `100 Continue` or EXPECT_TIMEOUT."""
        continued = self._continue
        if continued is None:
            await super().write_bytes(writer, conn, content_length)
            return
        timer = self.loop.call_later(EXPECT_TIMEOUT, _stop_waiting, continued)
        try:
            await super().write_bytes(writer, conn, content_length)
        finally:
            timer.cancel()


def _stop_waiting(continued: asyncio.Future[bool]) -> None:
    if not continued.done():
        continued.set_result(True)
