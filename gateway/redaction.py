"""Foundation: what must never be written down, in logs, the journal or a status page.

Pure. May import the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

REDACTED: Final = "[redacted]"

SECRET_HEADERS: Final = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-auth-token",
        "x-api-key",
    }
)
SECRET_QUERY_PREFIXES: Final = ("x-gateway-", "x-amz-")
"""Signed URLs carry their signature and credential under these query names."""

SECRET_QUERY_NAMES: Final = frozenset({"signature", "token", "access_token", "sig"})


class Redaction:
    """Knows which headers and query values are secret: the fixed ones and those the operator named."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._headers = SECRET_HEADERS | {name.lower() for name in extra}

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return a copy of `headers` with every secret value replaced by `[redacted]`."""
        return {
            name: REDACTED if name.lower() in self._headers else value for name, value in headers.items()
        }

    def params(self, params: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Return a copy of query `params` with every secret value replaced by `[redacted]`."""
        return {
            name: [REDACTED] * len(values) if self._is_secret_query(name) else list(values)
            for name, values in params.items()
        }

    def _is_secret_query(self, name: str) -> bool:
        lowered = name.lower()
        return (
            lowered in SECRET_QUERY_NAMES
            or lowered in self._headers
            or lowered.startswith(SECRET_QUERY_PREFIXES)
        )
