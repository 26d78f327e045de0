"""A request's body, read whole where a schema or a script needs it.

One rule: never more than the route's `max_body` is held of one body, nor more than `MOST_HELD` of
all, and the client is told to send only when its body is really wanted.
"""

from __future__ import annotations

from typing import Final

from gateway.endpoints.routing.model import RequestContext
from gateway.errors import Refusal
from gateway.http.request_body import read_chunk, send_continue_or_disconnect

MOST_HELD: Final = 512 << 20
"""Bytes of bodies that all requests together may hold; more are refused, and may come again."""


class BodyReader:
    """Reads bodies and counts what is held. One object per gateway, on the server's loop."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self._most = most
        self._held = 0

    async def read(self, exchange: RequestContext) -> bytes:
        """Return the body, and keep it in the exchange until `release`.

        Raises Refusal `too_large`, `idle_timeout`, `incomplete_body`, `overloaded`;
        `ClientDisconnected`.
        """
        if exchange.body is None:
            limit, declared = exchange.route.limits.max_body, exchange.request.content_length
            if declared is not None and declared > limit:
                raise _too_large(limit)
            self._check(declared or 0)
            if exchange.waiting:
                exchange.waiting = False
                await send_continue_or_disconnect(exchange.request)
            exchange.body = await self._read(exchange, limit)
        return exchange.body

    def release(self, exchange: RequestContext) -> None:
        """The exchange has ended: its body is held no more."""
        self._held -= exchange.held
        exchange.held = 0

    async def _read(self, exchange: RequestContext, limit: int) -> bytes:
        body = bytearray()
        while chunk := await read_chunk(exchange.request.content, exchange.route.limits.idle):
            body += chunk
            exchange.held += len(chunk)
            self._held += len(chunk)
            if len(body) > limit:
                raise _too_large(limit)
            self._check(0)
        return bytes(body)

    def _check(self, coming: int) -> None:
        if self._held + coming > self._most:
            raise Refusal("overloaded", "too many bodies are held at once; try again later")


def _too_large(limit: int) -> Refusal:
    return Refusal("too_large", f"the body is larger than the {limit} bytes that this path accepts")
