"""What an OpenAPI document holds, and the line of each of its keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn, Protocol

from gateway.errors import ConfigError

MAX_SHOWN_STEPS: Final = 12
"""Steps of a path into a document that a message shows."""

Place = tuple[str | int, ...]
"""A path into a document: the names of members and the numbers of items (from 0)."""


class Lines(Protocol):
    """Knows where the values of a text stand."""

    def line(self, where: Sequence[str | int]) -> int:
        """Return the line (from 1) of the key or item at `where`, or of the nearest above."""


def fail(file: str, message: str, line: int | None = None) -> NoReturn:
    """Raise the `ConfigError` of a text that cannot be read."""
    raise ConfigError(message, file, line)


def child(value: Any, step: str | int) -> Any:
    """Return the member or item of a value, None where it has none."""
    if isinstance(value, dict):
        return value.get(str(step))
    if isinstance(value, list) and str(step).isdecimal() and int(step) < len(value):
        return value[int(step)]
    return None


def dotted(where: Sequence[str | int]) -> str:
    """Return a path into a document for messages: `paths./pets.get`."""
    return ".".join(map(str, where[-MAX_SHOWN_STEPS:]))
