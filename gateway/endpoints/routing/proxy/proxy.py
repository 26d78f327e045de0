"""The last step: sends the request to an upstream, and returns its response.

Bytes stream both ways with back-pressure. The upstream gets what the client sent, except for the
fields of `forwarding`. A slow upstream, route or client takes no place of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import hdrs

from gateway.auth.request import RequestHead
from gateway.endpoints.routing.model import NOT_PROXIED_METHODS, RequestContext, Route
from gateway.endpoints.routing.proxy.attempt import CountedAttempt
from gateway.endpoints.routing.proxy.attempt_record import AttemptRecord
from gateway.endpoints.routing.proxy.errors import UpstreamFailed, too_long
from gateway.endpoints.routing.proxy.probes import UpstreamProbes
from gateway.endpoints.routing.proxy.response import ProxyResponse, UpstreamResponse
from gateway.endpoints.routing.proxy.upstream_call import UpstreamCaller
from gateway.endpoints.routing.proxy.upstream_groups import Upstreams
from gateway.endpoints.routing.proxy.upstreams import UpstreamTries
from gateway.endpoints.routing.proxy.whole_response import BufferedResponse, read_whole, request_whole
from gateway.endpoints.routing.route_shares import RouteShares
from gateway.endpoints.routing.websocket_handshake import NO_WEBSOCKET, is_websocket
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse
from gateway.limits import FairShare, Lease
from gateway.telemetry.request_metrics import RequestMetrics

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

    `trusts` tells whether a request comes from a trusted proxy whose headers can be believed. `metrics`
    count the requests to upstreams.
    """

    def __init__(self, trusts: Callable[[RequestHead], bool], metrics: RequestMetrics) -> None:
        self.upstreams = Upstreams()
        self.caller = UpstreamCaller(trusts)
        self._probes = UpstreamProbes(self.caller.pool)
        self._metrics = metrics
        self._connections = FairShare("requests to upstreams", MAX_CONNECTIONS)
        self._routes = RouteShares("requests to this path", MAX_ROUTE_REQUESTS)
        self._memory = FairShare("bytes of responses in memory", MAX_BUFFERED_BYTES)

    async def start(self) -> None:
        """Let requests be sent."""
        await self.caller.start()

    def follow(self, routes: Iterable[Route]) -> None:
        """Let these routes be those in force: they keep what is known of their upstreams."""
        routes = tuple(routes)
        self._routes.keep({route.name for route in routes})
        self._probes.follow(self.upstreams.follow(routes).items())

    async def close(self) -> None:
        """Close every connection to an upstream."""
        await self._probes.close()
        await self.caller.close()

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
        """Try the upstreams in order until one responds."""
        _refuse_not_proxied(context.incoming)
        with contextlib.ExitStack() as leases:
            leases.enter_context(self.admit(context))
            has_body = context.request.body_exists if context.body is None else bool(context.body)
            tries = self.tries(context, has_body=has_body)
            set_deadline(context)
            while True:
                upstream = tries.next()
                _check_deadline(context)
                try:
                    response = await self._request_one(context, upstream, tries)
                except UpstreamFailed as failure:
                    tries.go_on(upstream, failure)
                    continue
                if response is not None:
                    response.on_close(leases.pop_all().close)
                    return response

    async def _request_one(
        self, context: RequestContext, upstream: str, tries: UpstreamTries
    ) -> UpstreamResponse | None:
        """Send the request to one upstream, and note how it did.

        Returns None for a response that is a failure, in place of which the request goes to another
        upstream. Raises as `UpstreamCaller.call`.
        """
        attempt = self.begin(context, upstream)
        try:
            response = await self.caller.call(context, upstream)
        except BaseException as error:
            attempt.fail(error)
            raise
        response.on_close(attempt.close)
        if not attempt.is_failure(response.response.status):
            if attempt.succeed(response.response.status):
                attempt.log_recovery()
            return response
        attempt.reject(response.response.status)
        if not tries.repeat():
            return response
        await response.close()
        return None

    # -- what the short path does, too

    def admit(self, context: RequestContext) -> Lease:
        """Count a request of a route, until the lease is closed. Raises as `FairShare.acquire`."""
        return self._routes.share_of(context.route.name).acquire(context.client)

    def tries(self, context: RequestContext, *, has_body: bool) -> UpstreamTries:
        """Return which upstreams a request goes to."""
        route, repeatable = context.route, context.upstream_method in REPEATABLE and not has_body
        return UpstreamTries(self.upstreams.of_route(route), route.weights, repeatable=repeatable)

    def begin(self, context: RequestContext, upstream: str) -> CountedAttempt:
        """Count a request that goes to an upstream. Raises `UpstreamFailed` where there are too many."""
        route = context.route
        record = AttemptRecord(self._metrics, context.incoming.facts, route.label, upstream)
        try:
            lease = self._connections.acquire(upstream)
        except Refusal:
            record.refuse()
            busy = Refusal("overloaded", "the upstream is busy: too many requests wait for it")
            raise UpstreamFailed(busy, connected=False) from None
        return CountedAttempt(self.upstreams.of_route(route), route, upstream, lease, record)


def set_deadline(context: RequestContext) -> None:
    """Let `limits.total` begin."""
    total = context.route.limits.total
    if total is not None:
        context.deadline = asyncio.get_running_loop().time() + total


def _check_deadline(context: RequestContext) -> None:
    if context.deadline is not None and asyncio.get_running_loop().time() >= context.deadline:
        raise too_long(context.route.limits.total)


def _refuse_not_proxied(head: RequestHead) -> None:
    if is_websocket(head.headers):
        raise Refusal("bad_request", NO_WEBSOCKET, {hdrs.CONNECTION: "close"})
    if head.method in NOT_PROXIED_METHODS:
        raise Refusal("bad_request", f"{head.method} requests are not proxied")
