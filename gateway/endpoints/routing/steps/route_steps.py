"""The steps that a request takes through its route, in their order."""

from __future__ import annotations

import logging

from gateway.auth.authenticator import Auth
from gateway.domain.grant import METHODS
from gateway.endpoints.routing.model import Next, RequestContext, Route, chain
from gateway.endpoints.routing.route_access import check_client
from gateway.endpoints.routing.scripts.steps import ScriptSteps
from gateway.endpoints.routing.steps.admission import AuthorizeStep, RateLimitStep
from gateway.endpoints.routing.steps.header_rules import change_request, change_response
from gateway.endpoints.routing.steps.in_flight import BoundStep, RouteCounters
from gateway.endpoints.routing.steps.redirects import redirect
from gateway.endpoints.routing.validation.request_check import BodyBuffer, ValidateStep
from gateway.endpoints.routing.validation.response_check import ResponseCheckStep
from gateway.endpoints.routing.websocket_handshake import SWITCHING_PROTOCOLS
from gateway.http.cors import CorsPolicy, serve_cross_origin
from gateway.http.responses import GatewayResponse, Response
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.routing")


async def _check_client(context: RequestContext, call_next: Next) -> GatewayResponse:
    """Refuse a client by its address. The owner's socket has none: only the operator can open it."""
    if not context.incoming.owner:
        check_client(context.route.clients, context.remote)
    return await call_next(context)


class RouteSteps:
    """The steps of every route, in their order. A refusal comes before the body is requested.

    `default_cors` is for routes without a policy of their own. `metrics` counts the responses whose
    status the route does not list as normal; None, in tests of plugins, counts none. `counters` are
    those of rate limits and of requests in flight.
    """

    def __init__(
        self,
        auth: Auth,
        scripts: ScriptSteps,
        ask_upstream: Next,
        default_cors: CorsPolicy | None,
        metrics: Metrics | None,
        counters: RouteCounters,
    ) -> None:
        self._ask_upstream = ask_upstream
        self._default_cors = default_cors
        self._metrics = metrics
        self.bodies = BodyBuffer()
        self.authorize = AuthorizeStep(auth, self.cors_policy)
        self.rate = RateLimitStep(counters.rates)
        self.bound = BoundStep(counters)
        self.validate = ValidateStep(self.bodies)
        steps = (
            self._cors,
            _check_client,
            self.authorize,
            self.rate,
            self.bound,
            self.validate,
            self._count_abnormal,
            change_response,
            redirect,
            ResponseCheckStep(metrics),
            scripts.before,
            change_request,
            scripts.after,
        )
        self._call_first = chain(steps, self._upstream)

    async def respond(self, context: RequestContext) -> GatewayResponse:
        """Return the response of a route. Raises `Refusal`, `ClientDisconnected`."""
        try:
            return await self._call_first(context)
        finally:
            self.bodies.release_body(context)
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
        response = await call_next(context)
        self.count_abnormal(context, response.status)
        return response

    def count_abnormal(self, context: RequestContext, status: int) -> None:
        """Log and count a response whose status is not among the route's normal codes."""
        if status == SWITCHING_PROTOCOLS:
            return  # normal for every route that takes WebSocket connections
        normal = context.operation.normal_codes if context.operation else frozenset()
        if self._metrics is not None and normal and status not in normal:
            self._metrics.abnormal_answers.labels(context.route.label).inc()
            log.warning(
                "response with a status that the route does not list as normal",
                extra=event("response.unexpected", route=context.route.name, status=status),
            )

    async def _upstream(self, context: RequestContext) -> GatewayResponse:
        if not context.route.upstreams:
            return Response(status=204)
        return await self._ask_upstream(context)
