"""Which media types are JSON, and which match a range (RFC 9110 section 8.3.1, RFC 6839 section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

JSON_TYPES: Final = frozenset({"application/json", "text/json"})
"""Media types of JSON, beside those that end with `+json`."""

ANY_TYPE: Final = "*/*"


def plain_type(content_type: str) -> str:
    """Return the media type of a Content-Type, in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(media_type: str) -> bool:
    """Tell whether bodies of a plain media type are JSON."""
    return media_type in JSON_TYPES or media_type.endswith("+json")


def matches_any(media_type: str, ranges: Iterable[str]) -> bool:
    """Tell whether a plain media type is one of `ranges`, such as `image/*` and `*/*`."""
    wide = f"{media_type.partition('/')[0]}/*"
    return any(each in {media_type, wide, ANY_TYPE} for each in ranges)
