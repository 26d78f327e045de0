"""JSON Schemas of routes, compiled into checks. Nothing is fetched from a network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import jsonschema_rs

from gateway.endpoints.routing.model import Check, SchemaFault, SchemaPlace

MAX_FAULTS: Final = 100
"""Violations in one response: a long list of wrong items must not become a longer response."""

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
"""A number of JSON (RFC 8259 section 6), and its part that integers do not have."""


class BadSchemaError(ValueError):
    """An invalid JSON Schema. `where` is the path to the error inside it."""

    def __init__(self, message: str, where: Sequence[str | int]) -> None:
        super().__init__(message)
        self.where = tuple(where)


def compile_schema(schema: Mapping[str, Any], place: SchemaPlace = "body") -> Check:
    """Return the check of a JSON Schema (2020-12 unless `$schema` differs). Raises `BadSchemaError`."""
    try:
        validator = jsonschema_rs.validator_for(dict(schema), mask="the value", offline=True)
    except jsonschema_rs.ValidationError as error:
        first = error.message.splitlines()[0]
        raise BadSchemaError(f"invalid JSON Schema: {first}", error.instance_path) from None
    except Exception as error:  # a value that is not JSON (a date), a reference to elsewhere
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise BadSchemaError(f"this JSON Schema cannot be used: {first}", ()) from None

    def check(value: Any) -> list[SchemaFault]:
        try:
            errors = itertools.islice(validator.iter_errors(value), MAX_FAULTS)
            return [_fault(error, place) for error in errors]
        except (ValueError, TypeError, OverflowError, RecursionError):
            return [SchemaFault("", "type", "has a value that cannot be checked", place)]

    return check


def compile_headers(schema: Mapping[str, Any]) -> Check:
    """As `compile_schema`, for headers: names match in any case, numbers and booleans are converted."""
    check = compile_schema(_lowered(schema), "headers")
    compile_schema(schema)  # an error then has its place in the file
    types = {
        name.lower(): value_schema.get("type")
        for name, value_schema in _properties(schema)
        if isinstance(value_schema, Mapping)
    }

    def check_headers(headers: Mapping[str, str]) -> list[SchemaFault]:
        lowered: dict[str, Any] = {}
        for name, value in headers.items():
            key = name.lower()
            lowered[key] = f"{lowered[key]}, {value}" if key in lowered else value
        return check({name: _converted(value, types.get(name)) for name, value in lowered.items()})

    return check_headers


def header_defaults(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the header values that a schema fills in where the request has none."""
    return {
        name: str(value).lower() if isinstance(value := value_schema["default"], bool) else str(value)
        for name, value_schema in _properties(schema)
        if isinstance(value_schema, Mapping) and "default" in value_schema
    }


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        yield from properties.items()


def _lowered(schema: Mapping[str, Any]) -> dict[str, Any]:
    lowered = dict(schema)
    if isinstance(schema.get("properties"), Mapping):
        lowered["properties"] = {
            str(name).lower(): value_schema for name, value_schema in _properties(schema)
        }
    required = schema.get("required")
    if isinstance(required, list):
        lowered["required"] = [name.lower() if isinstance(name, str) else name for name in required]
    return lowered


def _converted(value: str, schema_type: Any) -> Any:
    """Return a header's value as its schema's type, or unchanged if it is none.

    Upstreams read it too: only what JSON calls a number or a boolean is one, no `1_0`, `+5` or `٣`.
    """
    if schema_type == "boolean":
        return {"true": True, "false": False}.get(value, value)
    if schema_type in {"integer", "number"} and (match := _NUMBER.fullmatch(value)):
        if not match[1]:
            return int(value)
        return value if schema_type == "integer" else float(value)
    return value


def _fault(error: jsonschema_rs.ValidationError, place: SchemaPlace) -> SchemaFault:
    """Return the violation of an error; its rule is the last name in the path to it in the schema."""
    # RFC 6901 section 3: steps of a JSON pointer are escaped.
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in error.instance_path)
    names = [step for step in error.schema_path if isinstance(step, str)]
    return SchemaFault(
        "".join(f"/{step}" for step in steps), names[-1] if names else "false", error.message, place
    )
