"""Verifies JSON Web Tokens.

Cheap checks come first: length, form, algorithm, issuer, then keys, signature, claims; no request of
a stranger makes the issuer busy. Verified tokens are cached for a minute by their SHA-256, with the
keys that verified them. Source: RFC 8725.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import jwt

from gateway.auth.jwt.claims import ClaimRequirements, InvalidToken, principal_of
from gateway.auth.jwt.issuer import Issuer
from gateway.auth.jwt.keys import KeySet
from gateway.domain.json_text import parse_json
from gateway.errors import Refusal
from gateway.settings import Settings
from gateway.settings.values import SIGNATURES
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.jwt")

JWT_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
MAX_TOKEN_CHARS: Final = 16384
MAX_CACHED: Final = 1000
CACHE_TTL: Final = 60.0

_TYPES: Final = frozenset({"jwt", "at+jwt"})
"""Accepted values of `typ`: a token for access, not one of the other kinds (RFC 8725 section 3.11)."""

_Verified = tuple[str, float, KeySet]
"""The principal as JSON (scripts may change the dict they get), expiry, and the keys used."""


class Verifier:
    """Verifies tokens of the one issuer. A context manager; belongs to one loop."""

    def __init__(
        self, settings: Settings, issuer: Issuer | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._issuer = issuer or Issuer(settings)
        self._expected = ClaimRequirements(settings)
        self._signatures = settings.signatures
        self._clock = clock
        self._cache: dict[bytes, _Verified] = {}
        self._jws = jwt.PyJWS(algorithms=list(SIGNATURES))

    async def __aenter__(self) -> Self:
        await self._issuer.__aenter__()
        self._issuer.fetch_in_background()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._issuer.__aexit__()

    @property
    def issuer(self) -> Issuer:
        """The issuer of the tokens."""
        return self._issuer

    @property
    def ready(self) -> bool:
        """Whether there are keys of the issuer."""
        return self._issuer.ready

    def cached_principal(self, token: str) -> dict[str, Any] | None:
        """Return the principal of a token that was verified lately, else None. Never waits."""
        name = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        verified = self._cache.get(name)
        if verified is None:
            return None
        text, until, keys = verified
        if self._clock() >= until or self._issuer.current is not keys:
            del self._cache[name]
            return None
        principal: dict[str, Any] = json.loads(text)
        return principal

    async def verify(self, token: str) -> dict[str, Any]:
        """Return the principal of a token.

        Raises Refusal `unauthorized` with the challenge of RFC 6750 section 3 where the token is
        rejected, `issuer_unavailable` where that cannot be decided now.
        """
        cached = self.cached_principal(token)
        if cached is not None:
            return cached
        try:
            claims, keys = await self.claims(token)
            principal = principal_of(claims)
        except InvalidToken as error:
            log.info("JSON Web Token rejected", extra=event("token.rejected", reason=error.reason))
            raise _refusal(error) from None
        self._store(token, principal, claims, keys)
        return principal

    async def claims(self, token: str) -> tuple[Mapping[str, Any], KeySet]:
        """Return the claims of a token that passes every check. Raises `InvalidToken`, `Refusal`."""
        if len(token) > MAX_TOKEN_CHARS:
            raise InvalidToken("length")
        if JWT_SHAPE.fullmatch(token) is None:
            raise InvalidToken("form")
        header, claims = self._decode(token)
        algorithm, kid = _header(header, self._signatures)
        self._expected.check(claims, self._clock())
        keys = await self._issuer.keys()
        if not keys.named(kid):
            keys = await self._issuer.renewed(keys)
        self._check_signature(token, algorithm, keys, kid)
        return claims, keys

    def _decode(self, token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Decode a token without verifying it. Raises `InvalidToken`."""
        try:
            decoded = self._jws.decode_complete(token, options={"verify_signature": False})
            claims = parse_json(decoded["payload"])
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise InvalidToken("form") from None
        if not isinstance(claims, dict):
            raise InvalidToken("form")
        return decoded["header"], claims

    def _check_signature(self, token: str, algorithm: str, keys: KeySet, kid: str | None) -> None:
        """Raise `InvalidToken` unless a key of this name, fit for the algorithm, signed the token."""
        named = keys.named(kid)
        if not named:
            raise InvalidToken("unknown key")
        for key in named:
            if algorithm not in key.algorithms:
                continue
            try:
                self._jws.decode_complete(token, key.public, [algorithm])
            except jwt.PyJWTError:
                continue
            return
        raise InvalidToken("signature")

    def _store(
        self, token: str, principal: Mapping[str, Any], claims: Mapping[str, Any], keys: KeySet
    ) -> None:
        until = min(self._expected.expiry_of(claims), self._clock() + CACHE_TTL)
        while len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[hashlib.sha256(token.encode()).digest()] = json.dumps(principal), until, keys


def _header(header: Mapping[str, Any], accepted: frozenset[str]) -> tuple[str, str | None]:
    """Return algorithm and key name of a header (RFC 7515 section 4). Raises `InvalidToken`."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in accepted:
        raise InvalidToken("algorithm")
    if "crit" in header:  # section 4.1.11: extensions that must be understood; none is
        raise InvalidToken("crit")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise InvalidToken("typ")
    if not isinstance(kid, str | None):
        raise InvalidToken("kid")
    return algorithm, kid


def _refusal(error: InvalidToken) -> Refusal:
    challenge = (
        f'Bearer realm="upload-gateway", error="invalid_token", error_description="{error.message}"'
    )
    return Refusal("unauthorized", error.message, {"WWW-Authenticate": challenge})
