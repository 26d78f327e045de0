"""Who a user is, as an authenticating proxy tells it in headers: `--identity-headers`.

Only a trusted proxy may send them. From all others, and in other spellings from everyone, they are
removed before anything else sees the request: an upstream may believe them too. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.auth.principals import PROXY
from gateway.auth.trusted_proxies import Proxies
from gateway.settings import Settings

MAX_NAME_CHARS: Final = 255
MAX_GROUPS: Final = 64
"""Groups of a user that count; those behind them do not."""

_SEPARATORS: Final = re.compile(r"[,|]")
_NOT_IN_VARIABLES: Final = re.compile(r"[^a-z0-9]")
"""What CGI and its successors replace with `_`: they make one variable of `Remote-User` and
`Remote_User` (RFC 3875 section 4.1.18), and some of `Remote.User`."""


class IdentityHeaders:
    """Reads the headers that the settings name, and tells which headers must be removed."""

    def __init__(self, settings: Settings, proxies: Proxies) -> None:
        names = settings.identity_headers
        self._user = "" if names is None else names.user.lower()
        self.are_set = bool(self._user)
        """Whether the settings name any."""
        self._groups = "" if names is None or names.groups is None else names.groups.lower()
        self._names = frozenset({self._user, self._groups} - {""})
        self._variables = frozenset(map(_variable, self._names))
        self._lengths = frozenset(map(len, self._names))
        self._proxies = proxies

    def fault(self, peer: str | None, headers: Mapping[str, str]) -> str | None:
        """Return what is wrong with the headers of a trusted proxy, None for nothing.

        Two lines, or a list of users, mean that the proxy adds to what its client wrote.
        """
        given = [
            name.lower()
            for name, _ in headers.items()
            if len(name) in self._lengths and name.lower() in self._names
        ]
        if not given or not self._proxies.trusts(peer):
            return None
        if len(set(given)) < len(given):
            return "more than one identity header: the proxy must replace what its client sends"
        user = self._value(self._user, headers)
        if len(user) > MAX_NAME_CHARS or "," in user or not user.isprintable():
            return "the identity header has no valid name of a user"
        return None

    def removed(self, peer: str | None, headers: Mapping[str, str]) -> frozenset[str]:
        """Return the names of headers to remove, in lower case: those that do not count.

        Groups without a user do not count either.
        """
        alike = {name.lower() for name in headers if self._resembles(name)}
        if not alike:
            return frozenset()
        if self._proxies.trusts(peer) and self._value(self._user, headers):
            alike -= self._names
        return frozenset(alike)

    def principal(self, peer: str | None, headers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return `{"name", "kind", "groups"}`, None where no trusted proxy names a user."""
        if not self._user or not self._proxies.trusts(peer):
            return None
        name = self._value(self._user, headers)
        if not name or self.fault(peer, headers) is not None:
            return None
        return {"name": name, "kind": PROXY, "groups": _listed(self._value(self._groups, headers))}

    def _resembles(self, name: str) -> bool:
        return len(name) in self._lengths and _variable(name.lower()) in self._variables

    def _value(self, lowered: str, headers: Mapping[str, str]) -> str:
        return next((value.strip() for name, value in headers.items() if name.lower() == lowered), "")


def _variable(lowered: str) -> str:
    return _NOT_IN_VARIABLES.sub("_", lowered)


def _listed(text: str) -> list[str]:
    """Return the groups of a list with commas (Authelia, oauth2-proxy) or bars (authentik)."""
    words: Iterable[str] = (word.strip() for word in _SEPARATORS.split(text))
    groups = dict.fromkeys(
        word for word in words if word and len(word) <= MAX_NAME_CHARS and word.isprintable()
    )
    return list(groups)[:MAX_GROUPS]
