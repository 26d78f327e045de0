"""Parameter Objects as JSON Schemas of the query, the path and the headers.

What the gateway cannot read is passed through, and told: cookies, objects, `deepObject`, and parameters
with `content`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.endpoints.routing.specification.notes import Unchecked
from gateway.endpoints.routing.specification.places import Place
from gateway.endpoints.routing.specification.schemas import SchemaTranslator, TranslatedSchema
from gateway.endpoints.routing.specification.source import Located, Source
from gateway.endpoints.routing.validation.text_values import DELIMITER, schema_types

ParameterPlace = Literal["query", "path", "headers"]

_PLACES: Final[Mapping[str, ParameterPlace]] = {"query": "query", "path": "path", "header": "headers"}
_LOCATIONS: Final = frozenset({*_PLACES, "cookie"})
_STYLES: Final = {"query": "form", "path": "simple", "header": "simple"}

_IGNORED: Final = frozenset({"accept", "content-type", "authorization"})
"""Header parameters of these names are ignored (specification 3.0.4, Parameter Object)."""

_DELIMITERS: Final = {"form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
"""What separates the items of an array in one field of a query, by style."""


@dataclass(slots=True)
class ParameterSchemas:
    """The schemas of one place, and what they refer to."""

    properties: dict[str, Any] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    definitions: dict[str, Any] = field(default_factory=dict)
    places: dict[tuple[str, ...], Place] = field(default_factory=dict)

    def add(self, name: str, schema: TranslatedSchema, changed: Mapping[str, Any]) -> None:
        """Add the schema of a parameter, with its place."""
        self.properties[name] = changed
        self.definitions.update(schema.definitions)
        self.places["properties", name] = schema.place
        for definition, place in schema.places.items():
            self.places["$defs", definition] = place

    @property
    def schema(self) -> dict[str, Any] | None:
        """The schema of all, None where nothing is to be checked."""
        if not self.properties and not self.required:
            return None
        schema: dict[str, Any] = {"properties": self.properties}
        if self.required:
            schema["required"] = self.required
        if self.definitions:
            schema["$defs"] = self.definitions
        return schema


class ParameterReader:
    """Reads the parameters of operations."""

    def __init__(self, source: Source, translator: SchemaTranslator, unchecked: Unchecked) -> None:
        self._source = source
        self._translator = translator
        self._unchecked = unchecked

    def read(
        self, lists: Sequence[tuple[Any, Place]], variables: Mapping[str, str]
    ) -> dict[ParameterPlace, ParameterSchemas]:
        """Return the schemas of an operation, whose own parameters replace those of its path.

        `variables` are the names of the path's variables in the document, and those in the template.
        Raises `ConfigError`.
        """
        merged: dict[tuple[str, str], Located] = {}
        for parameters, place in lists:
            merged.update(self._named(parameters, place))
        schemas: dict[ParameterPlace, ParameterSchemas] = {
            where: ParameterSchemas() for where in _PLACES.values()
        }
        for (location, name), parameter in merged.items():
            if location == "path" and name not in variables:
                self._unchecked.note(
                    "a parameter of the path that the path does not have", parameter.place
                )
            elif location == "cookie":
                self._unchecked.note("cookies are not checked", parameter.place)
            elif location != "header" or name.lower() not in _IGNORED:
                key = variables[name] if location == "path" else name
                self._add(schemas[_PLACES[location]], key, parameter)
        return schemas

    def _named(self, parameters: Any, place: Place) -> Iterable[tuple[tuple[str, str], Located]]:
        seen: set[tuple[str, str]] = set()
        for at, item in enumerate(self._source.items(parameters, place)):
            parameter = self._source.follow(item, (*place, at))
            value = self._source.mapping(parameter.value, parameter.place)
            location, name = value.get("in"), value.get("name")
            if location not in _LOCATIONS or not isinstance(name, str) or not name:
                message = "a parameter needs a `name`, and `in`: query, path, header or cookie"
                wrong = "name" if location in _LOCATIONS else "in"
                raise self._source.error(message, (*parameter.place, wrong))
            if (location, name) in seen:
                raise self._source.error(f"the parameter {name} is listed twice", (*place, at))
            seen.add((location, name))
            yield (location, name), parameter

    def _add(self, schemas: ParameterSchemas, name: str, parameter: Located) -> None:
        value, place = parameter
        required = [name] if value.get("required") is True and value["in"] != "path" else []
        if "content" in value:
            schemas.required += required
            self._unchecked.note("parameters with `content` are not checked", place)
            return
        schema = self._translator.translate(value.get("schema", {}), (*place, "schema"), "request")
        types = schema_types(schema.own, schema.schema)
        reason, delimiter = _reading(value, types)
        if reason:
            self._unchecked.note(reason, place)
            # An object in a query is no field of this name: `name[key]=value`.
            schemas.required += required if value["in"] == "header" else []
            return
        schemas.required += required
        changed = {key: each for key, each in schema.own.items() if key != "default"}
        if delimiter:
            changed[DELIMITER] = delimiter
        if value.get("allowEmptyValue") is True and value["in"] == "query":
            changed = {"anyOf": [{"const": ""}, changed]}
        schemas.add(name, schema, changed)


def _reading(parameter: Mapping[str, Any], types: frozenset[str]) -> tuple[str, str]:
    """Return why a parameter cannot be read, and what separates its items."""
    location = parameter["in"]
    style = parameter.get("style", _STYLES[location])
    is_simple = style == _STYLES[location]
    if location == "query" and style in _DELIMITERS and types != {"object"}:
        explode = parameter.get("explode", style == "form")
        return "", "" if explode is True or "array" not in types else _DELIMITERS[style]
    if not is_simple:
        return f"parameters of the style {style} are not checked", ""
    return ("objects in parameters are not checked", "") if types == {"object"} else ("", "")
