"""JSON Schemas of requests, compiled once, and the violations that they report.

A violation names the pointer and the rule, never the value, which may be a secret. Nothing is
fetched from a network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import jsonschema_rs

from gateway.endpoints.routing.model import Check, SchemaFault

MAX_FAULTS: Final = 100
"""Violations in one response: a long list of wrong items must not become a longer response."""


class BadSchemaError(ValueError):
    """An invalid JSON Schema. `where` is the path to the error inside it."""

    def __init__(self, message: str, where: Sequence[str | int]) -> None:
        super().__init__(message)
        self.where = tuple(where)


def compile_schema(schema: Mapping[str, Any], place: Literal["body", "headers"] = "body") -> Check:
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
    """Return the check of a schema of headers, whose names are matched without regard to case.

    A value that should be a number or a boolean is converted. Raises `BadSchemaError`.
    """
    check = compile_schema(_lowered(schema), "headers")
    compile_schema(schema)  # an error then has its place in the file
    types = {
        name.lower(): wanted.get("type")
        for name, wanted in _properties(schema)
        if isinstance(wanted, Mapping)
    }

    def check_headers(headers: Mapping[str, str]) -> list[SchemaFault]:
        lowered: dict[str, Any] = {}
        for name, value in headers.items():
            key = name.lower()
            lowered[key] = f"{lowered[key]}, {value}" if key in lowered else value
        return check({name: _converted(value, types.get(name)) for name, value in lowered.items()})

    return check_headers


def defaults(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the header values that a schema fills in where the request has none."""
    return {
        name: _header_text(wanted["default"])
        for name, wanted in _properties(schema)
        if isinstance(wanted, Mapping) and "default" in wanted
    }


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        yield from properties.items()


def _lowered(schema: Mapping[str, Any]) -> dict[str, Any]:
    lowered = dict(schema)
    if isinstance(schema.get("properties"), Mapping):
        lowered["properties"] = {str(name).lower(): wanted for name, wanted in _properties(schema)}
    required = schema.get("required")
    if isinstance(required, list):
        lowered["required"] = [name.lower() if isinstance(name, str) else name for name in required]
    return lowered


def _converted(value: str, schema_type: Any) -> Any:
    """Return a header's value as its schema's type, or unchanged if it is none."""
    if schema_type == "boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    if schema_type in {"integer", "number"}:
        try:
            return int(value) if schema_type == "integer" else float(value)
        except ValueError:
            return value
    return value


def _header_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fault(error: jsonschema_rs.ValidationError, place: Literal["body", "headers"]) -> SchemaFault:
    pointer = "".join(f"/{_escaped(step)}" for step in error.instance_path)
    return SchemaFault(pointer, _rule(error), error.message, place)


def _rule(error: jsonschema_rs.ValidationError) -> str:
    """Return the violated keyword: the last name in the path to it in the schema."""
    names = [step for step in error.schema_path if isinstance(step, str)]
    return names[-1] if names else "false"


def _escaped(step: str | int) -> str:
    """Escape a step of a JSON pointer (RFC 6901 section 3)."""
    return str(step).replace("~", "~0").replace("/", "~1")
