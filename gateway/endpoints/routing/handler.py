"""Serves the routes of plugins: finds the route of a request and runs its steps in order."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.domain.grant import METHODS
from gateway.endpoints.routing.admission import AuthorizeStep, RateLimitStep
from gateway.endpoints.routing.model import Next, RequestContext, Route, chain
from gateway.endpoints.routing.openapi import document
from gateway.endpoints.routing.plugin import KIND
from gateway.endpoints.routing.script_steps import ScriptSteps
from gateway.endpoints.routing.table import MethodNotAllowed, RouteMatch, RouteTable
from gateway.endpoints.routing.validate import BodyBuffer, ValidateStep
from gateway.endpoints.short_path import ShortExchange
from gateway.http.cors import CorsPolicy, preflight_method, serve_cross_origin
from gateway.http.request_body import expects_continue
from gateway.http.responses import ApiHandler, GatewayResponse, Response, json_response
from gateway.limits import FixedWindowCounters, MinRate
from gateway.plugins import Plugins
from gateway.settings import Settings
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.routing")

NO_ROUTES: Final = RouteTable()


class RouteSteps:
    """The steps of every route, in their order. A refusal comes before the body is requested.

    `default_cors` is for routes without a policy of their own. `metrics` counts the responses whose
    status the route does not list as normal; None, in tests of plugins, counts none. `counters` are
    those of rate limits.
    """

    def __init__(
        self,
        auth: Auth,
        scripts: ScriptSteps,
        ask_upstream: Next,
        default_cors: CorsPolicy | None,
        metrics: Metrics | None,
        counters: FixedWindowCounters,
    ) -> None:
        self._ask_upstream = ask_upstream
        self._default_cors = default_cors
        self._metrics = metrics
        self._bodies = BodyBuffer()
        steps = (
            self._cors,
            AuthorizeStep(auth, self.cors_policy),
            RateLimitStep(counters),
            ValidateStep(self._bodies),
            self._count_abnormal,
            scripts.before,
            scripts.after,
        )
        self._call_first = chain(steps, self._upstream)

    async def respond(self, context: RequestContext) -> GatewayResponse:
        """Return the response of a route. Raises `Refusal`, `ClientDisconnected`."""
        try:
            return await self._call_first(context)
        finally:
            self._bodies.release_body(context)
            if context.buffered_response is not None:
                context.buffered_response.close()

    def cors_policy(self, route: Route) -> CorsPolicy | None:
        """Return the policy of a route for pages of other origins."""
        return route.cors or self._default_cors

    async def _cors(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Respond to preflights before authorization: browsers send no credentials with them."""
        policy, methods = self.cors_policy(context.route), context.route.methods or METHODS
        if policy is None:
            return await call_next(context)
        return await serve_cross_origin(context.request, policy, methods, lambda: call_next(context))

    async def _count_abnormal(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Log and count responses whose status is not among the route's normal codes."""
        response = await call_next(context)
        normal = context.operation.normal_codes if context.operation else frozenset()
        if self._metrics is not None and normal and response.status not in normal:
            name = context.route.name
            self._metrics.abnormal_answers.labels(name).inc()
            log.warning(
                "response with a status that the route does not list as normal",
                extra=event("response.unexpected", route=name, status=response.status),
            )
        return response

    async def _upstream(self, context: RequestContext) -> GatewayResponse:
        if not context.route.upstreams:
            return Response(status=204)
        return await self._ask_upstream(context)


class Routing:
    """Serves what routing plugins describe. One object per gateway, on the server's loop."""

    def __init__(self, settings: Settings, plugins: Plugins, auth: Auth, steps: RouteSteps) -> None:
        self._settings = settings
        self._min_rate = MinRate(settings.min_rate)
        self._plugins = plugins
        self._auth = auth
        self._steps = steps

    @property
    def table(self) -> RouteTable:
        """The routes of the newest set of plugins."""
        table = self._plugins.current.combined.get(KIND)
        return table if isinstance(table, RouteTable) else NO_ROUTES

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"openapi": self._openapi}

    async def _openapi(self, _: IncomingRequest) -> Response:
        return json_response(document(self.table.routes, self._settings))

    def take_short(self, exchange: ShortExchange) -> bool:
        """Serve a whole small request at once, or leave it to the ordinary path."""
        return False

    async def serve_route(self, incoming: IncomingRequest) -> GatewayResponse:
        """Respond to a request. Raises `Refusal`, `ClientDisconnected`."""
        try:
            match = self._find_route(incoming.request, incoming.raw_path)
        except MethodNotAllowed as refusal:
            if incoming.request.method != "OPTIONS":
                raise
            allowed = ", ".join(sorted({*refusal.allow, "OPTIONS"}))  # RFC 9110 section 9.3.7
            return Response(status=204, headers={"Allow": allowed})
        return await self._steps.respond(self._context(incoming, match))

    def _find_route(self, request: web.BaseRequest, raw_path: str) -> RouteMatch:
        """Find the route; a preflight is for the route of the method that it asks for."""
        table, method = self.table, preflight_method(request)
        if method is not None:
            with contextlib.suppress(MethodNotAllowed):
                match = table.find(raw_path, method)
                if self._steps.cors_policy(match.route) is not None:
                    return match
        return table.find(raw_path, request.method)

    def _context(self, incoming: IncomingRequest, match: RouteMatch) -> RequestContext:
        request = incoming.request
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
