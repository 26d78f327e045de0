"""Valid names, keys and items, and the fields that can be indexed.

What passes here comes back the same from every store, and sorts the same. Pure.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final

Value = float | str
"""What an index sorts by: numbers as doubles, then texts by code point."""

MAX_KEY: Final = 1024
"""Bytes of a key in UTF-8."""

MAX_ITEM: Final = 256 * 1024
"""Bytes of an item as JSON in UTF-8."""

MAX_DEPTH: Final = 64
"""Levels of lists and mappings in an item."""

MAX_TEXT: Final = 1000
"""Bytes of a text that is in an index; PostgreSQL takes 2,704 for a whole row of one."""

INTERNAL: Final = "gateway."
"""Collections whose names begin like this are the gateway's own."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_MAX_INT: Final = 2**63


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """An item ready to be stored: its key, its JSON, and the values of its fields that can be sorted."""

    key: str
    text: str
    values: dict[str, Value]


def checked_name(name: object) -> str:
    """Return the valid name of a collection. Raises `ValueError`."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise ValueError(
        f"records({name!r}): a collection is named by 1 to 64 letters, digits and . _ - that begin "
        "with a letter or digit"
    )


def checked_field(name: object) -> str:
    """Return the valid name of a field to sort by. Raises `ValueError`."""
    if name == "key":
        raise ValueError("index='key': items are sorted by key where no index is named")
    if isinstance(name, str) and _FIELD.fullmatch(name):
        return name
    raise ValueError(
        f"index={name!r}: it is the name of a top-level field, of 1 to 64 letters, digits, _ and -"
    )


def checked_key(key: object) -> str:
    """Return a valid key. Raises `ValueError`."""
    if not isinstance(key, str):
        raise ValueError(f"a key is a text, not {type(key).__name__}")
    if not 1 <= len(_utf8(key, "the key")) <= MAX_KEY:
        raise ValueError(f"a key has 1 to {MAX_KEY} bytes, not {len(key.encode())}")
    return key


def pack(key: object, item: object) -> EncodedItem:
    """Check a key and an item (a mapping of JSON values) and return them ready to be stored.

    A field `key` may only repeat the key: queries add it. Integers beyond 64 bits, NaN and the
    infinities are refused: not every reader of JSON takes them. Raises `ValueError`.
    """
    key = checked_key(key)
    if not isinstance(item, dict):
        raise ValueError(f"an item is a mapping, not {type(item).__name__}")
    if item.get("key", key) != key:
        raise ValueError("the field `key` of an item holds its key and nothing else")
    _check_value(item, 0)
    kept = {name: value for name, value in item.items() if name != "key"}
    text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MAX_ITEM:
        raise ValueError(f"an item has at most {MAX_ITEM} bytes as JSON, not {len(text.encode())}")
    return EncodedItem(key, text, values(kept))


def unpack(key: str, text: str) -> dict[str, Any]:
    """Return a stored item as a script sees it: with its key under `key`."""
    item: dict[str, Any] = json.loads(text)
    item["key"] = key
    return item


def values(item: dict[str, Any]) -> dict[str, Value]:
    """Return the fields of an item that an index could hold, with what it would sort them by."""
    fields = ((name, value_of(value)) for name, value in item.items())
    return {name: value for name, value in fields if value is not None}


def value_of(value: object) -> Value | None:
    """Return what a field sorts by, or None for what is in no index (true, null, lists, long texts)."""
    if isinstance(value, str):
        return value if len(value.encode()) <= MAX_TEXT else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def _check_value(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"an item has at most {MAX_DEPTH} levels")
    if isinstance(value, str):
        _utf8(value, "a text of an item")
    elif isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise ValueError(f"the names in an item are texts, not {type(name).__name__}")
            _utf8(name, "a name in an item")
            _check_value(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_value(inner, depth + 1)
    elif not (value is None or isinstance(value, bool) or is_number(value)):
        shown = value if isinstance(value, int | float) else type(value).__name__
        raise ValueError(f"an item holds JSON values only, not {str(shown)[:50]}")


def is_number(value: object) -> bool:
    """Return whether every JSON reader accepts this number: finite, integers of up to 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -_MAX_INT <= value < _MAX_INT


def _utf8(text: str, what: str) -> bytes:
    if "\0" in text:
        raise ValueError(f"{what} holds a NUL character")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid Unicode") from None
