"""One request of a plain route on its way to the upstreams and back: callbacks, no task."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, cast

from aiohttp import hdrs, web

from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.attempt import CountedAttempt
from gateway.endpoints.routing.proxy.connection import PlainResponse
from gateway.endpoints.routing.proxy.errors import UpstreamFailed, too_long
from gateway.endpoints.routing.proxy.plain_call import PlainCall, PlainRequest
from gateway.endpoints.routing.proxy.proxy import Proxy, set_deadline
from gateway.endpoints.routing.proxy.request import UpstreamTimeout
from gateway.endpoints.routing.proxy.response import MAX_SHORT_BYTES, ProxyResponse, UpstreamResponse
from gateway.endpoints.routing.short_path.plain_text import (
    RequestMemo,
    encode_response,
    is_chunked,
)
from gateway.endpoints.routing.steps.route_steps import RouteSteps
from gateway.endpoints.short_path import ShortExchange
from gateway.errors import ClientDisconnected, GatewayError
from gateway.http.responses import GatewayResponse
from gateway.limits import InFlightLease, MinRate

BODY_TIMEOUT: Final = 0.05
"""Seconds that the rest of a small body is awaited before its response is handed over."""


class ShortParts(NamedTuple):
    """What all requests of the short path share."""

    steps: RouteSteps
    proxy: Proxy
    min_rate: MinRate


class ShortForward:
    """One request on its way to the upstreams of its route and back."""

    __slots__ = (
        "_attempt", "_call", "_context", "_exchange", "_headers", "_in_flight", "_lease", "_memo",
        "_parts", "_response", "_timer", "_total_timer", "_tries", "_unwatch", "_upstream",
    )  # fmt: skip

    def __init__(
        self, parts: ShortParts, exchange: ShortExchange, context: RequestContext, memo: RequestMemo
    ) -> None:
        self._parts = parts
        self._exchange = exchange
        self._context = context
        self._memo = memo
        self._headers: Mapping[str, str] = {}
        self._call: PlainCall | None = None
        self._attempt: CountedAttempt | None = None
        self._response: PlainResponse | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._total_timer: asyncio.TimerHandle | None = None
        self._in_flight: InFlightLease | None = None
        self._unwatch: Callable[[], None] | None = None

    def start(self) -> None:
        """Count and check the request, then send it. Raises `Refusal`."""
        parts, context = self._parts, self._context
        self._headers = parts.steps.rate.count(context)
        self._in_flight = parts.steps.bound.begin(context)
        try:
            parts.steps.validate.check_whole(context)
            self._lease = parts.proxy.admit(context)
        except BaseException:
            self._end_request()
            raise
        set_deadline(context)
        if context.deadline is not None:
            self._total_timer = asyncio.get_running_loop().call_at(context.deadline, self._pass_total)
        self._tries = parts.proxy.tries(context, has_body=bool(context.body))
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
        parts, context, upstream = self._parts, self._context, self._upstream
        attempt = self._attempt = parts.proxy.begin(context, upstream)
        try:
            caller = parts.proxy.caller
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
            if attempt.succeed(response.status):
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

    def _pass_total(self) -> None:
        """End a request whose `limits.total` has passed; a body that has begun is aborted."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
            failure = UpstreamFailed(too_long(self._context.route.limits.total), connected=True)
            with self._exchange.context():
                cast(CountedAttempt, self._attempt).fail(failure)
            self._fail(failure.refusal)
        elif self._response is not None:
            self._hand_over(self._response)

    def _fail(self, error: Exception) -> None:
        self._release()
        self._exchange.fail(error)

    def _release(self) -> None:
        """Give back what the request held, but for its upstream."""
        self._ignore_client()
        self._lease.close()
        self._end_request()

    def _end_request(self) -> None:
        self._parts.steps.bodies.release_body(self._context)
        if self._in_flight is not None:
            self._in_flight.close()

    def _ignore_client(self) -> None:
        if self._total_timer is not None:
            self._total_timer.cancel()
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
            data = encode_response(response, content, self._headers, self._exchange.facts.request_id)
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
                self._parts.steps.count_abnormal(self._context, response.status)
        self._exchange.send(response.status, data, len(content))

    def _hand_over(self, response: PlainResponse) -> None:
        """Let the ordinary path stream the response."""
        self._stop_waiting(response)
        self._ignore_client()

        def drop() -> None:
            response.close()
            cast(CountedAttempt, self._attempt).close()
            self._release()

        async def respond(request: web.BaseRequest) -> GatewayResponse:
            timeout = UpstreamTimeout(self._context)
            upstream_response = UpstreamResponse(response, request, timeout, None)
            upstream_response.on_close(self._release)
            upstream_response.on_close(cast(CountedAttempt, self._attempt).close)
            try:
                answer = ProxyResponse(upstream_response, self._parts.min_rate.meter())
            except BaseException:
                await upstream_response.close()
                raise
            self._parts.steps.count_abnormal(self._context, answer.status)
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
