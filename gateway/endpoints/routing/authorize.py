"""The step that authenticates a request and authorizes it for its route.

Every request is authenticated, whatever the route requires. Credentials of this gateway are not
forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from aiohttp import hdrs

from gateway.auth.authenticator import CHALLENGE, JWT, SIGNED, Auth
from gateway.endpoints.routing.forwarding import GATEWAY_PREFIX
from gateway.endpoints.routing.model import Next, RequestContext, Route
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse
from gateway.telemetry.redaction import INTERNAL_HEADER

PRINCIPAL_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "token": frozenset({"token", "internal"}),
    "jwt": frozenset({"jwt"}),
}
"""The kinds of principals that a route with `auth: token` or `auth: jwt` accepts."""

TOKEN_HEADERS: Final = (hdrs.AUTHORIZATION, "X-Auth-Token")


class AuthorizeStep:
    """Sets the principal. `auth: default` is `--auth`; `token` and `jwt` require one in any case."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Raise `Refusal` as `Auth.authenticate`, `unauthorized`, `insufficient_scope`."""
        route = context.route
        mode = self._auth.mode if route.auth == "default" else route.auth
        caller = await self._auth.authenticate(context.incoming, jwt=mode == JWT)
        context.principal = caller.principal
        context.incoming.reject_unenforceable_grant()
        self._remove_gateway_credentials(context)
        if route.auth == "default":
            self._auth.authorize(context.principal)
        elif route.auth != "none":
            _require_principal(context.principal, route.auth)
        if mode != "none":
            _check_rights(context.principal or {}, route)
        return await call_next(context)

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
            value = context.headers.get(name)
            if value is not None and self._auth.holds_token({name: value}):
                context.headers.popall(name)


def _require_principal(principal: Mapping[str, Any] | None, auth: Literal["token", "jwt"]) -> None:
    if principal is None or principal["kind"] not in PRINCIPAL_KINDS[auth]:
        credential = "a JSON Web Token" if auth == JWT else "a token"
        raise Refusal("unauthorized", f"this path needs {credential}", CHALLENGE)


def _check_rights(principal: Mapping[str, Any], route: Route) -> None:
    """Raise `Refusal("insufficient_scope")` (RFC 6750 section 3.1) if a right is missing.

    All scopes of the route are needed, and one of its groups. Only JSON Web Tokens have any.
    """
    lacks_scope = set(route.scopes) - set(principal.get("scopes", ()))
    lacks_group = route.groups and not set(route.groups) & set(principal.get("groups", ()))
    if not lacks_scope and not lacks_group:
        return
    scope = f', scope="{" ".join(route.scopes)}"' if route.scopes else ""
    challenge = f'{CHALLENGE["WWW-Authenticate"]}, error="insufficient_scope"{scope}'
    missing = "does not have the scopes" if lacks_scope else "is in no group"
    message = f"the token {missing} that this path needs"
    raise Refusal("insufficient_scope", message, {"WWW-Authenticate": challenge})
