"""The tokens, keys and JSON Web Tokens that a request presents in its headers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.auth.api_keys import KEY_PREFIX


def web_token(headers: Mapping[str, str]) -> str:
    """Return what may be a JSON Web Token, or nothing."""
    token = _credentials(headers.get("Authorization", ""))
    return "" if token.startswith(KEY_PREFIX) else token


def presented_tokens(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the tokens of every line: what one line hides, another must not let through."""
    for name, value in headers.items():
        key = name.lower()
        token = _credentials(value) if key == "authorization" else ""
        token = value.strip() if key == "x-auth-token" else token
        if token:
            yield token


def _credentials(value: str) -> str:
    """Return what follows `Bearer` in `Authorization` (RFC 6750 section 2.1), or nothing.

    A JSON Web Token may stand alone: pages made for Cognito and API Gateway send it so.
    """
    scheme, _, credentials = value.strip().partition(" ")
    if not credentials and scheme.count(".") == 2:
        return scheme
    return credentials.strip() if scheme.lower() == "bearer" else ""
