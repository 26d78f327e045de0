"""The last step: sends the request to an upstream, and returns its response.

Bytes stream both ways with back-pressure. The upstream gets what the client sent, except for the
fields of `forwarding`. A slow upstream, route or client takes no place of the others.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs, web

from gateway.endpoints.routing.model import NOT_PROXIED_METHODS, RequestContext, Route
from gateway.endpoints.routing.proxy_response import ProxyResponse, UpstreamResponse
from gateway.endpoints.routing.upstream_call import UpstreamCaller
from gateway.endpoints.routing.upstream_errors import UpstreamFailed
from gateway.endpoints.routing.upstreams import UpstreamAttempt, Upstreams
from gateway.endpoints.routing.whole_response import BufferedResponse, read_whole, request_whole
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse
from gateway.limits import FairShare
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

MAX_CONNECTIONS: Final = 2000
"""Requests that are at upstreams at the same time; one upstream may have as many as are still free."""

MAX_ROUTE_REQUESTS: Final = 1000
"""The same for one route, of which a client may have as many as are still free."""

MAX_BUFFERED_BYTES: Final = 512 << 20
"""Bytes of responses that scripts read, all together, each client its share."""

REPEATABLE: Final = frozenset(
    {hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_PUT, hdrs.METH_DELETE}
)
"""Idempotent methods (RFC 9110 section 9.2.2): sent twice, they do what they do once."""


class Proxy:
    """Sends requests to upstreams, between `start` and `close`.

    `trusts` tells whether a request comes from a trusted proxy whose headers can be believed.
    """

    def __init__(self, trusts: Callable[[web.BaseRequest], bool]) -> None:
        self.upstreams = Upstreams()
        self._caller = UpstreamCaller(trusts)
        self._connections = FairShare("requests to upstreams", MAX_CONNECTIONS)
        self._routes: dict[str, FairShare] = {}
        self._memory = FairShare("bytes of responses in memory", MAX_BUFFERED_BYTES)

    async def start(self) -> None:
        """Let requests be sent."""
        await self._caller.start()

    async def close(self) -> None:
        """Close every connection to an upstream."""
        await self._caller.close()

    async def __call__(self, context: RequestContext) -> GatewayResponse:
        """Return the upstream's response; its body is read while it is sent to the client.

        Raises `Refusal` `bad_gateway` (no upstream can be reached, or it does not speak HTTP),
        `gateway_timeout`, `overloaded`, `too_many_requests`, `idle_timeout` (the client sends nothing),
        `bad_request` (not proxied), `bad_path`; `ClientDisconnected`.
        """
        upstream_response = await self._request_any(context)
        try:
            return ProxyResponse(upstream_response, context.response_meter)
        except BaseException:
            await upstream_response.close()
            raise

    async def fetch_whole(self, context: RequestContext, limit: int) -> BufferedResponse:
        """Return the response in memory. Raises as `__call__` and `read_whole`."""
        request_whole(context)
        upstream_response = await self._request_any(context)
        lease = context.buffered_response = self._memory.acquire(context.client, 0)
        return await read_whole(upstream_response, limit, context.route.limits.script, lease)

    # -- one request

    async def _request_any(self, context: RequestContext) -> UpstreamResponse:
        """Try the upstreams in order until one responds.

        What could not be sent goes to the next one. What may have arrived goes to the next one once, if
        that does no harm; where there is no other, to the same one, if it closed the connection.
        """
        _refuse_not_proxied(context.request)
        with contextlib.ExitStack() as leases:
            leases.enter_context(self._route_share(context.route.name).acquire(context.client))
            upstreams = deque(self.upstreams.order(context.route.upstreams))
            repeats = _is_repeatable(context)
            while True:
                upstream = upstreams.popleft()
                try:
                    response = await self._request_one(context, upstream)
                except UpstreamFailed as failure:
                    if failure.connected and not repeats:
                        raise failure.refusal from failure
                    if failure.connected:
                        repeats = False
                        upstreams.extend([] if upstreams or not failure.closed else [upstream])
                    if not upstreams:
                        raise failure.refusal from failure
                else:
                    response.on_close(leases.pop_all().close)
                    return response

    async def _request_one(self, context: RequestContext, upstream: str) -> UpstreamResponse:
        """Send the request to one upstream, and note how it did. Raises as `UpstreamCaller.call`."""
        if not self._connections.would_fit(upstream):
            busy = Refusal("overloaded", "the upstream is busy: too many requests wait for it")
            raise UpstreamFailed(busy, connected=False)
        with contextlib.ExitStack() as leases:
            leases.enter_context(self._connections.acquire(upstream))
            attempt = self.upstreams.begin(upstream)
            try:
                response = await self._caller.call(context, upstream)
            except UpstreamFailed as failure:
                self._fail(attempt, failure, context.route)
                raise
            finally:
                self.upstreams.end(attempt)
            if self.upstreams.succeed(attempt):
                log.info(
                    "the upstream works again", extra=event("upstream.recovered", upstream=upstream)
                )
            response.on_close(leases.pop_all().close)
            return response

    def _fail(self, attempt: UpstreamAttempt, failure: UpstreamFailed, route: Route) -> None:
        seconds = self.upstreams.fail(attempt, connected=failure.connected)
        # Without the cause: aiohttp's message quotes the request with its credentials.
        fields = {"upstream": attempt.upstream, "route": route.name, "code": failure.refusal.code}
        others = seconds and len(route.upstreams) > 1  # a single one stays in use
        suspended = {"suspended_seconds": seconds} if others else {}
        log.warning("%s", failure, extra=event("upstream.failed", **fields, **suspended))

    def _route_share(self, route: str) -> FairShare:
        if route not in self._routes:
            self._routes[route] = FairShare("requests to this path", MAX_ROUTE_REQUESTS)
        return self._routes[route]


def _refuse_not_proxied(request: web.BaseRequest) -> None:
    if "websocket" in request.headers.get(hdrs.UPGRADE, "").lower():
        raise Refusal("bad_request", "WebSocket connections are not proxied", {"Connection": "close"})
    if request.method in NOT_PROXIED_METHODS:
        raise Refusal("bad_request", f"{request.method} requests are not proxied")


def _is_repeatable(context: RequestContext) -> bool:
    """Tell whether it does no harm that the upstream gets the request twice."""
    has_body = context.request.body_exists if context.body is None else bool(context.body)
    return context.upstream_method in REPEATABLE and not has_body
