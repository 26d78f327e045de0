"""Routing door: a client's body on its way to the upstream, and how long anybody waits.

The rule: not a byte is asked of the client before the upstream wants one, and the next piece is
read only when the last is handed on, so memory stays constant. May import `routing.model`, server
and the foundations.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import ClientRequest, payload, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import ClientLeft, GatewayError, Refusal
from gateway.routing.model import Exchange
from gateway.server import on_disconnect, send_continue

EXPECT_SECONDS: Final = 1.0
"""How long an upstream may think about `Expect` before the body is sent all the same.

RFC 9110 section 10.1.1: who waits for `100 Continue` must not wait for ever."""


class Patience:
    """A deadline that is renewed while bytes move: `idle` seconds of silence end the waiting.

    `client_left` tells whether the waiting ended early because the client has gone.
    """

    def __init__(self, idle: float) -> None:
        self.idle = idle
        self.client_left = False
        self._timeout: asyncio.Timeout | None = None

    @contextlib.asynccontextmanager
    async def waiting(self, request: web.BaseRequest, extra: float = 0.0) -> AsyncIterator[None]:
        """Wait at first `idle` and `extra` seconds. Raises `TimeoutError` when it is over."""
        with on_disconnect(request, self._leave):
            async with asyncio.timeout(0 if self.client_left else self.idle + extra) as self._timeout:
                yield

    def renew(self) -> None:
        """A byte has moved: wait `idle` seconds for the next one."""
        self._move(asyncio.get_running_loop().time() + self.idle)

    def rest(self) -> None:
        """It is not the upstream's turn: do not count."""
        self._move(None)

    def _leave(self) -> None:
        self._move(0.0)
        self.client_left = True

    def _move(self, when: float | None) -> None:
        if self._timeout is None or self.client_left:
            return
        # Who reports a byte cannot know whether the wait is over already.
        with contextlib.suppress(RuntimeError):
            self._timeout.reschedule(when)


class Sending(payload.Payload):
    """The body of an exchange, piece by piece, in the client's own framing.

    `fault` tells why it broke off, where that was the client's doing.
    """

    _autoclose = True

    def __init__(self, exchange: Exchange, patience: Patience) -> None:
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
        self._consumed = True  # it can never be sent again: no second try behind our back
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
        self._patience.rest()
        if self._exchange.waiting:
            await self._go_ahead()
        while piece := await self._next():
            self._patience.renew()
            await writer.write(piece)
            self._patience.rest()

    async def _go_ahead(self) -> None:
        self._exchange.waiting = False
        try:
            await send_continue(self._exchange.request)
        except OSError as fault:
            raise ClientLeft("the client did not wait for the go-ahead") from fault

    async def _next(self) -> bytes:
        """Return the next piece, b"" at the clean end."""
        content = self._exchange.request.content
        try:
            async with asyncio.timeout(self._patience.idle):
                while not content.at_eof():
                    if piece := await content.readany():
                        return piece
        except TimeoutError:
            raise Refusal(
                "idle_timeout", f"not a byte came for {self._patience.idle:g} seconds"
            ) from None
        except OSError as fault:
            raise ClientLeft("the client went away in the middle of its body") from fault
        except (web.RequestPayloadError, HttpProcessingError) as fault:
            raise Refusal("incomplete_body", "the body is not well-formed") from fault
        return b""


class UpstreamRequest(ClientRequest):
    """aiohttp's request, whose wait for `100 Continue` has an end."""

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
