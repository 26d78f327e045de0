"""Schema Objects of OpenAPI 3.0 and 3.1 as JSON Schemas (2020-12) that stand alone.

What a schema refers to is in its `$defs`, so schemas may refer to themselves. Names of OpenAPI that say
nothing about values (`xml`, `discriminator`, `x-...`) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.endpoints.routing.specification.places import Place
from gateway.endpoints.routing.specification.source import Source

Direction = Literal["request", "response"]
"""Where a schema applies: what is read-only need not be in requests, nor write-only in responses."""

MAX_SCHEMAS: Final = 2_000_000
"""Schemas of one document, and the values in them, with all within them: an alias of YAML may repeat
others without an end."""

MAX_DEPTH: Final = 150
"""Schemas within schemas."""

_SINGLE: Final = frozenset({
    "items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else",
    "unevaluatedItems", "unevaluatedProperties", "contentSchema",
})  # fmt: skip
"""Keywords with a schema."""

_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPPINGS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})

_DROPPED: Final = frozenset({
    "discriminator", "xml", "externalDocs", "example", "nullable", "$schema", "$id", "$comment",
    "$defs", "$anchor", "$dynamicAnchor", "$dynamicRef",
})  # fmt: skip
"""What is not copied. What stands in `$defs` is reached by references into it alone."""

_RANGES: Final = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
"""The least and the greatest integer of a format (specification 3.0.4, Data Types)."""

_UNPLAIN: Final = re.compile("[^A-Za-z0-9._-]")
_HIDDEN: Final[Mapping[Direction, str]] = {"request": "readOnly", "response": "writeOnly"}


@dataclass(frozen=True, slots=True)
class TranslatedSchema:
    """A schema, its place in the document, and by name what it refers to, with the places of that."""

    own: dict[str, Any]
    place: Place
    definitions: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def schema(self) -> dict[str, Any]:
        """The schema, which stands alone."""
        return {**self.own, "$defs": self.definitions} if self.definitions else self.own


@dataclass(frozen=True, slots=True)
class _SharedSchema:
    """The translation of what others refer to."""

    schema: Any
    place: Place
    references: tuple[str, ...]


class SchemaTranslator:
    """Translates the schemas of one document. What many refer to is translated once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._shared: dict[tuple[Direction, str], _SharedSchema] = {}
        self._names: dict[str, str] = {}
        self._used: set[str] = set()
        self._count = 0

    def translate(self, schema: Any, place: Place, direction: Direction) -> TranslatedSchema:
        """Return a schema that stands alone. Raises `ConfigError` with the line of what is wrong."""
        part = _SchemaPart(self, direction)
        own = part.translate(schema, place)
        if isinstance(own, bool):
            own = {} if own else {"not": {}}
        places: dict[str, Place] = {}
        definitions: dict[str, Any] = {}
        waiting = list(part.references)
        while waiting:
            reference = waiting.pop()
            name = self._names[reference]
            if name not in definitions:
                shared = self._share(reference, direction)
                definitions[name], places[name] = shared.schema, shared.place
                waiting += shared.references
        return TranslatedSchema(own, place, dict(sorted(definitions.items())), places)

    def name(self, reference: Any, where: Place) -> str:
        """Return the name in `$defs` of what a reference leads to. Raises `ConfigError`."""
        if not isinstance(reference, str) or reference not in self._names:
            self.source.resolve(reference, where)
            short = reference.removeprefix("#/components/schemas/").removeprefix("#/")
            name = short = _UNPLAIN.sub("_", short)
            number = 2
            while name in self._used:
                name, number = f"{short}_{number}", number + 1
            self._used.add(name)
            self._names[reference] = name
        return self._names[reference]

    def count(self, place: Place, amount: int = 1) -> None:
        """Count a schema, or a value in one. Raises `ConfigError` for more than a document may have."""
        self._count += amount
        if self._count > MAX_SCHEMAS:
            message = f"the document has more than {MAX_SCHEMAS} schemas and values in them"
            raise self.source.error(message, place)

    def _share(self, reference: str, direction: Direction) -> _SharedSchema:
        key = (direction, reference)
        if key not in self._shared:
            located = self.source.resolve(reference, ())
            part = _SchemaPart(self, direction)
            schema = part.translate(located.value, located.place)
            self._shared[key] = _SharedSchema(schema, located.place, tuple(part.references))
        return self._shared[key]


