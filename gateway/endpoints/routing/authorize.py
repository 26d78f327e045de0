"""The step that says who calls and whether that is enough.

One rule: everybody is authenticated, whatever the route asks for; credentials that are meant for
this gateway go no further than here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from aiohttp import hdrs

from gateway.auth.authenticator import CHALLENGE, JWT, SIGNED, Auth
from gateway.endpoints.routing.forwarding import OURS
from gateway.endpoints.routing.model import Next, RequestContext, Route
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse
from gateway.telemetry.redaction import INTERNAL_HEADER

KINDS: Final[Mapping[str, frozenset[str]]] = {
    "token": frozenset({"token", "internal"}),
    "jwt": frozenset({"jwt"}),
}
"""Which kinds of principals a mode means that asks for one whatever the default authorization is."""

TOKEN_HEADERS: Final = (hdrs.AUTHORIZATION, "X-Auth-Token")


class AuthorizeStep:
    """The step. `default` is what `--auth` says; `token` and `jwt` ask for one whatever that is."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def __call__(self, exchange: RequestContext, following: Next) -> GatewayResponse:
        """Fill the principal.

        Raises `Refusal` as `Auth.authenticate`, `unauthorized`, `insufficient_scope`.
        """
        route = exchange.route
        mode = self._auth.mode if route.auth == "default" else route.auth
        caller = await self._auth.authenticate(exchange.incoming, jwt=mode == JWT)
        exchange.principal = caller.principal
        exchange.incoming.reject_unenforceable_grant()
        self._keep_credentials_here(exchange)
        if route.auth == "default":
            self._auth.authorize(exchange.principal)
        elif route.auth != "none":
            _demand(exchange.principal, route.auth)
        if mode != "none":
            _check_rights(exchange.principal or {}, route)
        return await following(exchange)

    def _keep_credentials_here(self, exchange: RequestContext) -> None:
        """Take our own tokens out of what goes upstream; others are the upstream's and stay.

        A JSON Web Token stays too: it is issued for the whole of an API, and upstreams read it.
        """
        exchange.headers.popall(INTERNAL_HEADER, None)
        if exchange.principal == SIGNED:
            exchange.params = {
                name: values
                for name, values in exchange.params.items()
                if not name.lower().startswith(OURS)
            }
        for name in TOKEN_HEADERS:
            value = exchange.headers.get(name)
            if value is not None and self._auth.holds_token({name: value}):
                exchange.headers.popall(name)


def _demand(principal: Mapping[str, Any] | None, mode: Literal["token", "jwt"]) -> None:
    """Raise Refusal `unauthorized` unless somebody of the kinds that this mode means is asking."""
    if principal is None or principal["kind"] not in KINDS[mode]:
        what = "a JSON Web Token" if mode == JWT else "a token"
        raise Refusal("unauthorized", f"this path needs {what}", CHALLENGE)


def _check_rights(principal: Mapping[str, Any], route: Route) -> None:
    """Raise Refusal `insufficient_scope` (RFC 6750 section 3.1) where a right of the route is missing.

    All of its scopes are needed, and one of its groups. Only JSON Web Tokens have any.
    """
    lacks = set(route.scopes) - set(principal.get("scopes", ()))
    outside = route.groups and not set(route.groups) & set(principal.get("groups", ()))
    if not lacks and not outside:
        return
    scope = f', scope="{" ".join(route.scopes)}"' if route.scopes else ""
    challenge = f'{CHALLENGE["WWW-Authenticate"]}, error="insufficient_scope"{scope}'
    message = "the token does not have the scopes" if lacks else "the token is of no group"
    raise Refusal(
        "insufficient_scope", f"{message} that this path needs", {"WWW-Authenticate": challenge}
    )
