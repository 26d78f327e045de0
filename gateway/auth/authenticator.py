"""Authenticates requests and applies the default authorization.

A token is compared as a SHA-256 with every known token in constant time; it is never stored, logged or
quoted. JSON Web Tokens count only where the settings name an issuer.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from gateway.auth.installation import Installation
from gateway.auth.local_only import LocalOnly
from gateway.auth.request import Caller, IncomingRequest
from gateway.auth.tokens import token_digest
from gateway.auth.trusted_proxies import Proxies
from gateway.domain.grant import Grant
from gateway.errors import Refusal
from gateway.limits import client_key
from gateway.settings import Settings, Token
from gateway.signing.targets import carries_signature
from gateway.signing.urls import reject_mismatch
from gateway.telemetry.redaction import INTERNAL_HEADER

CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="upload-gateway"'}

INTERNAL: Final = {"name": "internal", "kind": "internal"}
"""The principal of a request that a gateway of this installation made."""

JWT: Final = "jwt"
"""The kind of principal, and the mode, of JSON Web Tokens."""

SIGNED: Final = {"name": "signed url", "kind": "signed"}
"""The principal of a request whose URL was signed for it."""

Verify = Callable[[str], Awaitable[dict[str, Any]]]
"""Returns the principal of a JSON Web Token. May wait. Raises Refusal: `unauthorized` where it is
not accepted, another code where that cannot be decided now."""


class Auth:
    """The default authorization, as the settings choose it."""

    def __init__(
        self,
        settings: Settings,
        tokens: Sequence[Token],
        installation: Installation | None = None,
        verify: Verify | None = None,
    ) -> None:
        self._installation = installation
        self._verify = verify
        self.mode = settings.auth
        """`none`, `token` or `jwt`: who authorizes where no handler does."""
        self.local_only = LocalOnly(settings)
        self.proxies = Proxies(settings.trusted_proxies)
        self._tokens = tuple(tokens)
        self._operators = frozenset(settings.jwt_operators)

    async def authenticate(self, incoming: IncomingRequest, *, jwt: bool = False) -> Caller:
        """Return who sends a request, in every mode. The first call decides, later calls repeat it.

        A signed URL comes first. Then a known token in `Authorization: Bearer T` (RFC 6750 section
        2.1) or `X-Auth-Token: T`, then a JSON Web Token in the former, then the internal credential
        of a gateway of this installation, which is valid for exactly one method and target. The
        token precedes the credential: a script that passes on its user's token acts for that user.

        With `jwt` a JSON Web Token that is not accepted is refused with the reason (Refusal
        `unauthorized`), else its sender is unknown. Waits, and raises `issuer_unavailable`, only
        where the issuer's keys are not here. Raises Refusal (403) for a signature that is not valid
        for exactly this request: `bad_signature`, `expired`, `not_granted`.
        """
        if incoming.caller is None:
            incoming.caller = await self._caller(incoming)
        caller = incoming.caller
        if jwt and caller.principal is None and caller.rejected is not None:
            raise caller.rejected
        return caller

    def client_of(self, incoming: IncomingRequest) -> str:
        """Return the client that a request counts for; until it is authenticated that is its address."""
        request = incoming.request
        principal = None if incoming.caller is None else incoming.caller.principal
        return client_key(principal, self.proxies.client_address(request.remote, request.headers))

    async def _caller(self, incoming: IncomingRequest) -> Caller:
        request = incoming.request
        grant = self._verified_grant(incoming)
        if grant is not None:
            return Caller(dict(SIGNED), grant)
        principal = self._bearer(request.headers) if self._tokens else None
        rejected = None
        if principal is None and self._verify is not None:
            principal, rejected = await self._verified(request.headers, self._verify)
        return Caller(principal or self._peer(request), None, rejected)

    def _verified_grant(self, incoming: IncomingRequest) -> Grant | None:
        """Return what the URL of a request was signed for, None where it has no signature."""
        if not incoming.raw_query or not carries_signature(incoming.raw_query):
            return None
        if self._installation is None:
            raise Refusal("bad_signature", "signed URLs are not accepted here")
        request = incoming.request
        grant = self._installation.urls.verify(request.method, incoming.raw_path, incoming.raw_query)
        reject_mismatch(grant, request.headers)
        return grant

    async def _verified(
        self, headers: Mapping[str, str], verify: Verify
    ) -> tuple[dict[str, Any] | None, Refusal | None]:
        token = _credentials(headers.get("Authorization", ""))
        if not token:
            return None, None
        try:
            return await verify(token), None
        except Refusal as refusal:
            if refusal.code != "unauthorized":
                raise
            return None, refusal

    def holds_token(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a line of these headers has a known token, which belongs to us alone."""
        return self._bearer(headers) is not None

    def _peer(self, request: web.BaseRequest) -> dict[str, Any] | None:
        credential = request.headers.get(INTERNAL_HEADER)
        if credential is None or self._installation is None:
            return None
        genuine = self._installation.verify_credential(credential, request.method, request.raw_path)
        return dict(INTERNAL) if genuine else None

    def _bearer(self, headers: Mapping[str, str]) -> dict[str, Any] | None:
        matching: Token | None = None
        for digest in map(token_digest, _presented_tokens(headers)):
            for token in self._tokens:  # all of them: the time taken must not tell which one matches
                if hmac.compare_digest(digest, token.sha256):
                    matching = token
        return None if matching is None else {"name": matching.name, "kind": "token"}

    def authorize(self, principal: Mapping[str, Any] | None) -> None:
        """Apply the default authorization. Raises Refusal `unauthorized` (RFC 6750 section 3).

        A JSON Web Token is enough in mode `jwt` only; in mode `token` its sender is unknown.
        """
        if self.mode == "none" or (principal and (self.mode == JWT or principal["kind"] != JWT)):
            return
        kind = "a JSON Web Token" if self.mode == JWT else "a token"
        other = "" if self.mode == JWT else " or `X-Auth-Token: <token>`"
        raise Refusal(
            "unauthorized", f"{kind} is needed: send `Authorization: Bearer <token>`{other}", CHALLENGE
        )

    def operator(self, principal: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the principal of an operator, None where everyone may use operators' endpoints.

        Beyond the default authorization, the sender of a JSON Web Token needs one of the groups of
        `--jwt-operators`: it is one of many users. Raises Refusal `unauthorized` or `forbidden`.
        """
        self.authorize(principal)
        if principal is None or principal["kind"] != JWT:
            return principal
        if self._operators.intersection(principal["groups"]):
            return principal
        if self.mode != JWT:
            return None
        raise Refusal(
            "forbidden",
            "this endpoint is for operators: send a known token, or a JSON Web Token with a group of"
            " --jwt-operators",
        )


def _credentials(value: str) -> str:
    """Return what follows `Bearer` in `Authorization` (RFC 6750 section 2.1), or nothing.

    A JSON Web Token may stand alone: pages made for Cognito and API Gateway send it so.
    """
    scheme, _, credentials = value.strip().partition(" ")
    if not credentials and scheme.count(".") == 2:
        return scheme
    return credentials.strip() if scheme.lower() == "bearer" else ""


def _presented_tokens(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the tokens of every line: what one line hides, another must not let through."""
    for name, value in headers.items():
        key = name.lower()
        token = _credentials(value) if key == "authorization" else ""
        token = value.strip() if key == "x-auth-token" else token
        if token:
            yield token
