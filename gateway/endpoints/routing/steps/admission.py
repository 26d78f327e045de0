"""The steps that admit a request to its route: authentication and authorization, then the rate limit.

Every request is authenticated, whatever the route requires. Credentials of this gateway are not
forwarded. The counters of rates are those of all processes, and survive a reload.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import hdrs

from gateway.auth.authenticator import Auth
from gateway.auth.principals import JWT, SIGNED
from gateway.domain.method_overrides import named_methods
from gateway.endpoints.routing.forwarding import GATEWAY_PREFIX
from gateway.endpoints.routing.model import Next, Rate, RequestContext, Route
from gateway.endpoints.routing.route_access import RouteAccess
from gateway.errors import Refusal
from gateway.http.cors import CorsPolicy, refuse_cross_site
from gateway.http.responses import GatewayResponse
from gateway.limits import FixedWindowCounters, client_key
from gateway.telemetry.redaction import INTERNAL_HEADER

TOKEN_HEADERS: Final = (hdrs.AUTHORIZATION, "X-Auth-Token")


class AuthorizeStep:
    """Sets the principal. `auth: default` is `--auth`; `token` and `jwt` require one in any case.

    Where everyone may call, pages of other origins may not, unless `cors_policy` names them.
    """

    def __init__(self, auth: Auth, cors_policy: Callable[[Route], CorsPolicy | None]) -> None:
        self._auth = auth
        self._access = RouteAccess(auth)
        self._cors_policy = cors_policy

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Raise `Refusal`.

        As `Auth.authenticate`; `unauthorized`, `insufficient_scope`, `forbidden`, `bad_request`.
        """
        _refuse_other_method(context)
        self._set_origins(context)
        await self._auth.authenticate(context.incoming, jwt=self._access.mode(context.route) == JWT)
        self._authorize(context)
        return await call_next(context)

    def authorize_now(self, context: RequestContext) -> bool:
        """Do the same at once; False where that has to wait. Raises as `__call__`."""
        _refuse_other_method(context)
        self._set_origins(context)
        if self._auth.authenticate_now(context.incoming) is None:
            return False
        self._authorize(context)
        return True

    def _set_origins(self, context: RequestContext) -> None:
        """Tell the authentication whose pages may act for a user here."""
        policy = self._cors_policy(context.route)
        context.incoming.origins = () if policy is None else policy.origins

    def _authorize(self, context: RequestContext) -> None:
        """Set the principal of a request whose caller is authenticated."""
        route = context.route
        caller = context.incoming.caller
        context.principal = None if caller is None else caller.principal
        context.incoming.reject_unenforceable_grant()
        self._remove_gateway_credentials(context)
        self._access.check_caller(route, context.principal)
        if context.principal is None and self._access.mode(route) == "none":
            refuse_cross_site(context.incoming, self._cors_policy(route))

    def _remove_gateway_credentials(self, context: RequestContext) -> None:
        """Remove this gateway's tokens from what is forwarded; others are the upstream's.

        A JSON Web Token is forwarded: it is issued for a whole API, and upstreams read it.
        """
        context.headers.popall(INTERNAL_HEADER, None)
        if context.principal == SIGNED:
            context.params = {
                name: values
                for name, values in context.params.items()
                if not name.lower().startswith(GATEWAY_PREFIX)
            }
        for name in TOKEN_HEADERS:
            lines = context.headers.getall(name, ())
            if any(self._auth.holds_token({name: line}) for line in lines):
                context.headers.popall(name)


def _refuse_other_method(context: RequestContext) -> None:
    """Refuse a request whose upstream may take it for one with another method.

    Frameworks can be told to (Rails, Laravel, Express, ASP.NET). Where a route lists its methods, naming
    another must not avoid what it asks of that one. Raises `Refusal("bad_request")`.
    """
    if not context.route.operations or not context.route.upstreams:
        return
    for name, _ in named_methods(context.headers, context.params):
        message = f"this path does not take {name}: send the request with its own method"
        raise Refusal("bad_request", message)


class RateLimitStep:
    """Sets `RateLimit-*` headers on responses; refuses what is too much with `Retry-After`."""

    def __init__(self, counters: FixedWindowCounters) -> None:
        self._counters = counters

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Count the request. Raises `Refusal("too_many_requests")`."""
        headers = self.count(context)
        response = await call_next(context)
        response.headers.update(headers)
        return response

    def count(self, context: RequestContext) -> Mapping[str, str]:
        """Count the request, and return the headers for its response. Raises as `__call__`."""
        rate = context.route.rate
        if rate is None:
            return {}
        # A reload that changes the rate begins a new window.
        key = (context.route.name, _client_key(context, rate), rate.count, rate.seconds)
        count, seconds_left = self._counters.increment(key, rate.seconds)
        headers = {
            "RateLimit-Limit": str(rate.count),
            "RateLimit-Remaining": str(max(rate.count - count, 0)),
            "RateLimit-Reset": str(max(math.ceil(seconds_left), 1)),
        }
        if count > rate.count:
            headers["Retry-After"] = headers["RateLimit-Reset"]
            message = f"at most {rate.count} requests in {rate.seconds:g} seconds are allowed here"
            raise Refusal("too_many_requests", message, headers)
        return headers


def _client_key(context: RequestContext, rate: Rate) -> str:
    return client_key(context.principal if rate.by == "principal" else None, context.remote)
