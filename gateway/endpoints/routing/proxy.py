"""The last step: ask an upstream, and pass its answer on.

The rule: bytes stream both ways with back-pressure and nothing is invented: what the client sent is
what the upstream gets, but for the fields of `forwarding`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from gateway.endpoints.routing import forwarding
from gateway.endpoints.routing.forwarding import Hop
from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy_request import (
    BufferedRequestBody,
    ProxyRequestBody,
    UpstreamRequest,
    UpstreamTimeout,
)
from gateway.endpoints.routing.proxy_response import ProxyResponse, UpstreamResponse
from gateway.endpoints.routing.upstreams import Upstreams
from gateway.errors import ClientDisconnected, GatewayError, Refusal
from gateway.http.responses import GatewayResponse

log = logging.getLogger("gateway.routing")

CONNECTIONS: Final = 1000
"""Connections to all upstreams together; who finds none free waits as long as for an answer."""

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection to an upstream is kept: less than most servers keep theirs, as a
request with a body cannot be sent again when they meet (RFC 9110 section 9.2.2)."""

READ_BUFFER: Final = 256 << 10
LONGEST_FIELD: Final = 64 << 10
NEVER_PROXIED: Final = frozenset({"CONNECT", "TRACE"})

_Unreachable = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class BufferedResponse(NamedTuple):
    """An upstream's answer, read to its end."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class Proxy:
    """Asks upstreams. One object per gateway, on the server's loop, between `start` and `close`.

    `trusts` tells whether the peer of an address is a proxy that the operator trusts.
    """

    def __init__(self, trusts: Callable[[str | None], bool]) -> None:
        self.upstreams = Upstreams()
        self._trusts = trusts
        self._session: aiohttp.ClientSession

    async def start(self) -> None:
        """Open the session; connections are made when they are needed."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=UpstreamRequest,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            max_line_size=LONGEST_FIELD,
            max_field_size=LONGEST_FIELD,
        )

    async def close(self) -> None:
        """Close every connection to an upstream."""
        await self._session.close()

    async def __call__(self, exchange: RequestContext) -> GatewayResponse:
        """Return the upstream's answer; its body is fetched while it is sent to the client.

        Raises Refusal `bad_gateway` (no upstream can be reached, or it does not speak HTTP),
        `gateway_timeout`, `idle_timeout` (the client is silent), `bad_request` (what is not
        proxied), `bad_path`; `ClientDisconnected`.
        """
        answered = await self._ask(exchange)
        try:
            return ProxyResponse(answered)
        except BaseException:
            await answered.close()
            raise

    async def fetch_whole(self, exchange: RequestContext, limit: int) -> BufferedResponse:
        """Return the upstream's answer, read into memory.

        Raises as `__call__`, and Refusal `bad_gateway` for more than `limit` bytes.
        """
        answered = await self._ask(exchange)
        patience = answered.patience
        try:
            async with patience.waiting(exchange.request):
                body = await _read(answered, limit)
            response = answered.response
            return BufferedResponse(response.status, forwarding.answer_headers(response.headers), body)
        except (aiohttp.ClientError, OSError) as fault:
            raise _told(fault, patience, None) from fault
        finally:
            await answered.close()

    # -- asking

    async def _ask(self, exchange: RequestContext) -> UpstreamResponse:
        _refuse_what_is_not_proxied(exchange.request)
        fault: Exception | None = None
        for upstream in self.upstreams.order(exchange.route.upstreams):
            self.upstreams.trying(upstream)
            try:
                answered = await self._ask_one(exchange, upstream)
            except _Unreachable as failure:
                fault = failure
                self.upstreams.failed(upstream)
                facts = {"upstream": upstream, "route": exchange.route.name}
                log.warning("an upstream cannot be reached: %s", failure, extra={"facts": facts})
            else:
                self.upstreams.worked(upstream)
                return answered
        if isinstance(fault, TimeoutError):
            raise Refusal("gateway_timeout", "the upstream could not be reached in time") from fault
        raise Refusal("bad_gateway", "the upstream cannot be reached") from fault

    async def _ask_one(self, exchange: RequestContext, upstream: str) -> UpstreamResponse:
        """Ask `upstream`. Raises what `_Unreachable` names, before a byte of the body is read."""
        limits = exchange.route.limits
        patience = UpstreamTimeout(limits.idle)
        sending = _sending(exchange, patience)
        try:
            async with patience.waiting(exchange.request, limits.connect):
                response = await self._request(exchange, upstream, sending)
        except _Unreachable:
            raise
        except (aiohttp.ClientError, OSError) as fault:
            if sending is not None:
                await sending.stop()
            told = _told(fault, patience, sending)
            if isinstance(told, Refusal):
                # No more than the kind: aiohttp's words quote the request with its credentials.
                facts = {"upstream": upstream, "route": exchange.route.name, "code": told.code}
                kind = type(fault).__name__
                log.warning("an upstream did not answer: %s", kind, extra={"facts": facts})
            raise told from fault
        answered = UpstreamResponse(response, exchange.request, patience, sending)
        if response.status == 101:
            await answered.close()
            raise Refusal("bad_gateway", "the upstream switched protocols, which nobody asked for")
        return answered

    async def _request(
        self, exchange: RequestContext, upstream: str, sending: ProxyRequestBody | None
    ) -> aiohttp.ClientResponse:
        limits, route, request = exchange.route.limits, exchange.route, exchange.request
        place = forwarding.target(route.target, exchange.raw_resources, exchange.incoming.raw_query)
        return await self._session.request(
            request.method,
            URL(f"{route.scheme}://{upstream}{place}", encoded=True),
            headers=self._headers(exchange, upstream, sending),
            data=sending or _held(exchange),
            allow_redirects=False,
            timeout=_timeout(limits.connect),
        )

    def _headers(
        self, exchange: RequestContext, upstream: str, sending: ProxyRequestBody | None
    ) -> CIMultiDict[str]:
        request = exchange.request
        hop = Hop(
            request.remote or None,
            request.scheme,
            request.headers.get(hdrs.HOST),
            trusted=self._trusts(request.remote),
        )
        headers = forwarding.request_headers(exchange.headers, request.headers, hop)
        headers[hdrs.HOST] = upstream
        if sending is not None:
            if request.content_length is not None:
                headers[hdrs.CONTENT_LENGTH] = str(request.content_length)
            if exchange.waiting:
                headers[hdrs.EXPECT] = "100-continue"
        return headers


