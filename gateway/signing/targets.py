"""Paths and queries of signed URLs, read and written in one spelling.

What is read here means the same to every other reader of the request, or it is refused: two spellings
that some server might tell apart are never treated as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from gateway.domain.grant import FIELD_PREFIX, PCHAR, QueryPairs, encode_path

MAX_FIELDS: Final = 100

_LOWER_PREFIX: Final = FIELD_PREFIX.lower()
_UNRESERVED: Final = re.compile(r"%(2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def decode_path(raw_path: str) -> str:
    """Return the path that `encode_path` was given to make `raw_path`.

    Other spellings are accepted where RFC 3986 section 6.2.2 calls them equivalent: `%7e` for `~`,
    escapes in small letters, bytes that should have been escaped. All else raises `ValueError`:
    `%2F` is no slash and `%3B` no semicolon, for servers may tell them apart.
    """
    path = _text(raw_path)
    if encode_path(path) != _normal(raw_path):
        raise ValueError("the path is written in another way than it was signed")
    return path


def _normal(raw: str) -> str:
    """Unreserved characters as they are, all escapes in capitals, nothing beyond ASCII."""
    plain = _UNRESERVED.sub(lambda escape: unquote(escape[0]), raw)
    capital = _ESCAPE.sub(lambda escape: escape[0].upper(), plain)
    return quote(capital.encode("utf-8", "surrogateescape"), safe=f"/%{PCHAR}")


def _text(raw: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise ValueError("a bad percent-escape")
    return unquote_to_bytes(raw.encode("utf-8", "surrogateescape")).decode()  # UnicodeError is one


def carries_signature(query: str) -> bool:
    """Tell whether a raw query has a field that only signed URLs have, in any spelling."""
    if _LOWER_PREFIX not in unquote(query).lower():
        return False
    return any(unquote(piece).lower().startswith(_LOWER_PREFIX) for piece in query.split("&"))


def read_query(query: str) -> tuple[dict[str, str], QueryPairs]:
    """Split a query into the signed URL's own fields and all others, these in order, decoded once.

    `+` is a blank, as in HTML forms and in `paths.parse_query`. Raises `ValueError` for an own field
    that stands twice or whose prefix is spelled differently, for empty pieces, bad escapes and
    what is not UTF-8.
    """
    own: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    pieces = query.split("&")
    if len(pieces) > MAX_FIELDS:
        raise ValueError("too many fields")
    for piece in pieces:
        if not piece:
            raise ValueError("an empty field")
        raw_name, _, raw_value = piece.partition("=")
        name, value = _text(raw_name.replace("+", " ")), _text(raw_value.replace("+", " "))
        if not name.lower().startswith(_LOWER_PREFIX):
            others.append((name, value))
            continue
        field = name.removeprefix(FIELD_PREFIX)
        if field == name or field in own:
            raise ValueError("a field that stands twice, or is spelled differently")
        own[field] = value
    return own, tuple(others)


def write_query(own: Iterable[tuple[str, str]], others: QueryPairs) -> str:
    """Return the query that `read_query` splits into these."""
    prefixed = ((FIELD_PREFIX + name, value) for name, value in own)
    pairs = (*others, *prefixed)
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
