"""Small requests of plain routes, served at once: forwarded without a task or a future.

The checks are those of the ordinary path, in the same order. What is refused before anything has an
effect is left to that path. A response that is long, slow or not plainly framed is handed over to it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Final, cast

from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.auth.trusted_proxies import Proxies
from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.attempt import CountedAttempt
from gateway.endpoints.routing.proxy.connection import PlainResponse
from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.endpoints.routing.proxy.plain_call import PlainCall, PlainRequest
from gateway.endpoints.routing.proxy.plain_text import (
    RequestMemo,
    encode_response,
    is_chunked,
    recall_request,
)
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.endpoints.routing.proxy.request import UpstreamTimeout
from gateway.endpoints.routing.proxy.response import MAX_SHORT_BYTES, ProxyResponse, UpstreamResponse
from gateway.endpoints.routing.route_access import check_client
from gateway.endpoints.routing.steps import RouteSteps
from gateway.endpoints.routing.table import RouteTable
from gateway.endpoints.short_path import ShortExchange
from gateway.errors import ClientDisconnected, GatewayError
from gateway.http.responses import GatewayResponse
from gateway.limits import MinRate

BODY_TIMEOUT: Final = 0.05
"""Seconds that the rest of a small body is awaited before its response is handed over."""

LEFT_METHODS: Final = frozenset({hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_CONNECT, hdrs.METH_TRACE})
"""Methods that are left to the ordinary path: their responses are special, or they are not proxied."""


class ShortRoutes:
    """Requests of routes that are checked and forwarded, and no more (`Route.is_plain`)."""

    def __init__(self, steps: RouteSteps, proxy: Proxy, proxies: Proxies, min_rate: MinRate) -> None:
        self.steps = steps
        self.proxy = proxy
        self.min_rate = min_rate
        self._proxies = proxies

    def take(self, exchange: ShortExchange, table: RouteTable) -> bool:
        """Serve a request, or leave it. Raises `Refusal`; once it has begun that is the answer."""
        head = exchange.head
        if head.method in LEFT_METHODS:
            return False
        memo = recall_request(exchange.request, table)
        match = memo.match if memo is not None else table.find(head)
        route, steps = match.route, self.steps
        if route.name not in table.plain_routes or steps.cors_policy(route) is not None:
            return False
        received = cast(CIMultiDictProxy[str], head.headers)
        context = RequestContext(
            incoming=head,
            route=route,
            operation=match.operation,
            resources=match.resources,
            raw_resources=match.raw_resources,
            params=head.params,
            headers=memo.headers if memo is not None else CIMultiDict(received),
            remote=self._proxies.client_address(head.remote, head.headers),
            path=match.path,
            body=exchange.body,
        )
        check_client(route.clients, context.remote)
        if not steps.authorize.authorize_now(context):
            return False
        exchange.begin()
        ShortForward(self, exchange, context, memo or RequestMemo(table, match, context.headers)).start()
        return True


class ShortForward:
    """One request on its way to the upstreams of its route and back."""

    __slots__ = (
        "_attempt", "_call", "_context", "_exchange", "_headers", "_lease", "_memo", "_response",
        "_routes", "_timer", "_tries", "_unwatch", "_upstream",
    )  # fmt: skip

    def __init__(
        self, routes: ShortRoutes, exchange: ShortExchange, context: RequestContext, memo: RequestMemo
    ) -> None:
        self._routes = routes
        self._exchange = exchange
        self._context = context
        self._memo = memo
        self._headers: Mapping[str, str] = {}
        self._call: PlainCall | None = None
        self._attempt: CountedAttempt | None = None
        self._response: PlainResponse | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] | None = None

    def start(self) -> None:
        """Count and check the request, then send it. Raises `Refusal`."""
        routes, context = self._routes, self._context
        self._headers = routes.steps.rate.count(context)
        try:
            routes.steps.validate.check_whole(context)
            self._lease = routes.proxy.admit(context)
        except BaseException:
            routes.steps.bodies.release_body(context)
            raise
        self._tries = routes.proxy.tries(context, has_body=bool(context.body))
        self._unwatch = self._exchange.on_disconnect(self._disconnected)
        self._try_next()

    # -- to the upstreams

    def _try_next(self) -> None:
        """Send the request to the next upstream, and fail the exchange where that cannot be."""
        try:
            self._upstream = self._tries.next()
            try:
                self._send()
            except UpstreamFailed as failure:
                self._fail_over(failure)
        except Exception as error:
            self._fail(error)

    def _send(self) -> None:
        routes, context, upstream = self._routes, self._context, self._upstream
        attempt = self._attempt = routes.proxy.begin(context.route, upstream)
        try:
            caller = routes.proxy.caller
            data = self._memo.encode(self._exchange.request, context, upstream, caller)
        except BaseException as error:
            attempt.fail(error)
            raise
        limits = context.route.limits
        request = PlainRequest(upstream, context.upstream_method, data, limits.connect, limits.idle)
        self._call = PlainCall(caller.pool, request, self._receive)
        self._call.start()

    def _fail_over(self, failure: UpstreamFailed) -> None:
        self._tries.go_on(self._upstream, failure)
        self._try_next()

    def _receive(self, response: PlainResponse | None, error: GatewayError | None) -> None:
        """Get the response of an upstream. This runs in the context of its connection."""
        self._call = None
        attempt = cast(CountedAttempt, self._attempt)
        if response is not None:
            if not self._is_repeated(response, attempt):
                self._answer(response)
            return
        with self._exchange.context():
            attempt.fail(cast(GatewayError, error))
        try:
            if not isinstance(error, UpstreamFailed):
                raise cast(GatewayError, error)
            self._fail_over(error)
        except Exception as refusal:
            self._fail(refusal)

    def _is_repeated(self, response: PlainResponse, attempt: CountedAttempt) -> bool:
        """Judge the upstream by its response; tell whether another one is asked in place of it."""
        if not attempt.is_failure(response.status):
            if attempt.succeed():
                with self._exchange.context():
                    attempt.log_recovery()
            return False
        with self._exchange.context():
            attempt.reject(response.status)
        if not self._tries.repeat():
            return False
        response.close()
        attempt.close()
        self._try_next()
        return True

    def _disconnected(self) -> None:
        call, self._call = self._call, None
        error = ClientDisconnected("the client disconnected before the upstream's response")
        if call is not None:
            call.cancel()
            cast(CountedAttempt, self._attempt).fail(error)
        elif (response := self._response) is not None:
            self._stop_waiting(response)
            response.close()
            cast(CountedAttempt, self._attempt).close()
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._release()
        self._exchange.fail(error)

    def _release(self) -> None:
        """Give back what the request held, but for its upstream."""
        self._ignore_client()
        self._lease.close()
        self._routes.steps.bodies.release_body(self._context)

    def _ignore_client(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()

    # -- to the client

    def _answer(self, response: PlainResponse) -> None:
        """Answer with a whole small response; await the rest of one that has just begun."""
        if not _may_be_small(response):
            self._hand_over(response)
        elif response.has_ended():
            self._finish(response)
        else:
            loop = asyncio.get_running_loop()
            self._response = response
            self._timer = loop.call_later(BODY_TIMEOUT, self._hand_over, response)
            response.on_end = functools.partial(self._finish, response)

    def _stop_waiting(self, response: PlainResponse) -> None:
        response.on_end = self._response = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, response: PlainResponse) -> None:
        self._stop_waiting(response)
        if response.content.exception() is not None:
            self._hand_over(response)
            return
        try:
            content = response.content.read_nowait()
            data = encode_response(response, content, self._headers, self._exchange.request_id)
        except Exception as error:
            response.close()
            cast(CountedAttempt, self._attempt).close()
            self._fail(error)
            return
        response.release()
        cast(CountedAttempt, self._attempt).close()
        self._release()
        if self._context.operation is not None and self._context.operation.normal_codes:
            with self._exchange.context():
                self._routes.steps.count_abnormal(self._context, response.status)
        self._exchange.send(response.status, data)

    def _hand_over(self, response: PlainResponse) -> None:
        """Let the ordinary path stream the response."""
        self._stop_waiting(response)
        self._ignore_client()

        def drop() -> None:
            response.close()
            cast(CountedAttempt, self._attempt).close()
            self._release()

        async def respond(request: web.BaseRequest) -> GatewayResponse:
            timeout = UpstreamTimeout(self._context.route.limits.idle)
            upstream_response = UpstreamResponse(response, request, timeout, None)
            upstream_response.on_close(self._release)
            upstream_response.on_close(cast(CountedAttempt, self._attempt).close)
            try:
                answer = ProxyResponse(upstream_response, self._routes.min_rate.meter())
            except BaseException:
                await upstream_response.close()
                raise
            self._routes.steps.count_abnormal(self._context, answer.status)
            answer.headers.update(self._headers)
            return answer

        self._exchange.hand_over(respond, drop)


def _may_be_small(response: PlainResponse) -> bool:
    """Tell whether a response has a body, which is small as it says, or is here and small."""
    headers = response.headers
    if response.status in {204, 304}:
        return False
    if hdrs.TRANSFER_ENCODING in headers:
        content = response.content
        return is_chunked(response) and content.is_eof() and content.total_bytes <= MAX_SHORT_BYTES
    declared = headers.get(hdrs.CONTENT_LENGTH, "")
    return declared.isdecimal() and len(declared) < 6 and int(declared) <= MAX_SHORT_BYTES