class _SchemaPart:
    """Translates one schema with those within it, and notes what they refer to."""

    def __init__(self, translator: SchemaTranslator, direction: Direction) -> None:
        self._translator = translator
        self._source = translator.source
        self._hidden = _HIDDEN[direction]
        self.references: dict[str, None] = {}

    def translate(self, schema: Any, place: Place) -> Any:
        """Return a schema in JSON Schema 2020-12. Raises `ConfigError`."""
        self._translator.count(place)
        if isinstance(schema, bool) and not self._source.is_30:
            return schema
        if not isinstance(schema, dict):
            raise self._source.error("must be a schema: a mapping", place)
        if len(place) > MAX_DEPTH:
            raise self._source.error(f"schemas are nested more than {MAX_DEPTH} deep", place)
        if "$ref" in schema and self._source.is_30:
            schema = {
                "$ref": schema["$ref"]
            }  # specification 3.0.4, Reference Object: the rest is ignored
        translated = {
            name: self._keyword(name, value, (*place, name))
            for name, value in schema.items()
            if name not in _DROPPED and name[:2] != "x-"
        }
        if "required" in schema:
            self._leave_out_hidden(translated, schema, place)
        if "example" in schema:
            self._count_values(schema["example"], (*place, "example"))
            translated.setdefault("examples", [schema["example"]])
        if schema.get("type") == "integer" and schema.get("format") in _RANGES:
            least, greatest = _RANGES[schema["format"]]
            translated.setdefault("minimum", least)
            translated.setdefault("maximum", greatest)
        return _from_30(translated, schema) if self._source.is_30 else translated

    def _keyword(self, name: str, value: Any, place: Place) -> Any:
        if name == "$ref":
            pointer = self._translator.name(value, place)
            self.references[value] = None
            return f"#/$defs/{pointer}"
        if name in _SINGLE:
            return value if isinstance(value, bool) else self.translate(value, place)
        if name in _LISTS:
            parts = self._source.items(value, place)
            return [self.translate(part, (*place, at)) for at, part in enumerate(parts)]
        if name in _MAPPINGS:
            members = self._source.mapping(value, place)
            return {key: self.translate(part, (*place, key)) for key, part in members.items()}
        self._count_values(value, place)
        return value

    def _count_values(self, value: Any, place: Place) -> None:
        """Count a value of `enum` and its like, with all within it; a long text counts for several."""
        waiting = [value]
        while waiting:
            each = waiting.pop()
            self._translator.count(place, 1 + (len(each) // 100 if isinstance(each, str) else 0))
            if isinstance(each, dict | list):
                waiting += each.values() if isinstance(each, dict) else each

    def _leave_out_hidden(
        self, translated: dict[str, Any], schema: dict[str, Any], place: Place
    ) -> None:
        """Require no property that is read-only in a request, or write-only in a response."""
        required, properties = schema["required"], schema.get("properties")
        if not isinstance(required, list) or not isinstance(properties, dict):
            return
        names = [name for name in required if not self._is_hidden(properties.get(name), place)]
        translated["required"] = names

    def _is_hidden(self, schema: Any, place: Place) -> bool:
        if not isinstance(schema, dict):
            return False
        return bool(self._source.follow(schema, place).value.get(self._hidden)) or bool(
            schema.get(self._hidden)
        )


def _from_30(translated: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Give the keywords that OpenAPI 3.0 has of its own the form of JSON Schema."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(flag := schema.get(exclusive), bool):
            del translated[exclusive]
            if flag and bound in translated:
                translated[exclusive] = translated.pop(bound)
    if schema.get("nullable") is not True:
        return translated
    if isinstance(schema.get("type"), str):
        translated["type"] = [schema["type"], "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            translated["enum"] = [*schema["enum"], None]
        return translated
    # Documents mean null by it beside `allOf`, too, where the specification gives it no meaning.
    return {"anyOf": [{"type": "null"}, translated]}
