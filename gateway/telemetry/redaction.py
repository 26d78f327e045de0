"""What must never be written down, in logs, the journal or a status page.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote

REDACTED: Final = "[redacted]"

INTERNAL_HEADER: Final = "X-Gateway-Internal"
"""Carries the credential of a call between gateways of one installation: for `auth` alone."""

SECRET_HEADERS: Final = frozenset(
    {
        "x-gateway-internal",
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

LONG_LINE: Final = 16
"""Characters from which on one line of a secret, such as that of a private key, is one by itself."""

_SIGNED: Final = re.compile(
    rf"([?&](?:{'|'.join(SECRET_QUERY_PREFIXES)})[^=&?\s]*=)[^&\s\"'<>#]+", re.IGNORECASE
)
"""A value of a signed URL's query, wherever that URL stands. No name goes on past the beginning of the
next one: looking through a header must not cost the square of its length."""

SHORTEST_SECRET: Final = 4
"""Shorter values are not masked in texts: they would blot out ordinary words."""

_WORDS: Final = re.compile(r"[^\s;,=]{8,}=*")
"""What may be a secret by itself in `Bearer <token>` or `a=<value>; b=<value>`."""

MOST_SECRETS: Final = 10_000
"""Texts that a mask remembers; rotated ones are kept, for old runs may still hold them."""


class Mask:
    """Takes known secrets out of texts. Any thread may call it while another one teaches it."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None
        self.learn(secrets)

    def __repr__(self) -> str:
        return f"<Mask of {len(self._forms)} texts>"

    def __call__(self, text: str) -> str:
        """Return `text` with `[redacted]` for every secret in it, as it is or in a usual quotation."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(REDACTED, text)

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask these too, from now on. Values under 4 characters are left out."""
        new = {form: None for secret in secrets for form in _forms(secret)}
        if new.keys() <= self._forms.keys():
            return
        self._forms = dict(list({**self._forms, **new}.items())[-MOST_SECRETS:])
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may stand in a text: quoted by Python, JSON or a URL, or a long line of it."""
    quoted = (repr(secret)[1:-1], repr(secret.encode("utf-8", "surrogateescape"))[2:-1])
    url = (quote(secret, safe="", errors="replace"), quote(secret, errors="replace"))
    lines = (line for line in secret.splitlines() if len(line) >= LONG_LINE)
    for form in (secret, *quoted, json.dumps(secret)[1:-1], *url, *lines):
        if len(form) >= SHORTEST_SECRET:
            yield form


class Redaction:
    """Knows which headers and query values are secret: the fixed ones and those the operator named."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._headers = SECRET_HEADERS | {name.lower() for name in extra}

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return a copy of `headers` with every secret value replaced by `[redacted]`.

        That of a URL too: proxies repeat it in headers of their own, browsers in `Referer`.
        """
        return {
            name: REDACTED if name.lower() in self._headers else _without_signatures(value)
            for name, value in headers.items()
        }

    def params(self, params: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Return a copy of query `params` with every secret value replaced by `[redacted]`."""
        return {
            name: [REDACTED] * len(values) if self._is_secret_query(name) else list(values)
            for name, values in params.items()
        }

    def values(self, headers: Mapping[str, str], query: str = "") -> list[str]:
        """Return the secrets that a request carries, longest first: to keep them out of its log lines.

        `query` is what stands behind the question mark, as sent.
        """
        found = {query_value for name, query_value in parse_qsl(query) if self._is_secret_query(name)}
        for name, value in headers.items():
            if name.lower() in self._headers:
                found |= {value, *_WORDS.findall(value)}
        return sorted((one for one in found if len(one) >= SHORTEST_SECRET), key=len, reverse=True)

    def _is_secret_query(self, name: str) -> bool:
        lowered = name.lower()
        return (
            lowered in SECRET_QUERY_NAMES
            or lowered in self._headers
            or lowered.startswith(SECRET_QUERY_PREFIXES)
        )


def _without_signatures(text: str) -> str:
    return _SIGNED.sub(rf"\1{REDACTED}", text) if "=" in text else text
