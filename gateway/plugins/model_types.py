"""The types of values that a plugin's YAML may have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.units import parse_duration, parse_size, unix_time


def _seconds(value: object) -> object:
    """Return the seconds of `10m`; a text without a unit is no number. Raises `ValueError`."""
    return parse_duration(value) if isinstance(value, str) and value[-1:].isalpha() else value


def _bytes(value: object) -> object:
    """Return the bytes of `10M`; a text without a unit is no number. Raises `ValueError`."""
    return parse_size(value) if isinstance(value, str) and value[-1:].isalpha() else value


KeyPart = Annotated[str, Field(min_length=1, max_length=1024)]
KeyEnds = KeyPart | Annotated[list[KeyPart], Field(min_length=1, max_length=100)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | str),
    Field(gt=0, le=30 * 86400, allow_inf_nan=False),
]
"""A number of seconds, or a text with a unit."""

Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
"""A number of bytes, or a text with a unit."""


def _nested(depth: int, form: str) -> Callable[[object], object]:
    """Return a validator that tells the form of mappings in mappings where a value has another."""

    def check(value: object) -> object:
        _check_depth(value, depth, form)
        return value

    return check


def _check_depth(value: object, depth: int, form: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"must be {form}")
    for inner in value.values() if depth > 1 else ():
        if inner is not None:
            _check_depth(inner, depth - 1, form)


def _moment(value: object) -> object:
    """Return the Unix time of a date and time of YAML or ISO 8601; without a zone it is UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value) if "-" in value else unix_time(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return value


Configs = Annotated[
    dict[str, dict[str, Any]],
    BeforeValidator(_nested(2, "the configs by their names, such as {mail: {host: mail.internal}}")),
]
"""The mappings of Config plugins by their names."""

_ITEMS: Final = BeforeValidator(
    _nested(3, "items by collection and key, such as {quota: {acme: {used: 9}}}")
)
Items = Annotated[dict[str, dict[str, dict[str, Any]]], _ITEMS]
"""Items of records: collection to key to item."""

ExpectedItems = Annotated[dict[str, dict[str, dict[str, Any] | None]], _ITEMS]
"""Items as `Items`; None for no item."""

FileContents = Annotated[
    dict[str, Any],
    BeforeValidator(_nested(1, "contents by path, such as {/upload/a.txt: hello}")),
]
"""Files: path to their text, or to a mapping or list that is JSON."""

Moment = Annotated[
    float,
    BeforeValidator(_moment, json_schema_input_type=float | str),
    Field(ge=0, le=32_503_680_000, allow_inf_nan=False),
]
"""A Unix time, or a date and time as in 2026-11-22T08:00:00Z."""


class Strict(BaseModel):
    """No unknown keys and no conversions: `"10"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
