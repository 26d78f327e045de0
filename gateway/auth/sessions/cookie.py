"""The session cookie of one gateway: its name, and taking it from the headers of a request.

It is taken away as soon as a request's head has arrived: nothing that reads headers afterwards (scripts,
upstreams, the journal, the log) can see it. Sources: RFC 6265bis sections 4.1.3 (prefixes), 5.8.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

_HOST_PREFIX: Final = "__Host-"
_SECURE_PREFIX: Final = "__Secure-"
_PENDING_SUFFIX: Final = "-sign-in"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")

MAX_PENDING_CHARS: Final = 4096


class CookieHeaders(CIMultiDictProxy[str]):
    """The headers of a request without our cookies, which only the authentication reads here.

    `session` is the secret of a session with the letter of its cookie, `pending` a sign-in with OpenID
    Connect that has begun, by whether its cookie needs HTTPS. A copy of the headers has neither.
    """

    session: str | None = None
    pending: Mapping[bool, str | None] = MappingProxyType({})


def session_of(headers: Mapping[str, str]) -> str | None:
    """Return the secret of the session that a request carries."""
    return headers.session if isinstance(headers, CookieHeaders) else None


def pending_of(headers: Mapping[str, str], *, secure: bool) -> str | None:
    """Return the pending sign-in that a request carries, over HTTPS (`secure`) or not.

    Over HTTPS a cookie that whoever is between could have set over HTTP counts for nothing.
    """
    return headers.pending.get(secure) if isinstance(headers, CookieHeaders) else None


class SessionCookie:
    """The cookie with this name. Cookies are not isolated by port: each gateway has a name of its own.

    Over HTTPS the name has a prefix, so that no page of another host can set it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def take(self, headers: CIMultiDictProxy[str]) -> CookieHeaders | None:
        """Return the headers without our cookies; None where there are none, which is cheap."""
        lines = headers.getall(hdrs.COOKIE, ())
        if not any(self._name in line for line in lines):
            return None
        values: dict[str, list[str]] = {}
        kept: CIMultiDict[str] = CIMultiDict()
        for name, value in headers.items():
            if name.lower() != "cookie" or self._name not in value:
                kept.add(name, value)
            elif rest := "; ".join(self._others(value, values)):
                kept.add(name, rest)
        bare = CookieHeaders(kept)
        bare.session = self._session(values)
        bare.pending = {
            secure: _single(values.get(self._pending_name(secure=secure), ()))
            for secure in (True, False)
        }
        return bare

    def _others(self, line: str, values: dict[str, list[str]]) -> Iterator[str]:
        """Yield the cookies of a line that are not ours; ours go into `values`, by name."""
        for pair in line.split(";"):
            name, _, value = pair.strip().partition("=")
            name = name.strip()
            bare = name.removeprefix(_HOST_PREFIX).removeprefix(_SECURE_PREFIX)
            if bare.lower().startswith(self._name):
                values.setdefault(name, []).append(value.strip())
            elif name:
                yield pair.strip()

    def _session(self, values: Mapping[str, list[str]]) -> str | None:
        """Return the secret. Of several, some may be set by someone else: none of them counts."""
        for secure in (True, False):
            secrets = values.get(self._session_name(secure=secure))
            if secrets is not None:
                secret = _single(secrets)
                valid = secret is not None and _SECRET.fullmatch(secret)
                return f"{'s' if secure else 'p'}{secret}" if valid else None
        return None

    def _session_name(self, *, secure: bool) -> str:
        return f"{_HOST_PREFIX}{self._name}" if secure else self._name

    def _pending_name(self, *, secure: bool) -> str:
        return f"{_SECURE_PREFIX if secure else ''}{self._name}{_PENDING_SUFFIX}"

    def issue(self, secret: str, max_age: float) -> str:
        """Return the `Set-Cookie` of a session. Its letter says whether the client speaks HTTPS."""
        secure = secret[0] == "s"
        name = self._session_name(secure=secure)
        return _set_cookie(name, secret[1:], "/", max_age, "Strict", secure=secure)

    def expire(self, *, secure: bool) -> str:
        """Return the `Set-Cookie` that removes it."""
        return _set_cookie(self._session_name(secure=secure), "", "/", 0, "Strict", secure=secure)

    def issue_pending(self, value: str, path: str, max_age: float, *, secure: bool) -> str:
        """Return the `Set-Cookie` of a pending sign-in: `Lax`, since the issuer's page leads back."""
        return _set_cookie(self._pending_name(secure=secure), value, path, max_age, "Lax", secure=secure)


def _single(values: list[str] | tuple[()]) -> str | None:
    return values[0] if len(values) == 1 and len(values[0]) <= MAX_PENDING_CHARS else None


def _set_cookie(
    name: str, value: str, path: str, max_age: float, same_site: str, *, secure: bool
) -> str:
    attributes = f"Path={path}; Max-Age={int(max_age)}; HttpOnly; SameSite={same_site}"
    return f"{name}={value}; {attributes}{'; Secure' if secure else ''}"
