"""The published spelling of some keys, read as the documented one.

A document may use either spelling. Faults name the key as its author wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gateway.plugins.yaml_documents import Document

NO_UPSTREAM: Final = "0.0.0.0"  # noqa: S104 (a word in plugins, not an address that is bound)
"""The published way to say that only scripts answer: `authorities: [0.0.0.0]`."""


def _upstreams(authorities: Any) -> Any:
    if not isinstance(authorities, list):
        return authorities
    if not authorities:
        raise ValueError(
            f"`authorities` is empty: write `upstreams: []` or `authorities: [{NO_UPSTREAM}]`"
        )
    if NO_UPSTREAM not in authorities:
        return authorities
    if len(authorities) > 1:
        raise ValueError(f"{NO_UPSTREAM} in `authorities` means no upstream: it stands alone")
    return []


@dataclass(frozen=True, slots=True)
class LegacyKey:
    """A published key `old` in the mapping at `parent`, its documented key `new`, and its JSON Schema.

    `read` turns its value into the one of `new`. Raises `ValueError`.
    """

    old: str
    new: str
    schema: dict[str, Any] = field(hash=False)
    parent: tuple[str, ...] = ()
    read: Callable[[Any], Any] = field(default=lambda value: value)


_SCRIPT: Final = {"type": ["string", "null"]}

ROUTE_KEYS: Final = (
    LegacyKey("request_forbidden_process", "request_script", _SCRIPT),
    LegacyKey("response_forbidden_process", "response_script", _SCRIPT),
    LegacyKey(
        "authorities",
        "upstreams",
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        read=_upstreams,
    ),
    LegacyKey(
        "auth_mode",
        "auth",
        {"enum": ["axis", "none", "token", "jwt"]},
        parent=("proxy", "authorization"),
        read=lambda auth_mode: "default" if auth_mode == "axis" else auth_mode,
    ),
)
"""The legacy keys of a route."""


def translate(document: Document, keys: Sequence[LegacyKey]) -> Document:
    """Return the document with every legacy key under its documented name.

    Raises `ConfigError` where a document uses both spellings of a key.
    """
    for key in keys:
        document = _translate_key(document, key)
    return document


def _translate_key(document: Document, key: LegacyKey) -> Document:
    mapping = _child(document.data, key.parent)
    if not isinstance(mapping, dict) or key.old not in mapping:
        return document
    where = (*key.parent, key.old)
    if key.new in mapping:
        lines = sorted({document.line(*where), document.line(*key.parent, key.new)})
        places = " and ".join(map(str, lines))
        message = f"`{key.old}` and `{key.new}` are two spellings of one key (lines {places})"
        raise document.error(f"{message}: keep `{key.new}`", *where)
    try:
        value = key.read(mapping[key.old])
    except ValueError as error:
        raise document.error(str(error), *where) from None
    renamed = {name: item for name, item in mapping.items() if name != key.old} | {key.new: value}
    return replace(
        document,
        data=_replaced(document.data, key.parent, renamed),
        spellings={**document.spellings, (*key.parent, key.new): key.old},
    )


def _child(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _replaced(data: dict[str, Any], path: Sequence[str], mapping: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `data` with `mapping` at `path`; an anchor may be used elsewhere too."""
    if not path:
        return mapping
    return {**data, path[0]: _replaced(data[path[0]], path[1:], mapping)}
