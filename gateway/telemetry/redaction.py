"""Redaction of secrets in logs, the journal and status pages. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote

REDACTED: Final = "[redacted]"

INTERNAL_HEADER: Final = "X-Gateway-Internal"
"""Carries the credential of a call between gateways of one installation; only `auth` reads it."""

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

SECRET_QUERY_NAMES: Final = frozenset({"signature", "token", "access_token", "sig", "upload"})
"""`upload` has the secret of a resumable upload."""

MIN_LINE_LENGTH: Final = 16
"""Characters of a line of a secret, such as a private key, that is masked by itself."""

_SIGNED: Final = re.compile(
    rf"([?&](?:{'|'.join(SECRET_QUERY_PREFIXES)})[^=&?\s]*=)[^&\s\"'<>#]+", re.IGNORECASE
)
"""A value of a signed URL's query within any text. A name ends before the next one begins: the search
must not take time quadratic in the length of a header."""

MIN_SECRET_LENGTH: Final = 4
"""Shorter values are not masked in texts: they would mask ordinary words."""

_WORDS: Final = re.compile(r"[^\s;,=]{8,}=*")
"""Parts of `Bearer <token>` or `a=<value>; b=<value>` that may be secrets by themselves."""

MIN_WORDS_LENGTH: Final = 16
_PLAIN_WORDS: Final = re.compile(r"[A-Za-z_ .:-]*")
"""A shorter value of nothing but words is no secret: a client could blank words of the log with it."""

MAX_HIDDEN: Final = 2000
"""Texts of one request that are masked, which is all that 32 KiB of headers can have. To look for so
many takes 0.2 to 2 ms a line, one by one; a pattern of all takes 75 ms to compile and 6 ms a line."""

MAX_SECRETS: Final = 10_000
"""Texts that a mask keeps; rotated secrets stay, since running handlers may still use them."""


class Mask:
    """Replaces known secrets in texts. Thread-safe, also while secrets are added."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None
        self.add_secrets(secrets)

    def __repr__(self) -> str:
        return f"<Mask of {len(self._forms)} texts>"

    def __call__(self, text: str) -> str:
        """Return `text` with `[redacted]` for every secret, plain or in a usual quotation."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(REDACTED, text)

    def add_secrets(self, secrets: Iterable[str]) -> None:
        """Mask these secrets too. Values under 4 characters are ignored."""
        new = {form: None for secret in secrets for form in _forms(secret)}
        if new.keys() <= self._forms.keys():
            return
        self._forms = dict(list({**self._forms, **new}.items())[-MAX_SECRETS:])
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms of a secret: plain, quoted by Python, JSON or a URL, and its long lines."""
    quoted = (repr(secret)[1:-1], repr(secret.encode("utf-8", "surrogateescape"))[2:-1])
    url = (quote(secret, safe="", errors="replace"), quote(secret, errors="replace"))
    lines = (line for line in secret.splitlines() if len(line) >= MIN_LINE_LENGTH)
    for form in (secret, *quoted, json.dumps(secret)[1:-1], *url, *lines):
        if len(form) >= MIN_SECRET_LENGTH:
            yield form


class Redaction:
    """Redacts secret headers and query values: the fixed ones and those of the settings."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._headers = SECRET_HEADERS | {name.lower() for name in extra}

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return a copy of `headers` with every secret value replaced by `[redacted]`.

        Signatures of URLs too: proxies repeat URLs in their own headers, browsers in `Referer`.
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
        """Return the secrets of a request, longest first, to mask them in its log lines.

        Of a header that is the whole value, and its long words. `query` is the raw query of the request
        target. What has under 16 characters and is plain words is left out.
        """
        secrets = {query_value for name, query_value in parse_qsl(query) if self._is_secret_query(name)}
        for name, value in headers.items():
            if name.lower() in self._headers:
                secrets |= {value, *_WORDS.findall(value)}
        return sorted(filter(_may_be_secret, secrets), key=len, reverse=True)[:MAX_HIDDEN]

    def _is_secret_query(self, name: str) -> bool:
        lowered = name.lower()
        return (
            lowered in SECRET_QUERY_NAMES
            or lowered in self._headers
            or lowered.startswith(SECRET_QUERY_PREFIXES)
        )


def _may_be_secret(text: str) -> bool:
    if len(text) >= MIN_WORDS_LENGTH:
        return True
    return len(text) >= MIN_SECRET_LENGTH and not _PLAIN_WORDS.fullmatch(text)


def _without_signatures(text: str) -> str:
    return _SIGNED.sub(rf"\1{REDACTED}", text) if "=" in text else text
