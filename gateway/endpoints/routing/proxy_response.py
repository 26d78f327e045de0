"""An upstream's answer on its way to the client.

The rule: it ends cleanly only if the upstream ended it cleanly; else the client's connection is
aborted. Pieces are read as fast as the client takes them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import aiohttp
from aiohttp import hdrs, web

from gateway.endpoints.routing.forwarding import answer_headers
from gateway.endpoints.routing.proxy_request import ProxyRequestBody, UpstreamTimeout
from gateway.http.protocol import abort
from gateway.http.responses import GatewayResponse, is_unread

log = logging.getLogger("gateway.routing")

SHORT: Final = 32 << 10
"""Bytes of a body that the client's connection takes without waiting."""


class UpstreamResponse:
    """What an upstream said: the status and headers are here, the body is still to be read."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        request: web.BaseRequest,
        patience: UpstreamTimeout,
        sending: ProxyRequestBody | None,
    ) -> None:
        self.response = response
        self.request = request
        self.patience = patience
        self._sending = sending
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._connection_lost = None if protocol is None else protocol.closed
        if self._connection_lost is not None:
            self._connection_lost.add_done_callback(self._fail_unfinished)

    def _fail_unfinished(self, _: asyncio.Future[None]) -> None:
        """aiohttp (3.14) hangs up on nonsense in a body, and its reader would wait in vain."""
        content = self.response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the upstream's body is not well-formed"))

    async def close(self) -> None:
        """Let go of the upstream: its connection is kept only after a whole exchange."""
        if self._connection_lost is not None:
            self._connection_lost.remove_done_callback(self._fail_unfinished)
        if self._sending is not None:
            await self._sending.stop()
        if self.response.content.at_eof() and self.response.content.exception() is None:
            self.response.release()
        else:
            self.response.close()


class ProxyResponse(GatewayResponse):
    """The answer for the client. Its body moves in `write_eof`, after whatever the steps changed."""

    def __init__(self, answered: UpstreamResponse) -> None:
        response = answered.response
        reason = response.reason or ""
        super().__init__(
            status=response.status,
            reason=reason if reason.isascii() and reason.isprintable() else None,
            headers=answer_headers(response.headers),
        )
        self._answered = answered

    def set_gateway_headers(self, request_id: str) -> None:
        """Set the id alone: the other headers are the upstream's."""
        self.headers["X-Request-Id"] = request_id

    def _closes_connection(self, request: web.BaseRequest) -> bool:
        """An upstream's error says nothing about the rest of the body."""
        return is_unread(request)

    async def _prepare_headers(self) -> None:
        """Leave out the Content-Type that the upstream left out.

        Headers whose body has come already wait for it: one packet instead of two.
        """
        self._send_headers_immediately = not self._answered.response.content.is_eof()
        known = hdrs.CONTENT_TYPE in self.headers
        await super()._prepare_headers()
        if not known:
            self.headers.popall(hdrs.CONTENT_TYPE, None)

    async def write_eof(self, data: bytes = b"") -> None:
        """Pass the body on, then end it; abort the client's connection where it did not end well."""
        if self._eof_sent:
            return
        try:
            if self._must_be_empty_body:
                await super().write_eof()
            elif self._is_at_hand():
                await super().write_eof(self._answered.response.content.read_nowait())
            else:
                await self._pass_on()
        except (aiohttp.ClientError, OSError) as fault:
            self._eof_sent = True
            facts = {"reason": self._cause(fault), "status": str(self.status)}
            log.warning("a proxied answer was cut off", extra={"facts": facts})
            abort(self._answered.request)
        finally:
            await self._answered.close()

    def _is_at_hand(self) -> bool:
        """Tell whether all there is to send is here and short: then nobody is waited for."""
        content, transport = self._answered.response.content, self._answered.request.transport
        here = content.is_eof() and content.total_bytes <= SHORT
        return here and transport is not None and not transport.get_write_buffer_size()

    async def _pass_on(self) -> None:
        content = self._answered.response.content
        patience = self._answered.patience
        async with patience.waiting(self._answered.request):
            while not content.at_eof():
                piece = await content.readany()
                patience.renew()
                await self.write(piece)
                patience.renew()
            await super().write_eof()

    def _cause(self, fault: BaseException) -> str:
        if self._answered.patience.client_left or isinstance(fault, ConnectionResetError):
            return "client_left"
        return "stalled" if isinstance(fault, TimeoutError) else "upstream_broke_off"
