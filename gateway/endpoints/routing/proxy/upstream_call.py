"""Sends one request to one upstream, and tells why there is no response.

A small request that is here as a whole goes over a plain connection; aiohttp's client does the rest:
TLS, bodies that stream, `Expect`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import cast

import aiohttp
from aiohttp import ClientRequest, ClientResponse, hdrs
from aiohttp.client_middlewares import ClientHandlerType
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from gateway.auth.request import RequestHead
from gateway.auth.request_ids import REQUEST_ID
from gateway.endpoints.routing import forwarding
from gateway.endpoints.routing.forwarding import Hop
from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.connection import MAX_FIELD_BYTES, READ_BUFFER_BYTES, PlainResponse
from gateway.endpoints.routing.proxy.errors import (
    FINAL_STATUSES,
    UpstreamFailed,
    not_final,
    too_long,
    unreachable,
)
from gateway.endpoints.routing.proxy.plain_call import (
    MAX_PLAIN_BODY_BYTES,
    PlainCall,
    PlainRequest,
    complete_request,
    encode_head,
)
from gateway.endpoints.routing.proxy.pool import KEEP_ALIVE_TIMEOUT, ConnectionPool
from gateway.endpoints.routing.proxy.request import (
    ProxyRequestBody,
    UpstreamRequest,
    UpstreamTimeout,
    mapped_error,
)
from gateway.endpoints.routing.proxy.response import UpstreamResponse
from gateway.endpoints.routing.proxy.tls import tls_of
from gateway.errors import ClientDisconnected, GatewayError, Refusal
from gateway.http.protocol import on_disconnect
from gateway.telemetry import tracing

log = logging.getLogger("gateway.routing")

_Unreachable = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class _ConnectionClosedError(aiohttp.ClientError):
    """The upstream closed the connection before its response."""


class UpstreamCaller:
    """Calls upstreams, between `start` and `close`. `trusts`: see `Proxy`."""

    def __init__(self, trusts: Callable[[RequestHead], bool]) -> None:
        self._trusts = trusts
        self.pool = ConnectionPool()
        self._session: aiohttp.ClientSession

    async def start(self) -> None:
        """Open the session; connections are opened when they are needed, and callers bound them."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_TIMEOUT),
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
        self.pool.close()
        await self._session.close()

    async def call(self, context: RequestContext, upstream: str) -> UpstreamResponse:
        """Send the request. Raises `UpstreamFailed`, and as `Proxy.__call__`.

        Where the upstream cannot be reached, no byte of the body has been read.
        """
        limits = context.route.limits
        timeout = UpstreamTimeout(context)
        plain = self._plain_request(context, upstream)
        if plain is not None:
            answered = await self._call_plain(context, plain)
            return UpstreamResponse(answered, context.request, timeout, None)
        body = _streamed_body(context, timeout)
        try:
            async with timeout.limit_wait(context.request):
                timeout.suspend()  # `limits.connect` bounds what is before the request is sent
                response = await self._send(context, upstream, body, timeout)
        except _Unreachable as error:
            raise unreachable(error, limits.connect) from error
        except (aiohttp.ClientError, OSError) as error:
            if body is not None:
                await body.stop()
            raise _without_response(error, timeout, body) from error
        upstream_response = UpstreamResponse(response, context.request, timeout, body)
        if response.status not in FINAL_STATUSES:  # 101 too: nobody asked for another protocol
            await upstream_response.close()
            raise not_final(response.status)
        return upstream_response

    def _plain_request(self, context: RequestContext, upstream: str) -> PlainRequest | None:
        """Return the request as bytes, if it is plain and small, and here as a whole."""
        route = context.route
        body = _whole_body(context)
        if route.scheme != "http" or body is None or len(body) > MAX_PLAIN_BODY_BYTES:
            return None
        target = target_of(context)
        if "#" in target or target.endswith("?"):
            return None
        headers = self.plain_headers(context, upstream, context.request.scheme)
        method, limits = context.upstream_method, route.limits
        data = complete_request(encode_head(method, target, headers), method, body)
        return PlainRequest(upstream, method, data, limits.connect, limits.idle)

    async def _call_plain(self, context: RequestContext, plain: PlainRequest) -> PlainResponse:
        loop, timer = asyncio.get_running_loop(), None
        answered: asyncio.Future[PlainResponse] = loop.create_future()
        done = functools.partial(_settle, answered)
        left = ClientDisconnected("the client disconnected before the upstream's response")
        if context.deadline is not None:
            late = UpstreamFailed(too_long(context.route.limits.total), connected=True)
            timer = loop.call_at(context.deadline, done, None, late)
        call = PlainCall(self.pool, plain, done)
        with on_disconnect(context.request, functools.partial(done, None, left)):
            try:
                if not answered.done():
                    call.start()
                return await answered
            except BaseException:
                call.cancel()
                raise
            finally:
                if timer is not None:
                    timer.cancel()

    async def _send(
        self,
        context: RequestContext,
        upstream: str,
        body: ProxyRequestBody | None,
        timeout: UpstreamTimeout,  # noqa: ASYNC109  # the caller's, which this starts
    ) -> ClientResponse:
        async def send_once(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
            """Send it. aiohttp (3.14) repeats a GET or PUT after any of the errors caught here."""
            if isinstance(request, UpstreamRequest):
                request.on_connected = timeout.renew
            try:
                return await send(request)
            except _Unreachable:
                raise
            except aiohttp.ClientConnectionError as error:
                raise _ConnectionClosedError from error

        route = context.route
        return await self._session.request(
            context.upstream_method,
            URL(f"{route.scheme}://{upstream}{target_of(context)}", encoded=True),
            headers=self._headers(context, upstream, body),
            data=body or context.body or None,
            allow_redirects=False,
            timeout=_connect_timeout(route.limits.connect),
            ssl=tls_of(route) if route.scheme == "https" else True,
            middlewares=(send_once,),
        )

    def _headers(
        self, context: RequestContext, upstream: str, body: ProxyRequestBody | None
    ) -> CIMultiDict[str]:
        headers = self.plain_headers(context, upstream, context.request.scheme)
        if body is not None:
            if context.request.content_length is not None:
                headers[hdrs.CONTENT_LENGTH] = str(context.request.content_length)
            if context.awaits_continue:
                headers[hdrs.EXPECT] = "100-continue"
        return headers

    def plain_headers(self, context: RequestContext, upstream: str, scheme: str) -> CIMultiDict[str]:
        """Return the headers for the upstream, without framing. Raises as `request_headers`."""
        head = context.incoming
        own = head.headers.get(hdrs.HOST)
        hop = Hop(head.remote or None, scheme, own, trusted=self._trusts(head))
        received = cast(CIMultiDictProxy[str], head.headers)
        ours = context.route.request_headers.set_names
        headers = forwarding.request_headers(context.headers, received, hop, ours)
        host = context.headers.get(hdrs.HOST, upstream)
        headers[hdrs.HOST] = upstream if host == own and "host" not in ours else host
        tracing.set_context(headers, head.facts.attempt_span)
        headers.setdefault(REQUEST_ID, head.facts.request_id)
        return headers


def _settle(
    answered: asyncio.Future[PlainResponse], response: PlainResponse | None, error: GatewayError | None
) -> None:
    """Set the outcome of a plain call, the first one only."""
    if answered.done():
        if response is not None:
            response.close()
    elif response is not None:
        answered.set_result(response)
    elif error is not None:
        answered.set_exception(error)


@functools.lru_cache(maxsize=64)
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def _without_response(
    error: Exception, timeout: UpstreamTimeout, body: ProxyRequestBody | None
) -> GatewayError:
    """Return the error of a request that may have been sent.

    Whoever closes the connection before the end of a body may refuse it, for its size: that says nothing
    of other requests. What reset the connection may have removed its response.
    """
    mapped = mapped_error(error, timeout, body)
    closed = isinstance(error, _ConnectionClosedError)
    incomplete = body is not None and not body.complete
    of_client = body is not None and body.error is not None
    of_body = (closed or timeout.total_passed) and incomplete
    if not isinstance(mapped, Refusal) or of_client or of_body or not (closed or timeout.expired):
        return mapped
    return UpstreamFailed(mapped, connected=True, closed=closed)


def target_of(context: RequestContext) -> str:
    """Return path and query for the upstream: the target of the route, or what a step has set."""
    query = context.incoming.raw_query if context.raw_query is None else context.raw_query
    target = forwarding.upstream_target(context.route.target, context.raw_resources, query)
    if context.upstream_path is None:
        return target
    _, mark, query = target.partition("?")
    return f"{context.upstream_path}{mark}{query}"


def _whole_body(context: RequestContext) -> bytes | None:
    """Return a body that is here as a whole, and stays in the context; None for one that streams."""
    if context.body is not None:
        return context.body
    request = context.request
    if not request.body_exists:
        return b""
    content, declared = request.content, request.content_length
    if context.awaits_continue or declared is None or declared > MAX_PLAIN_BODY_BYTES:
        return None
    if not content.is_eof() or content.exception() is not None:
        return None
    context.body = content.read_nowait()
    return context.body


def _streamed_body(context: RequestContext, timeout: UpstreamTimeout) -> ProxyRequestBody | None:
    """Return the body still to be read; None if there is none or a step has read it."""
    if context.body is not None or not context.request.body_exists:
        return None
    return ProxyRequestBody(context, timeout)
