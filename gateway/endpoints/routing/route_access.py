"""Who may call a route: one rule, for requests to it and for the document that describes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from gateway.auth.authenticator import Auth
from gateway.auth.principals import API_KEY, JWT
from gateway.auth.roles import CHALLENGE
from gateway.domain.addresses import IPAddress, ip_address
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.rules import ClientNetworks
from gateway.errors import Refusal

PRINCIPAL_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "token": frozenset({"token", API_KEY, "internal"}),
    "jwt": frozenset({"jwt"}),
}
"""The kinds of principals that a route with `auth: token` or `auth: jwt` accepts."""


class RouteAccess:
    """`auth: default` of a route is `--auth`; `token` and `jwt` require one in any case."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def mode(self, route: Route) -> str:
        """Return what a route requires: `none`, `token` or `jwt`."""
        return self._auth.mode if route.auth == "default" else route.auth

    def check_caller(self, route: Route, principal: Mapping[str, Any] | None) -> None:
        """Raise `Refusal` where the principal may not call: `unauthorized`, `insufficient_scope`."""
        if route.auth == "default":
            self._auth.authorize(principal)
        elif route.auth != "none":
            kind = principal and principal["kind"]
            if kind not in PRINCIPAL_KINDS[route.auth]:
                credential = "a JSON Web Token" if route.auth == JWT else "a token"
                raise Refusal("unauthorized", f"this path needs {credential}", CHALLENGE)
        if self.mode(route) != "none" or self._auth.identity.are_set:
            _check_rights(principal or {}, route)


def check_client(networks: ClientNetworks, remote: str | None) -> None:
    """Raise `Refusal("forbidden")` where clients of this address may not call.

    `remote` is as trusted proxies report it. IPv4 inside IPv6 counts as IPv4; of a client without an
    address nothing is known, so that it may call only where all may.
    """
    if not networks.allow and not networks.deny:
        return
    address = ip_address(remote or "")
    allowed = address is not None and (not networks.allow or _is_in(address, networks.allow))
    if address is None or not allowed or _is_in(address, networks.deny):
        raise Refusal("forbidden", "clients of this address may not call here")


def _is_in(address: IPAddress, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _check_rights(principal: Mapping[str, Any], route: Route) -> None:
    """Raise `insufficient_scope` (RFC 6750 section 3.1): all scopes are needed, and one group."""
    held = set(principal.get("scopes", ()))
    missing = [scope for scope in route.scopes if scope not in held]
    lacks_group = route.groups and not set(route.groups) & set(principal.get("groups", ()))
    if not missing and not lacks_group:
        return
    scope = f', scope="{" ".join(route.scopes)}"' if route.scopes else ""
    challenge = f'{CHALLENGE["WWW-Authenticate"]}, error="insufficient_scope"{scope}'
    lack = f"the token lacks the scopes {' '.join(missing)}" if missing else "you are in no group"
    message = f"{lack} that this path needs"
    raise Refusal("insufficient_scope", message, {"WWW-Authenticate": challenge})
