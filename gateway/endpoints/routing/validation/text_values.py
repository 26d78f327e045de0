"""Texts of a query, a path and headers, as values of the types that their JSON Schemas name.

Only what JSON calls a number or a boolean becomes one (RFC 8259): upstreams read the text too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

DELIMITER: Final = "x-delimiter"
"""The keyword of an array's schema with the character between its items: `a=1,2`, not `a=1&a=2`."""

MAX_DEPTH: Final = 32
"""Schemas within schemas that are searched for types; deeper ones, and endless ones, are text."""

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
"""A number of JSON (RFC 8259 section 6), and its part that integers do not have."""

_SCALARS: Final = ("integer", "number", "boolean")
_TYPE_OF: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
}


@dataclass(frozen=True, slots=True)
class TextType:
    """The types that a text may have, those of the items of an array, and what separates these."""

    types: frozenset[str] = frozenset()
    items: TextType | None = None
    delimiter: str | None = None

    @property
    def is_ambiguous(self) -> bool:
        """Whether a text that is a number, or a boolean, may be meant as a text."""
        kinds = self.items.types if self.items is not None else frozenset()
        return any("string" in each and each & set(_SCALARS) for each in (self.types, kinds))

    def value(self, texts: Sequence[str], *, as_text: bool = False) -> Any:
        """Return the value of a field that is given with these texts; `as_text` reads no numbers."""
        is_array = "array" in self.types
        if len(texts) == 1 and not (is_array and len(self.types) == 1):
            return texts[0] if as_text else _converted(texts[0], self.types)
        if is_array and self.delimiter:
            texts = [part for text in texts for part in text.split(self.delimiter)]
        types = (self.items or _TEXT).types if is_array else self.types
        return [text if as_text else _converted(text, types) for text in texts]


_TEXT: Final = TextType()


class TextFields:
    """The fields of an object whose schema is known, and their values.

    `delimiter` separates the items of arrays whose schema does not say so itself.
    """

    def __init__(self, schema: Mapping[str, Any], delimiter: str | None = None) -> None:
        self._delimiter = delimiter
        self._types = {
            name: self._text_type(each, schema) for name, each in property_schemas(schema, schema)
        }
        others = schema.get("additionalProperties")
        self._other = self._text_type(others, schema) if isinstance(others, Mapping) else _TEXT
        self.ambiguous = frozenset(name for name, each in self._types.items() if each.is_ambiguous)
        """Fields whose texts may be read in two ways."""
        self.arrays = frozenset(name for name, each in self._types.items() if "array" in each.types)

    def read(
        self, fields: Mapping[str, Sequence[str]], as_text: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """Return the values of fields; those of `as_text` stay texts."""
        return {
            name: self._types.get(name, self._other).value(texts, as_text=name in as_text)
            for name, texts in fields.items()
        }

    def _text_type(self, schema: Any, root: Mapping[str, Any]) -> TextType:
        types: set[str] = set()
        item_types: set[str] = set()
        delimiter = self._delimiter
        for part in _parts(schema, root):
            types |= _types(part)
            delimiter = part.get(DELIMITER, delimiter)
            for items in (part.get("items"), *_listed(part.get("prefixItems"))):
                for inner in _parts(items, root):
                    item_types |= _types(inner)
        types -= {"null", "object"}
        return TextType(frozenset(types), TextType(frozenset(item_types)), delimiter)


def schema_types(schema: Any, root: Mapping[str, Any]) -> frozenset[str]:
    """Return the types that values may have, but for null; none where the schema does not say."""
    types: set[str] = set()
    for part in _parts(schema, root):
        types |= _types(part)
    return frozenset(types - {"null"})


def property_schemas(schema: Any, root: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names and schemas of the properties of a schema, also of those that it refers to."""
    for part in _parts(schema, root):
        properties = part.get("properties")
        if isinstance(properties, Mapping):
            yield from ((str(name), each) for name, each in properties.items())


def _parts(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield a schema, and those that it is made of."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return
    yield schema
    if isinstance(reference := schema.get("$ref"), str):
        yield from _parts(_resolved(reference, root), root, depth + 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        for part in _listed(schema.get(keyword)):
            yield from _parts(part, root, depth + 1)


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    """Return what a local reference (`#/$defs/name`, RFC 6901) leads to, None for others."""
    if not reference.startswith("#/"):
        return None
    value: Any = root
    for step in unquote(reference[2:]).split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _types(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema names, or that the values have which it lists."""
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)}
    values = [schema["const"]] if "const" in schema else _listed(schema.get("enum"))
    return {_TYPE_OF[type(value)] for value in values if type(value) in _TYPE_OF}


def _converted(text: str, types: frozenset[str]) -> Any:
    """Return a text as one of `types`, or unchanged if it is none: no `1_0`, `+5`, `TRUE` or `٣`."""
    if text in {"true", "false"} and "boolean" in types:
        return json.loads(text)
    match = _NUMBER.fullmatch(text) if {"integer", "number"} & types else None
    if match is not None:
        if not match[1]:
            return int(text)
        if "number" in types:
            return float(text)
    return text
