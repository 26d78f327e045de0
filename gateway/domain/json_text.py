"""JSON from outside, as RFC 8259 says: UTF-8, no NaN, and no text that cannot be encoded again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""The escape of one half of a surrogate pair; most JSON has none."""

Pairs = list[tuple[str, Any]]


def parse_json(data: bytes | str, unique: Callable[[Pairs], dict[str, Any]] | None = None) -> Any:
    """Return the value of a JSON text. `unique` makes a dict of the members of an object.

    Raises `ValueError`, also for half a surrogate pair (`"\\ud83d"`, RFC 8259 section 8.2), which no
    answer, no log line and no database could encode; `RecursionError`; what `unique` raises.
    """
    text = data if isinstance(data, str) else data.decode()
    value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=unique)
    if _SURROGATE.search(text) and not _is_encodable(value):
        raise ValueError("a text of the JSON has half of a surrogate pair")
    return value


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
