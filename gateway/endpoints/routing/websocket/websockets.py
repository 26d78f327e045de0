"""WebSocket handshakes of routes: checked, sent to an upstream, counted while the connection is open."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from aiohttp import hdrs

from gateway.endpoints.routing.model import RequestContext, Route
from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.endpoints.routing.proxy.request import UpstreamTimeout
from gateway.endpoints.routing.proxy.response import ProxyResponse, UpstreamResponse
from gateway.endpoints.routing.proxy.upstreams import UpstreamTries
from gateway.endpoints.routing.route_shares import RouteShares
from gateway.endpoints.routing.websocket.call import (
    AnsweredHandshake,
    call_upstream,
    encode_handshake,
)
from gateway.endpoints.routing.websocket.response import WebSocketResponse
from gateway.endpoints.routing.websocket.tunnel import STOP_TIMEOUT, Tunnel
from gateway.endpoints.routing.websocket_handshake import (
    NO_WEBSOCKET,
    SWITCHING_PROTOCOLS,
    check_handshake,
    check_switch,
    is_websocket,
)
from gateway.errors import Refusal
from gateway.http.cors import CorsPolicy, refuse_foreign_origin
from gateway.http.responses import GatewayResponse
from gateway.http.switching import can_switch
from gateway.limits import Lease

MAX_ROUTE_WEBSOCKETS: Final = 4096
"""WebSocket connections of one route, of which a client may have as many as are still free."""


class WebSockets:
    """The last step of a route, for WebSocket handshakes; other requests go on to `proxy`.

    `default_cors` is for routes without a policy of their own.
    """

    def __init__(self, proxy: Proxy, default_cors: CorsPolicy | None) -> None:
        self._proxy = proxy
        self._default_cors = default_cors
        self._shares = RouteShares("WebSocket connections to this path", MAX_ROUTE_WEBSOCKETS)
        self._open: set[Tunnel] = set()
        self._counts: dict[tuple[str, ...], int] = {}

    def follow(self, routes: Iterable[Route]) -> None:
        """Let these routes be those in force: forget others without open connections."""
        routes = tuple(routes)
        self._shares.keep({route.name for route in routes})
        labels = {(route.label,) for route in routes}
        self._counts = {key: count for key, count in self._counts.items() if count or key in labels}

    @property
    def counts(self) -> Mapping[tuple[str, ...], int]:
        """The numbers of open connections, by route. Thread-safe."""
        return self._counts.copy()

    async def stop(self) -> None:
        """Close all connections, each at the boundary of a frame; wait for them a moment."""
        tunnels = tuple(self._open)
        for tunnel in tunnels:
            tunnel.stop()
        deadline = asyncio.get_running_loop().time() + 2 * STOP_TIMEOUT
        for tunnel in tunnels:
            await tunnel.wait_closed(deadline)

    async def __call__(self, context: RequestContext) -> GatewayResponse:
        """Return the 101 for a handshake, which serves the connection as it is sent.

        An upstream's other response is relayed as it is. Raises as `Proxy.__call__`, `check_request`.
        """
        if not is_websocket(context.incoming.headers):
            return await self._proxy(context)
        key = check_request(context, self._default_cors)
        if not can_switch(context.request):
            raise Refusal("bad_request", "malformed WebSocket handshake")
        lease = self._shares.share_of(context.route.name).acquire(context.client)
        try:
            return await self._request_any(context, key, lease)
        except BaseException:
            lease.close()
            raise

    async def _request_any(self, context: RequestContext, key: str, lease: Lease) -> GatewayResponse:
        """Try the upstreams in order until one responds."""
        tries = self._proxy.tries(context, has_body=False)
        while True:
            upstream = tries.next()
            try:
                answered = await self._request_one(context, upstream, key, tries)
            except UpstreamFailed as failure:
                tries.go_on(upstream, failure)
                continue
            if answered is not None:
                return self._respond(context, answered, key, lease)

    async def _request_one(
        self, context: RequestContext, upstream: str, key: str, tries: UpstreamTries
    ) -> AnsweredHandshake | None:
        """Send the handshake to one upstream, and note how it did; None: another one is asked."""
        attempt = self._proxy.begin(context, upstream)
        try:
            handshake = encode_handshake(self._proxy.caller, context, upstream, key)
            answered = await call_upstream(self._proxy.caller, handshake)
        except BaseException as error:
            attempt.fail(error)
            raise
        status = answered.response.status
        failed = attempt.is_failure(status)
        if failed:
            attempt.reject(status)
        elif attempt.succeed(status):
            attempt.log_recovery()
        attempt.close()
        if not failed or not tries.repeat():
            return answered
        answered.connection.cancel()
        return None

    def _respond(
        self, context: RequestContext, answered: AnsweredHandshake, key: str, lease: Lease
    ) -> GatewayResponse:
        response, route = answered.response, context.route
        try:
            if response.status == SWITCHING_PROTOCOLS:
                check_switch(response.headers, key)
                track = functools.partial(self._track, route.label)
                return WebSocketResponse(answered, route, lease, track)
            timeout = UpstreamTimeout(context)
            upstream_response = UpstreamResponse(response, context.request, timeout, None)
            upstream_response.on_close(lease.close)
            return ProxyResponse(upstream_response, context.response_meter)
        except BaseException:
            answered.connection.cancel()
            raise

    @contextlib.contextmanager
    def _track(self, route: str, tunnel: Tunnel) -> Iterator[None]:
        self._open.add(tunnel)
        self._counts[(route,)] = self._counts.get((route,), 0) + 1
        try:
            yield
        finally:
            self._open.discard(tunnel)
            self._counts[(route,)] -= 1


def check_request(context: RequestContext, default_cors: CorsPolicy | None) -> str:
    """Return the key of a handshake that may go to an upstream.

    Raises `Refusal`: `bad_request` (malformed, or the route takes none), `upgrade_required`, `forbidden`
    for a page of another origin: browsers let any page connect, with the user's cookies. Where a browser
    alone says who the user is, `*` names no origin: any page could act for the user.
    """
    if not context.route.websocket:
        raise Refusal("bad_request", NO_WEBSOCKET, {hdrs.CONNECTION: "close"})
    key = check_handshake(context.request)
    policy = context.route.cors or default_cors
    caller = context.incoming.caller
    if policy is not None and caller is not None and caller.is_ambient:
        named = tuple(origin for origin in policy.origins if origin != "*")
        policy = replace(policy, origins=named)
    refuse_foreign_origin(context.request.headers, policy)
    return key
