"""Request bodies and responses of an OpenAPI document: what is JSON is checked, the rest passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.endpoints.routing.specification.notes import Unchecked
from gateway.endpoints.routing.specification.places import Place
from gateway.endpoints.routing.specification.schemas import (
    Direction,
    SchemaTranslator,
    TranslatedSchema,
)
from gateway.endpoints.routing.specification.source import Source
from gateway.endpoints.routing.validation.media_types import ANY_TYPE, is_json, plain_type

_STATUSES: Final = {*map(str, range(100, 600)), *(f"{digit}XX" for digit in range(1, 6)), "default"}


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What a request may have as its body. `other_types` are not checked; a `schema` is for JSON."""

    schema: TranslatedSchema | None = None
    other_types: tuple[str, ...] = ()
    optional: bool = True


@dataclass(frozen=True, slots=True)
class Responses:
    """The statuses that are described (none: all are), and the schemas of their JSON."""

    codes: tuple[int, ...] = ()
    schemas: dict[str, TranslatedSchema] = field(default_factory=dict)


class BodyReader:
    """Reads the bodies of operations."""

    def __init__(self, source: Source, translator: SchemaTranslator, unchecked: Unchecked) -> None:
        self._source = source
        self._translator = translator
        self._unchecked = unchecked

    def request(self, value: Any, place: Place) -> RequestBody:
        """Return the body of requests. Raises `ConfigError`."""
        if value is None:
            return RequestBody()
        body = self._source.follow(value, place)
        described = self._source.mapping(body.value, body.place)
        content = self._source.mapping(described.get("content"), (*body.place, "content"))
        schema = self._schema(content, (*body.place, "content"), "request")
        others = tuple(sorted(name.lower() for name in map(plain_type, content) if not is_json(name)))
        if others:
            reason = "bodies that are not JSON are not checked"
            self._unchecked.note(reason, (*body.place, "content"))
        if others and (schema is None or ANY_TYPE in others):
            # Documents say application/octet-stream for any file: another type is no fault.
            schema, others = None, (ANY_TYPE,)
        return RequestBody(schema, others, optional=described.get("required") is not True)

    def responses(self, value: Any, place: Place) -> Responses:
        """Return the responses of an operation. Raises `ConfigError`."""
        codes: set[int] = set()
        schemas: dict[str, TranslatedSchema] = {}
        members = self._source.mapping(value, place)
        for status, member in members.items():
            if status[:2] == "x-":
                continue
            if status.upper() not in _STATUSES and status != "default":
                raise self._source.error("a status is 100 to 599, 2XX or default", (*place, status))
            name = status if status == "default" else status.upper()
            codes.update(_codes(name))
            response = self._source.follow(member, (*place, status))
            described = self._source.mapping(response.value, response.place)
            content = self._source.mapping(described.get("content"), (*response.place, "content"))
            schema = self._schema(content, (*response.place, "content"), "response")
            if schema is not None:
                schemas[name] = schema
        return Responses(() if "default" in members else tuple(sorted(codes)), schemas)

    def _schema(
        self, content: Mapping[str, Any], place: Place, direction: Direction
    ) -> TranslatedSchema | None:
        """Return the schema of JSON: one of those that its media types have."""
        schemas: list[TranslatedSchema] = []
        for name, value in content.items():
            if is_json(plain_type(name)):
                media = self._source.mapping(value, (*place, name))
                where = (*place, name, "schema")
                schema = self._translator.translate(_schema_of(media), where, direction)
                if all(schema.own != other.own for other in schemas):
                    schemas.append(schema)
        if len(schemas) < 2:
            return schemas[0] if schemas else None
        merged = TranslatedSchema({"anyOf": [schema.own for schema in schemas]}, place)
        for schema in schemas:
            merged.definitions.update(schema.definitions)
            merged.places.update(schema.places)
        return merged


def _schema_of(media: Mapping[str, Any]) -> Any:
    """Return the schema of a media type; documents of generators say null for none."""
    return {} if media.get("schema") is None else media["schema"]


def _codes(status: str) -> range:
    if status == "default":
        return range(0)
    first = int(status.replace("X", "0"))
    return range(first, first + (100 if "X" in status else 1))
