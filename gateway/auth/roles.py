"""What a caller may do by default: operators everything, uploaders upload and see what is their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from gateway.auth.principals import API_KEY, CERTIFICATE, JWT, OIDC, PROXY
from gateway.domain.links import LINK
from gateway.errors import Refusal
from gateway.settings import Settings

CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="upload-gateway"'}

Role = Literal["operator", "uploader"]

OPERATOR: Final = "operator"
UPLOADER: Final = "uploader"

_OF_GROUPS: Final = frozenset({JWT, PROXY, OIDC})
"""Kinds of principals that are of many, and operators only by a group of `--jwt-operators`."""

_OF_ONE: Final = {API_KEY: "key", CERTIFICATE: "certificate"}
"""Kinds of principals that are never operators, in words."""


class Roles:
    """The default authorization, as the settings choose it: `mode` is `none`, `token` or `jwt`."""

    def __init__(self, settings: Settings) -> None:
        self.mode = settings.auth
        self._operators = frozenset(settings.jwt_operators)

    def authorize(self, principal: Mapping[str, Any] | None) -> None:
        """Apply the default authorization. Raises Refusal `unauthorized` (RFC 6750 section 3).

        A JSON Web Token is enough in mode `jwt` only; in mode `token` its sender is unknown.
        """
        if self.mode == "none" or (principal and (self.mode == JWT or principal["kind"] != JWT)):
            return
        kind = "a JSON Web Token" if self.mode == JWT else "a valid token or key"
        other = "" if self.mode == JWT else " or `X-Auth-Token: <token>`"
        raise Refusal(
            "unauthorized", f"{kind} is needed: send `Authorization: Bearer <token>`{other}", CHALLENGE
        )

    def operator(self, principal: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the principal of an operator, None where everyone may use operators' endpoints.

        Beyond the default authorization, the sender of a JSON Web Token, a person whom an issuer has
        signed in, and a user whom a proxy names, need one of the groups of `--jwt-operators`: they are
        of many. A key is no operator's, and no certificate where others need a credential. Raises
        Refusal `unauthorized` or `forbidden`.
        """
        self.authorize(principal)
        kind = None if principal is None else principal["kind"]
        if kind == API_KEY or (kind == CERTIFICATE and self.mode != "none"):
            what = _OF_ONE[kind]
            raise Refusal(
                "forbidden", f"this endpoint is for operators: a {what} is not enough, send a token"
            )
        if kind == LINK:
            raise Refusal("forbidden", "a link is for the files of its folder, and for nothing else")
        if principal is None or kind not in _OF_GROUPS:
            return principal
        if self._operators.intersection(principal["groups"]):
            return principal
        if kind == JWT and self.mode != JWT:
            return None
        raise Refusal(
            "forbidden",
            "this endpoint is for operators: send a known token, or be in a group of --jwt-operators",
        )

    def role(self, principal: Mapping[str, Any] | None) -> Role | None:
        """Return what a caller is by default: None where it must identify itself first."""
        try:
            self.operator(principal)
        except Refusal:
            kind = None if principal is None else principal["kind"]
            try:
                self.authorize(principal)
            except Refusal:
                return None
            return UPLOADER if kind in _OF_GROUPS or kind in _OF_ONE else None
        return OPERATOR
