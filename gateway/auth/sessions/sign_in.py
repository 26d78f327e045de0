"""Signing in with what a person pastes: a token, an API key, a JSON Web Token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from gateway.auth.api_keys import KEY_PREFIX, ApiKeys
from gateway.auth.jwt.claims import truncated_principal
from gateway.auth.principals import API_KEY, JWT, TOKEN
from gateway.auth.roles import CHALLENGE
from gateway.auth.sessions.session import SessionHolder
from gateway.auth.tokens import AcceptedTokens, token_digest
from gateway.errors import Refusal
from gateway.limits import FixedWindowCounters, client_network
from gateway.settings import Settings

MAX_FAILURES: Final = 10
FAILURE_WINDOW: Final = 60.0
"""Failed sign-ins of one client in that many seconds, over all processes."""

MAX_TOKEN_CHARS: Final = 16_384


class VerifiesTokens(Protocol):
    """Verifies JSON Web Tokens."""

    async def verify(self, token: str) -> dict[str, Any]:
        """Return the principal of a token. Raises `Refusal`."""


class SignedIn(NamedTuple):
    """Who signs in, and until when at most (Unix time)."""

    holder: SessionHolder
    end: float = float("inf")


class FailureLimit:
    """Limits failed sign-ins, by the network of the client's address."""

    def __init__(self, counters: FixedWindowCounters) -> None:
        self._counters = counters

    def check(self, address: str | None) -> None:
        """Raise `Refusal("too_many_requests")` for a client that has failed too often."""
        count, seconds = self._counters.read(_key(address))
        if count >= MAX_FAILURES:
            headers = {"Retry-After": str(max(math.ceil(seconds), 1))}
            raise Refusal("too_many_requests", "too many sign-ins have failed: try again later", headers)

    def count(self, address: str | None) -> None:
        """Count a failed sign-in."""
        self._counters.increment(_key(address), FAILURE_WINDOW)


class SignIn:
    """Finds out whose a token is, as a request with it would. `verifier` is there in mode `jwt` only."""

    def __init__(
        self,
        settings: Settings,
        tokens: AcceptedTokens,
        keys: ApiKeys,
        limit: FailureLimit,
        verifier: VerifiesTokens | None,
    ) -> None:
        self._issuer = settings.jwt_issuer or ""
        self._tokens = tokens
        self._keys = keys
        self._limit = limit
        self._verifier = verifier if settings.auth == JWT else None

    async def holder_of(self, token: str, address: str | None) -> SignedIn:
        """Return whose a token is, by the address of the client that sends it.

        Raises Refusal: `unauthorized`, `too_many_requests`; `issuer_unavailable`.
        """
        self._limit.check(address)
        try:
            return await self._find(token)
        except Refusal as refusal:
            if refusal.status == 401:
                self._limit.count(address)
            raise

    async def _find(self, token: str) -> SignedIn:
        if len(token) <= MAX_TOKEN_CHARS:
            digest = token_digest(token)
            if token.startswith(KEY_PREFIX):
                key = self._keys.find_digest(digest)
                if key is not None:
                    return SignedIn(
                        SessionHolder(API_KEY, key.name, "{}", digest), key.expires or float("inf")
                    )
            elif (accepted := self._tokens.find_digest(digest)) is not None:
                named = {"name": accepted.name, "kind": TOKEN}
                return SignedIn(_holder(named, accepted.sha256))
            elif self._verifier is not None:
                principal = await self._verifier.verify(token)
                return SignedIn(_holder(principal, self._issuer), principal["claims"]["exp"])
        what = "token, key or JSON Web Token" if self._verifier is not None else "token or key"
        raise Refusal("unauthorized", f"this {what} is not valid here", CHALLENGE)


def _holder(principal: Mapping[str, Any], source: str) -> SessionHolder:
    text = json.dumps(truncated_principal(dict(principal)))
    return SessionHolder(principal["kind"], principal["name"], text, source)


def _key(address: str | None) -> tuple[str, str]:
    return "sign-in", client_network(address or "")
