"""Serves the routes of plugins: finds the route of a request and runs its steps in order."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from multidict import CIMultiDict

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.endpoints.routing.loading.plugin import KIND
from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.openapi.handler import OpenApiEndpoint
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.endpoints.routing.route_facts import RouteFacts
from gateway.endpoints.routing.short_path.short_route import ShortRoutes
from gateway.endpoints.routing.steps.route_steps import RouteSteps
from gateway.endpoints.routing.table import MethodNotAllowed, NoRoute, RouteMatch, RouteTable
from gateway.endpoints.routing.websocket.websockets import WebSockets
from gateway.endpoints.short_path import ShortExchange
from gateway.http.cors import preflight_method
from gateway.http.request_body import expects_continue
from gateway.http.responses import ApiHandler, GatewayResponse, Response
from gateway.limits import MinRate
from gateway.plugins import Plugins
from gateway.settings import Settings

log = logging.getLogger("gateway.routing")

NO_ROUTES: Final = RouteTable()


class Routing:
    """Serves what routing plugins describe. One object per gateway, on the server's loop."""

    def __init__(
        self,
        settings: Settings,
        plugins: Plugins,
        auth: Auth,
        steps: RouteSteps,
        proxy: Proxy,
        websockets: WebSockets,
    ) -> None:
        self._min_rate = MinRate(settings.min_rate)
        self._plugins = plugins
        self._auth = auth
        self._steps = steps
        self._openapi = OpenApiEndpoint(settings, auth, lambda: self.table)
        self._proxy = proxy
        self.websockets = websockets
        self._short = ShortRoutes(steps, proxy, auth.proxies, self._min_rate)

    @property
    def table(self) -> RouteTable:
        """The routes of the newest set of plugins."""
        table = self._plugins.current.combined.get(KIND)
        return table if isinstance(table, RouteTable) else NO_ROUTES

    def follow_table(self) -> None:
        """Probe the upstreams of the newest routes, and forget what is known of others."""
        routes = self.table.routes
        self._proxy.follow(routes)
        self.websockets.follow(routes)

    def upstreams_down(self) -> dict[str, list[str]]:
        """Return the upstreams that get no requests of this process, each with its routes."""
        return self._proxy.upstreams.down()

    def facts(self) -> RouteFacts:
        """Return what operators are shown of the routes."""
        return RouteFacts(lambda: self.table.routes, self._proxy.upstreams)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return self._openapi.handlers()

    def take_short(self, exchange: ShortExchange) -> bool:
        """Serve a whole small request at once, or leave it to the ordinary path."""
        return self._short.take(exchange, self.table)

    async def serve_route(self, incoming: IncomingRequest) -> GatewayResponse:
        """Respond to a request. Raises `Refusal`, `ClientDisconnected`."""
        try:
            match = self._find_route(incoming)
        except MethodNotAllowed as refusal:
            if incoming.request.method != "OPTIONS":
                raise
            allowed = ", ".join(sorted({*refusal.allow, "OPTIONS"}))  # RFC 9110 section 9.3.7
            return Response(status=204, headers={"Allow": allowed})
        return await self._steps.respond(self._context(incoming, match))

    def _find_route(self, incoming: IncomingRequest) -> RouteMatch:
        """Find the route; a preflight is for the route of the method that it asks for."""
        table, method = self.table, preflight_method(incoming.request)
        if method is not None:
            with contextlib.suppress(MethodNotAllowed, NoRoute):
                match = table.find(incoming, method)
                if self._steps.cors_policy(match.route) is not None:
                    return match
        return table.find(incoming)

    def _context(self, incoming: IncomingRequest, match: RouteMatch) -> RequestContext:
        request = incoming.request
        incoming.facts.route = match.route.label
        return RequestContext(
            incoming=incoming,
            route=match.route,
            operation=match.operation,
            resources=match.resources,
            raw_resources=match.raw_resources,
            params=incoming.params,
            headers=CIMultiDict(request.headers),
            remote=self._auth.proxies.client_address(request.remote, request.headers),
            awaits_continue=expects_continue(request),
            path=match.path,
            meter=self._min_rate.meter(),
            response_meter=self._min_rate.meter(),
        )
