"""A client's body on its way to the upstream, and how long anybody waits.

The rule: not a byte is asked of the client before the upstream wants one, and the next piece is
read only when the last is handed on, so memory stays constant.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Final

from aiohttp import ClientRequest, hdrs, payload, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from multidict import CIMultiDict

from gateway.endpoints.routing.model import RequestContext
from gateway.errors import GatewayError
from gateway.http.protocol import on_disconnect
from gateway.http.request_body import idle_refusal, read_chunk, send_continue_or_disconnect

EXPECT_SECONDS: Final = 1.0
"""How long an upstream may think about `Expect` before the body is sent all the same.

RFC 9110 section 10.1.1: who waits for `100 Continue` must not wait for ever."""


NOT_ADDED: Final = CIMultiDict({hdrs.CONTENT_TYPE: None})
"""What aiohttp may not add to a request that came without it."""


ONCE: Final = True
"""Bodies count as consumed from the start. aiohttp's client (3.14) repeats a PUT or DELETE when the
upstream hangs up, on new connections too, unless its body is consumed; and who has read a body, or
only the head before it, may have acted on it (RFC 9110 section 9.2.2)."""


class IdleTimeout:
    """A wait that ends with `TimeoutError` after `idle` seconds in which it was not renewed.

    Renewing notes the time and no more, as it is done for every piece: one timer looks whether that
    was long ago. `is_over` tells a silence from a `TimeoutError` of the network.
    """

    def __init__(self, idle: float) -> None:
        self.idle = idle
        self.is_over = False
        self._loop = asyncio.get_running_loop()
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        self.is_over = False
        self._timeout = asyncio.timeout(None)
        await self._timeout.__aenter__()
        self.renew()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        timeout, self._timeout = self._timeout, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timeout is not None:
            await timeout.__aexit__(kind, fault, trace)

    def renew(self, extra: float = 0.0) -> None:
        """A byte has moved: wait `idle` (and `extra`) seconds for the next one."""
        self._until = self._loop.time() + self.idle + extra
        if self._timer is None or self._timer.when() > self._until:
            self._watch()

    def rest(self) -> None:
        """It is not the other side's turn: do not count."""
        self._until = None

    def end(self) -> None:
        """End the wait now. Who reports a byte cannot know whether it is over already."""
        if self._timeout is not None and not self.is_over:
            self.is_over = True
            self._timeout.reschedule(0.0)

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timeout is not None and self._until is not None:
            self._timer = self._loop.call_at(self._until, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._until is not None and self._until <= self._loop.time():
            self.end()
        else:
            self._watch()


class UpstreamTimeout(IdleTimeout):
    """The wait for an upstream.

    `client_left` tells whether the waiting ended early because the client has gone.
    """

    client_left = False

    @contextlib.asynccontextmanager
    async def waiting(self, request: web.BaseRequest, extra: float = 0.0) -> AsyncIterator[None]:
        """Wait at first `idle` and `extra` seconds. Raises `TimeoutError` when it is over."""
        with on_disconnect(request, self._leave):
            async with self:
                self.renew(extra)
                if self.client_left:
                    self.end()
                yield

    def _leave(self) -> None:
        self.client_left = True
        self.end()


class ProxyRequestBody(payload.Payload):
    """The body of an exchange, piece by piece, in the client's own framing.

    `fault` tells why it broke off, where that was the client's doing.
    """

    _autoclose = True
    _consumed = ONCE

    def __init__(self, exchange: RequestContext, patience: UpstreamTimeout) -> None:
        super().__init__(None)
        self.fault: GatewayError | None = None
        self._exchange = exchange
        self._patience = patience
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Not for reading: the bytes pass once."""
        raise TypeError("a body on its way cannot be decoded")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body. Raises what stands in `fault`, or `OSError` of the upstream's connection."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """As `write`: the parser of the client's connection has seen to the declared length."""
        self._task = asyncio.current_task()
        try:
            await self._send(writer)
        except GatewayError as fault:
            self.fault = fault
            raise
        finally:
            self._patience.renew()
            self._ended.set()

    async def stop(self) -> None:
        """Read no more of the client's body; returns when nobody does."""
        if self._task is not None and not self._ended.is_set():
            self._task.cancel()
            await self._ended.wait()

    async def _send(self, writer: AbstractStreamWriter) -> None:
        patience, silence = self._patience, IdleTimeout(self._patience.idle)
        patience.rest()
        if self._exchange.waiting:
            self._exchange.waiting = False
            await send_continue_or_disconnect(self._exchange.request)
        try:
            async with silence:
                while piece := await read_chunk(self._exchange.request.content):
                    silence.rest()
                    patience.renew()
                    await writer.write(piece)
                    patience.rest()
                    silence.renew()
        except TimeoutError as fault:
            if not silence.is_over:
                raise
            raise idle_refusal(patience.idle) from fault


class BufferedRequestBody(payload.BytesPayload):
    """A body that a step has read, as the body of a request."""

    _consumed = ONCE


class UpstreamRequest(ClientRequest):
    """aiohttp's request: nothing is added to its header, and its wait for `100 Continue` has an end."""

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add no field; the Content-Type that `send` would add is to be left out too."""
        self._skip_auto_headers = NOT_ADDED

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """Write the body, after the upstream's go-ahead or EXPECT_SECONDS."""
        going_ahead = self._continue
        if going_ahead is None:
            await super().write_bytes(writer, conn, content_length)
            return
        timer = self.loop.call_later(EXPECT_SECONDS, _go_on, going_ahead)
        try:
            await super().write_bytes(writer, conn, content_length)
        finally:
            timer.cancel()


def _go_on(going_ahead: asyncio.Future[bool]) -> None:
    if not going_ahead.done():
        going_ahead.set_result(True)
