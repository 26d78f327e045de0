"""The last step: sends the request to an upstream, and returns its response.

Bytes stream both ways with back-pressure. The upstream gets what the client sent, except for the
fields of `forwarding`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from gateway.endpoints.routing import forwarding
from gateway.endpoints.routing.forwarding import Hop
from gateway.endpoints.routing.model import NOT_PROXIED_METHODS, RequestContext
from gateway.endpoints.routing.proxy_request import (
    BufferedRequestBody,
    ProxyRequestBody,
    UpstreamRequest,
    UpstreamTimeout,
    mapped_error,
)
from gateway.endpoints.routing.proxy_response import ProxyResponse, UpstreamResponse
from gateway.endpoints.routing.upstreams import Upstreams
from gateway.endpoints.routing.whole_response import BufferedResponse, read_whole, request_whole
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

MAX_CONNECTIONS: Final = 1000
"""Connections to all upstreams together; a request waits for a free one as for a response."""

KEEP_ALIVE_TIMEOUT: Final = 4.0
"""Seconds that an idle connection to an upstream is kept: less than most servers keep theirs, as a
request with a body cannot be sent again if they close it meanwhile (RFC 9110 section 9.2.2)."""

READ_BUFFER_BYTES: Final = 256 << 10
MAX_FIELD_BYTES: Final = 64 << 10
_Unreachable = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Proxy:
    """Sends requests to upstreams, between `start` and `close`.

    `trusts` tells whether a request comes from a trusted proxy whose headers can be believed.
    """

    def __init__(self, trusts: Callable[[web.BaseRequest], bool]) -> None:
        self.upstreams = Upstreams()
        self._trusts = trusts
        self._session: aiohttp.ClientSession

    async def start(self) -> None:
        """Open the session; connections are opened when they are needed."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_TIMEOUT),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=UpstreamRequest,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
        )

    async def close(self) -> None:
        """Close every connection to an upstream."""
        await self._session.close()

    async def __call__(self, context: RequestContext) -> GatewayResponse:
        """Return the upstream's response; its body is read while it is sent to the client.

        Raises `Refusal` `bad_gateway` (no upstream can be reached, or it does not speak HTTP),
        `gateway_timeout`, `idle_timeout` (the client sends nothing), `bad_request` (not proxied),
        `bad_path`; `ClientDisconnected`.
        """
        upstream_response = await self._request_any(context)
        try:
            return ProxyResponse(upstream_response)
        except BaseException:
            await upstream_response.close()
            raise

    async def fetch_whole(self, context: RequestContext, limit: int) -> BufferedResponse:
        """Return the response in memory. Raises as `__call__` and `read_whole`."""
        request_whole(context)
        upstream_response = await self._request_any(context)
        return await read_whole(upstream_response, limit, context.route.limits.script)

    # -- one request

    async def _request_any(self, context: RequestContext) -> UpstreamResponse:
        """Try the upstreams in order until one can be reached."""
        _refuse_not_proxied(context.request)
        error: Exception | None = None
        for upstream in self.upstreams.order(context.route.upstreams):
            self.upstreams.mark_trying(upstream)
            try:
                response = await self._request_one(context, upstream)
            except _Unreachable as failure:
                error = failure
                self.upstreams.mark_failed(upstream)
                fields = {"upstream": upstream, "route": context.route.name}
                log.warning(
                    "upstream unreachable: %s", failure, extra=event("upstream.failed", **fields)
                )
            else:
                self.upstreams.mark_working(upstream)
                return response
        if isinstance(error, TimeoutError):
            raise Refusal("gateway_timeout", "the upstream could not be reached in time") from error
        raise Refusal("bad_gateway", "the upstream cannot be reached") from error

    async def _request_one(self, context: RequestContext, upstream: str) -> UpstreamResponse:
        """Send the request. Raises what `_Unreachable` names before a byte of the body is read."""
        limits = context.route.limits
        timeout = UpstreamTimeout(limits.idle)
        body = _streamed_body(context, timeout)
        try:
            async with timeout.limit_wait(context.request, limits.connect):
                response = await self._send(context, upstream, body)
        except _Unreachable:
            raise
        except (aiohttp.ClientError, OSError) as error:
            if body is not None:
                await body.stop()
            mapped = mapped_error(error, timeout, body)
            if isinstance(mapped, Refusal):
                # The type of the error alone: aiohttp's message quotes the request with its credentials.
                fields = {"upstream": upstream, "route": context.route.name, "code": mapped.code}
                name = type(error).__name__
                log.warning(
                    "upstream did not respond: %s", name, extra=event("upstream.failed", **fields)
                )
            raise mapped from error
        upstream_response = UpstreamResponse(response, context.request, timeout, body)
        if response.status == 101:
            await upstream_response.close()
            raise Refusal("bad_gateway", "the upstream switched protocols without being asked")
        return upstream_response

    async def _send(
        self, context: RequestContext, upstream: str, body: ProxyRequestBody | None
    ) -> aiohttp.ClientResponse:
        route = context.route
        return await self._session.request(
            context.upstream_method,
            URL(f"{route.scheme}://{upstream}{_target(context)}", encoded=True),
            headers=self._headers(context, upstream, body),
            data=body or (BufferedRequestBody(context.body) if context.body else None),
            allow_redirects=False,
            timeout=_connect_timeout(route.limits.connect),
        )

    def _headers(
        self, context: RequestContext, upstream: str, body: ProxyRequestBody | None
    ) -> CIMultiDict[str]:
        request = context.request
        hop = Hop(
            request.remote or None,
            request.scheme,
            request.headers.get(hdrs.HOST),
            trusted=self._trusts(request),
        )
        headers = forwarding.request_headers(context.headers, request.headers, hop)
        headers[hdrs.HOST] = upstream
        if body is not None:
            if request.content_length is not None:
                headers[hdrs.CONTENT_LENGTH] = str(request.content_length)
            if context.awaits_continue:
                headers[hdrs.EXPECT] = "100-continue"
        return headers


@functools.lru_cache(maxsize=64)
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds)


def _refuse_not_proxied(request: web.BaseRequest) -> None:
    if "websocket" in request.headers.get(hdrs.UPGRADE, "").lower():
        raise Refusal("bad_request", "WebSocket connections are not proxied", {"Connection": "close"})
    if request.method in NOT_PROXIED_METHODS:
        raise Refusal("bad_request", f"{request.method} requests are not proxied")


def _target(context: RequestContext) -> str:
    """Return path and query for the upstream: the target of the route, or what a step has set."""
    query = context.incoming.raw_query if context.raw_query is None else context.raw_query
    target = forwarding.upstream_target(context.route.target, context.raw_resources, query)
    if context.upstream_path is None:
        return target
    _, mark, query = target.partition("?")
    return f"{context.upstream_path}{mark}{query}"


def _streamed_body(context: RequestContext, timeout: UpstreamTimeout) -> ProxyRequestBody | None:
    """Return the body still to be read; None if there is none or a step has read it."""
    if context.body is not None or not context.request.body_exists:
        return None
    return ProxyRequestBody(context, timeout)
