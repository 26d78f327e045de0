"""JSON Web Tokens: what the claims of a token must say, and the principal that they make.

The rule: a claim that is there is of its right type, or the token is not believed; what a client is
told never says which value would have been right. Pure. Sources: RFC 7519 section 4.1, RFC 8725
section 3, RFC 9068 section 2.2, Amazon Cognito's token reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.settings import Settings

MAX_NAME_CHARS: Final = 255
MAX_PRINCIPAL_CHARS: Final = 6144
"""Characters of a principal that is written down whole with an upload."""

MAX_WORDS: Final = 64

_SUBJECTS: Final = ("sub", "username", "cognito:username", "client_id")
_SCOPES: Final = ("scope", "scp")
_GROUPS: Final = ("cognito:groups", "groups", "roles")
_ALWAYS_KEPT: Final = ("iss", "sub", "aud", "client_id", "token_use", "iat", "exp", "jti")
_TIMES: Final = ("exp", "nbf", "iat")


class InvalidToken(Exception):
    """A token is not believed. `reason` is a word for the log, `told` a sentence for the client."""

    def __init__(self, reason: str, told: str = "the token is not accepted here") -> None:
        super().__init__(reason)
        self.reason = reason
        self.told = told


class ClaimRequirements:
    """What the settings ask of every token, the signature aside."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = frozenset(settings.jwt_audience)
        self._clients = frozenset(settings.jwt_client_ids)
        self._use = settings.jwt_token_use
        self._leeway = settings.jwt_leeway

    def comes_from_us(self, claims: Mapping[str, Any]) -> bool:
        """Tell whether the token says that it is of our issuer (RFC 8725 section 3.8)."""
        return self._issuer is not None and claims.get("iss") == self._issuer

    def check(self, claims: Mapping[str, Any], now: float) -> None:
        """Judge the claims at this Unix time. Raises BadToken."""
        if not self.comes_from_us(claims):
            raise InvalidToken("issuer")
        self._check_times(claims, now)
        self._check_audience(claims)
        if self._use != "any" and claims.get("token_use") != self._use:
            raise InvalidToken("token_use")

    def ends(self, claims: Mapping[str, Any]) -> float:
        """Return the Unix time from which on the token is no longer believed."""
        return float(claims["exp"]) + self._leeway

    def _check_times(self, claims: Mapping[str, Any], now: float) -> None:
        for name in _TIMES:
            if name in claims and not _is_time(claims[name]):
                raise InvalidToken(name)
        if "exp" not in claims:
            raise InvalidToken("exp")
        if now >= self.ends(claims):
            raise InvalidToken("expired", "the token has expired")
        if max(claims.get("nbf", 0), claims.get("iat", 0)) > now + self._leeway:
            raise InvalidToken("too early", "the token is not valid yet")

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        """Cognito's access tokens have no `aud`: there the client that they were given to counts."""
        if "aud" in claims:
            meant = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
            fits = any(isinstance(one, str) and one in self._audience for one in meant)
        else:
            client = claims.get("client_id")
            fits = isinstance(client, str) and client in self._clients
        if not fits:
            raise InvalidToken("audience")


def principal_of(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"name", "kind", "claims", "scopes", "groups"}`. Raises BadToken where nobody is named."""
    try:
        json.dumps(claims, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # half a character, no number: nowhere to be written down
        raise InvalidToken("unwritable") from None
    named = (claims[key] for key in _SUBJECTS if claims.get(key))
    name = next(named, None)
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS:
        raise InvalidToken("subject")
    return {
        "name": name,
        "kind": "jwt",
        "claims": dict(claims),
        "scopes": _words(claims, _SCOPES, " "),
        "groups": _words(claims, _GROUPS, None),
    }


def truncated_principal(principal: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what is written down of a principal: of one with very much to say only the core."""
    claims = (principal or {}).get("claims")
    if principal is None or claims is None or len(json.dumps(principal)) <= MAX_PRINCIPAL_CHARS:
        return principal
    few = {
        name: claims[name]
        for name in _ALWAYS_KEPT
        if name in claims and len(str(claims[name])) <= MAX_NAME_CHARS
    }
    words = {
        name: [word for word in principal[name] if len(word) <= MAX_NAME_CHARS][:MAX_WORDS]
        for name in ("scopes", "groups")
    }
    return {**principal, "claims": few, **words}


def _is_time(value: object) -> bool:
    """A NumericDate (RFC 7519 section 2) within the years that a clock may show."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11


def _words(claims: Mapping[str, Any], names: Iterable[str], blank: str | None) -> list[str]:
    """Gather words from claims: lists, single words, or texts that hold several between blanks.

    Scopes have blanks between them (RFC 6749 section 3.3); the name of a group may have one inside.
    """
    found: dict[str, None] = {}
    for name in names:
        value = claims.get(name)
        if isinstance(value, str):
            value = value.split(blank) if blank else [value]
        for word in value if isinstance(value, list) else ():
            if isinstance(word, str) and word:
                found[word] = None
    return list(found)
