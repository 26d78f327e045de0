"""Checks the claims of a JSON Web Token and makes the principal of them. Pure.

A claim that is present has the right type, or the token is rejected; the client is never told which
value would have been right. Sources: RFC 7519 section 4.1, RFC 8725 section 3, RFC 9068 section 2.2,
Amazon Cognito's token reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.settings import Settings

MAX_NAME_CHARS: Final = 255
MAX_PRINCIPAL_CHARS: Final = 6144
"""JSON characters of a principal that is stored whole with an upload."""

MAX_WORDS: Final = 64

_SUBJECTS: Final = ("sub", "username", "cognito:username", "client_id")
_SCOPES: Final = ("scope", "scp")
_GROUPS: Final = ("cognito:groups", "groups", "roles")
_CORE_CLAIMS: Final = ("iss", "sub", "aud", "client_id", "token_use", "iat", "exp", "jti")
_TIMES: Final = ("exp", "nbf", "iat")


class InvalidToken(Exception):
    """A token is rejected. `reason` is a word for the log, `message` a sentence for the client."""

    def __init__(self, reason: str, message: str = "the token is not accepted here") -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message


class ClaimRequirements:
    """What the settings require of every token, beside the signature."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = frozenset(settings.jwt_audience)
        self._clients = frozenset(settings.jwt_client_ids)
        self._use = settings.jwt_token_use
        self._leeway = settings.jwt_leeway

    def check(self, claims: Mapping[str, Any], now: float) -> None:
        """Check the claims at this Unix time. Raises `InvalidToken`."""
        if self._issuer is None or claims.get("iss") != self._issuer:  # RFC 8725 section 3.8
            raise InvalidToken("issuer")
        self._check_times(claims, now)
        self._check_audience(claims)
        if self._use != "any" and claims.get("token_use") != self._use:
            raise InvalidToken("token_use")

    def expiry_of(self, claims: Mapping[str, Any]) -> float:
        """Return the Unix time from which on the token is rejected."""
        return float(claims["exp"]) + self._leeway

    def _check_times(self, claims: Mapping[str, Any], now: float) -> None:
        for name in _TIMES:
            if name in claims and not _is_time(claims[name]):
                raise InvalidToken(name)
        if "exp" not in claims:
            raise InvalidToken("exp")
        if now >= self.expiry_of(claims):
            raise InvalidToken("expired", "the token has expired")
        if max(claims.get("nbf", 0), claims.get("iat", 0)) > now + self._leeway:
            raise InvalidToken("too early", "the token is not valid yet")

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        """Check `aud`, or the client of Cognito's access tokens, which have no `aud`."""
        if "aud" in claims:
            audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
            accepted = any(isinstance(name, str) and name in self._audience for name in audiences)
        else:
            client = claims.get("client_id")
            accepted = isinstance(client, str) and client in self._clients
        if not accepted:
            raise InvalidToken("audience")


def principal_of(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"name", "kind", "claims", "scopes", "groups"}`. Raises `InvalidToken` without a name."""
    try:
        json.dumps(claims, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # half a character or NaN: cannot be stored
        raise InvalidToken("unwritable") from None
    name = next((claims[key] for key in _SUBJECTS if claims.get(key)), None)
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS:
        raise InvalidToken("subject")
    return {
        "name": name,
        "kind": "jwt",
        "claims": dict(claims),
        "scopes": _words(claims, _SCOPES, " "),
        "groups": groups_of(claims),
    }


def groups_of(claims: Mapping[str, Any]) -> list[str]:
    """Return the groups that claims name."""
    return _words(claims, _GROUPS, None)


def truncated_principal(principal: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what is stored of a principal: of a very long one the core claims only."""
    claims = (principal or {}).get("claims")
    if principal is None or claims is None or len(json.dumps(principal)) <= MAX_PRINCIPAL_CHARS:
        return principal
    core = {
        name: claims[name]
        for name in _CORE_CLAIMS
        if name in claims and len(str(claims[name])) <= MAX_NAME_CHARS
    }
    words = {
        name: [word for word in principal[name] if len(word) <= MAX_NAME_CHARS][:MAX_WORDS]
        for name in ("scopes", "groups")
    }
    return {**principal, "claims": core, **words}


def _is_time(value: object) -> bool:
    """Tell whether a value is a NumericDate (RFC 7519 section 2) of a plausible year."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11


def _words(claims: Mapping[str, Any], names: Iterable[str], blank: str | None) -> list[str]:
    """Return the words of claims: lists, single words, or several separated by blanks.

    Scopes are separated by blanks (RFC 6749 section 3.3); the name of a group may contain one.
    """
    words: dict[str, None] = {}
    for name in names:
        value = claims.get(name)
        if isinstance(value, str):
            value = value.split(blank) if blank else [value]
        for word in value if isinstance(value, list) else ():
            if isinstance(word, str) and word:
                words[word] = None
    return list(words)
