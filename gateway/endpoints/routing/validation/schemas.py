"""JSON Schemas of routes, compiled into checks. Nothing is fetched from a network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import jsonschema_rs

from gateway.domain.grant import FIELD_PREFIX
from gateway.endpoints.routing.model import Check, SchemaFault, SchemaPlace
from gateway.endpoints.routing.validation.text_values import TextFields

MAX_FAULTS: Final = 100
"""Violations in one response: a long list of wrong items must not become a longer response."""

MAX_LISTED_VALUES: Final = 300
"""Values in a body of which all violations are listed; of a larger one the first is. jsonschema_rs finds
all before it returns one, and holds the interpreter meanwhile: 64 KB take seconds."""

_COMMA: Final = ","
"""What separates items in a header (RFC 9110 section 5.6.1), and in a variable of a path."""

_BLANKS: Final = re.compile(r"[ \t]*,[ \t]*")
_OWN: Final = FIELD_PREFIX.lower()


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
            if validator.is_valid(value):
                return []
            if not _is_small(value):
                validator.validate(value)
            errors = itertools.islice(validator.iter_errors(value), MAX_FAULTS)
            return [_fault(error, place) for error in errors]
        except jsonschema_rs.ValidationError as error:
            return [_fault(error, place)]
        except (ValueError, TypeError, OverflowError, RecursionError):
            return [SchemaFault("", "type", "has a value that cannot be checked", place)]

    return check


def _is_small(value: Any) -> bool:
    """Tell whether a JSON value has few values within it, without a look at all of many."""
    waiting, left = [value], MAX_LISTED_VALUES
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping | list):
            left -= len(each)
            if left < 0:
                return False
            waiting += each.values() if isinstance(each, Mapping) else each
    return True


def compile_headers(schema: Mapping[str, Any]) -> Check:
    """As `compile_schema`, for headers: names match in any case, texts are converted."""
    lowered = _lowered(schema)
    check = compile_schema(lowered, "headers")
    compile_schema(schema)  # an error then has its place in the file
    fields = TextFields(lowered, _COMMA)

    def check_headers(headers: Mapping[str, str]) -> list[SchemaFault]:
        lines: dict[str, list[str]] = {}
        for name, value in headers.items():
            lines.setdefault(name.lower(), []).append(value)
        texts = {name: ", ".join(values) for name, values in lines.items()}
        for name in fields.arrays & texts.keys():
            texts[name] = _BLANKS.sub(_COMMA, texts[name])
        return _check_texts(check, fields, {name: [text] for name, text in texts.items()})

    return check_headers


def compile_query(schema: Mapping[str, Any]) -> Check:
    """As `compile_schema`, for the fields of a query: name to texts. The gateway's own are not seen."""
    check, fields = compile_schema(schema, "query"), TextFields(schema)

    def check_query(params: Mapping[str, Sequence[str]]) -> list[SchemaFault]:
        seen = {name: texts for name, texts in params.items() if not name.lower().startswith(_OWN)}
        return _check_texts(check, fields, seen)

    return check_query


def compile_path(schema: Mapping[str, Any]) -> Check:
    """As `compile_schema`, for the variables of a path: name to text."""
    check, fields = compile_schema(schema, "path"), TextFields(schema, _COMMA)

    def check_path(resources: Mapping[str, str]) -> list[SchemaFault]:
        return _check_texts(check, fields, {name: [text] for name, text in resources.items()})

    return check_path


def _check_texts(
    check: Check, fields: TextFields, texts: Mapping[str, Sequence[str]]
) -> list[SchemaFault]:
    """Check texts as values; where one is wrong that may be a text as well, check it as such."""
    faults = check(fields.read(texts))
    wrong = {fault.pointer.split("/")[1] for fault in faults if fault.pointer}
    as_text = frozenset(name for name in fields.ambiguous if pointer_step(name) in wrong)
    return check(fields.read(texts, as_text)) if as_text else faults


def pointer_step(name: str) -> str:
    """Return a name as a step of a JSON pointer (RFC 6901 section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


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


def _fault(error: jsonschema_rs.ValidationError, place: SchemaPlace) -> SchemaFault:
    """Return the violation of an error; its rule is the last name in the path to it in the schema."""
    steps = (pointer_step(str(step)) for step in error.instance_path)
    names = [step for step in error.schema_path if isinstance(step, str)]
    return SchemaFault(
        "".join(f"/{step}" for step in steps), names[-1] if names else "false", error.message, place
    )