@functools.lru_cache(maxsize=64)
def _timeout(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


def _refuse_what_is_not_proxied(request: web.BaseRequest) -> None:
    if "websocket" in request.headers.get(hdrs.UPGRADE, "").lower():
        raise Refusal("bad_request", "WebSocket connections are not proxied", {"Connection": "close"})
    if request.method in NEVER_PROXIED:
        raise Refusal("bad_request", f"{request.method} requests are not proxied")


def _sending(exchange: RequestContext, patience: UpstreamTimeout) -> ProxyRequestBody | None:
    """The body still to come; None where there is none or it has been read."""
    if exchange.body is not None or not exchange.request.body_exists:
        return None
    return ProxyRequestBody(exchange, patience)


def _held(exchange: RequestContext) -> BufferedRequestBody | None:
    """The body that a step has read; None where there is none."""
    return BufferedRequestBody(exchange.body) if exchange.body else None


def _told(fault: Exception, patience: UpstreamTimeout, sending: ProxyRequestBody | None) -> GatewayError:
    """Return in the table's words why there is no answer."""
    if sending is not None and sending.fault is not None:
        return sending.fault
    if patience.client_left:
        return ClientDisconnected("the client went away before the upstream's answer")
    if isinstance(fault, TimeoutError):
        return Refusal("gateway_timeout", f"the upstream was silent for {patience.idle:g} seconds")
    return Refusal("bad_gateway", "the upstream broke off, or what it said is not HTTP")


async def _read(answered: UpstreamResponse, limit: int) -> bytes:
    body = bytearray()
    async for piece in answered.response.content.iter_any():
        answered.patience.renew()
        body += piece
        if len(body) > limit:
            raise Refusal("bad_gateway", f"the upstream's answer is larger than {limit} bytes")
    return bytes(body)
