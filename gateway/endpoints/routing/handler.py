"""Serves the routes of plugins: finds the route of a request and runs its steps in order."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.endpoints.routing.authorize import AuthorizeStep
from gateway.endpoints.routing.body import BodyReader
from gateway.endpoints.routing.model import Next, RequestContext, Route, chain
from gateway.endpoints.routing.openapi import document
from gateway.endpoints.routing.plugin import KIND
from gateway.endpoints.routing.proxy import Proxy
from gateway.endpoints.routing.rate_limit import RateLimitStep
from gateway.endpoints.routing.script_steps import ScriptSteps
from gateway.endpoints.routing.table import MethodNotAllowed, RouteMatch, RouteTable
from gateway.endpoints.routing.validate import ValidateStep
from gateway.http.cors import CorsPolicy, preflight_method, serve_cross_origin
from gateway.http.request_body import expects_continue
from gateway.http.responses import ApiHandler, GatewayResponse, Response, json_response
from gateway.plugins import Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting.namespace import METHODS
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.routing")

NO_ROUTES: Final = RouteTable()


class RouteSteps:
    """The steps of every route, in their order. A refusal comes before the body is asked for.

    `default_cors` is for routes without a policy of their own. `metrics` counts the responses that a
    route does not call normal; None (the tests of plugins) leaves them alone.
    """

    def __init__(
        self,
        auth: Auth,
        scripts: ScriptSteps,
        ask_upstream: Next,
        default_cors: CorsPolicy | None,
        metrics: Metrics | None,
    ) -> None:
        self._ask_upstream = ask_upstream
        self._default_cors = default_cors
        self._metrics = metrics
        self._bodies = BodyReader()
        steps = (
            self._cors,
            AuthorizeStep(auth),
            RateLimitStep(),
            ValidateStep(self._bodies),
            self._watch,
            scripts.before,
            scripts.after,
        )
        self._first = chain(steps, self._upstream)

    async def respond(self, exchange: RequestContext) -> GatewayResponse:
        """Return the response of a route. Raises `Refusal`, `ClientDisconnected`."""
        try:
            return await self._first(exchange)
        finally:
            self._bodies.release(exchange)

    def cors_policy(self, route: Route) -> CorsPolicy | None:
        """Return the policy for pages of other origins."""
        return route.cors or self._default_cors

    async def _cors(self, exchange: RequestContext, following: Next) -> GatewayResponse:
        """Answer preflights before authorization: browsers send no credentials with them."""
        policy, methods = self.cors_policy(exchange.route), exchange.route.methods or METHODS
        if policy is None:
            return await following(exchange)
        return await serve_cross_origin(exchange.request, policy, methods, lambda: following(exchange))

    async def _watch(self, exchange: RequestContext, following: Next) -> GatewayResponse:
        """Log and count answers whose status the route does not call normal."""
        answer = await following(exchange)
        normal = exchange.operation.normal_codes if exchange.operation else frozenset()
        if self._metrics is not None and normal and answer.status not in normal:
            name = exchange.route.name
            self._metrics.abnormal_answers.labels(name).inc()
            facts = {"route": name, "status": str(answer.status)}
            log.warning("an answer that the route does not call normal", extra={"facts": facts})
        return answer

    async def _upstream(self, exchange: RequestContext) -> GatewayResponse:
        if not exchange.route.upstreams:
            return Response(status=204)
        return await self._ask_upstream(exchange)


class Routing:
    """Serves what routing plugins describe. One object per gateway, on the server's loop."""

    def __init__(
        self,
        settings: Settings,
        plugins: Plugins,
        *,
        auth: Auth,
        hooks: Hooks,
        proxy: Proxy,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._plugins = plugins
        self._auth = auth
        origins = settings.cors_origins
        scripts = ScriptSteps(hooks.run_script, plugins.mask, proxy.fetch_whole)
        self._steps = RouteSteps(auth, scripts, proxy, CorsPolicy(origins) if origins else None, metrics)

    @property
    def table(self) -> RouteTable:
        """The routes of the newest generation of plugins."""
        table = self._plugins.current.combined.get(KIND)
        return table if isinstance(table, RouteTable) else NO_ROUTES

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is answered here."""
        return {"openapi": self._openapi}

    async def _openapi(self, _: IncomingRequest) -> Response:
        return json_response(document(self.table.routes, self._settings))

    async def answer(self, incoming: IncomingRequest) -> GatewayResponse:
        """Answer a request, or raise `Refusal` or `UnknownOutcome`."""
        try:
            found = self._find(incoming.request, incoming.raw_path)
        except MethodNotAllowed as refusal:
            if incoming.request.method == "OPTIONS":
                return _options(refusal)
            raise
        return await self._steps.respond(self._exchange(incoming, found))

    def _find(self, request: web.BaseRequest, raw_path: str) -> RouteMatch:
        """Find the route; a preflight is for the route of the method that it asks about."""
        table, asked = self.table, preflight_method(request)
        if asked is not None:
            with contextlib.suppress(MethodNotAllowed):
                found = table.find(raw_path, asked)
                if self._steps.cors_policy(found.route) is not None:
                    return found
        return table.find(raw_path, request.method)

    def _exchange(self, incoming: IncomingRequest, found: RouteMatch) -> RequestContext:
        request = incoming.request
        return RequestContext(
            incoming=incoming,
            route=found.route,
            operation=found.operation,
            resources=found.resources,
            raw_resources=found.raw_resources,
            params=incoming.params,
            headers=CIMultiDict(request.headers),
            remote=self._auth.client_address(request.remote, request.headers),
            waiting=expects_continue(request),
            path=found.path,
        )


def _options(refusal: MethodNotAllowed) -> Response:
    """Tell what may be asked for (RFC 9110 section 9.3.7)."""
    allowed = ", ".join(sorted({*refusal.allow, "OPTIONS"}))
    return Response(status=204, headers={"Allow": allowed})
