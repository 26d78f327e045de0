"""YAML as the OpenAPI specification wants it: YAML 1.2 with the types of JSON, and the line of each key.

`NO` is a text and no boolean, `2020-01-01` is no date. PyYAML's own loaders speak YAML 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import yaml

from gateway.endpoints.routing.specification.places import child, fail

_PARSER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH: Final = 200
"""Values within values."""

MAX_MERGED: Final = 1_000_000
"""Keys that all merges (`<<`) of a document copy."""

_CONSTANTS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,4000}")
_OCTAL: Final = re.compile(r"0o[0-7]{1,1000}")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,1000}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBERS: Final[Sequence[tuple[re.Pattern[str], Callable[[str], int | float]]]] = (
    (_INTEGER, int),
    (_OCTAL, lambda text: int(text, 8)),
    (_HEX, lambda text: int(text, 16)),
    (_FLOAT, float),
)
"""The core schema (YAML 1.2.2 section 10.3.2), without infinity and NaN, which JSON does not have."""

_MERGE: Final = "<<"


class YamlText:
    """A YAML text, read. `data` is its value. Raises `ConfigError` with the line."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines: dict[int, tuple[int, dict[str, int] | list[int]]] = {}
        """The first line of a mapping or sequence, and those of its keys or items, by its identity."""
        self._anchors: dict[str, Any] = {}
        self._merged = 0
        try:
            self._events: Iterator[Any] = yaml.parse(text, _PARSER)
            self.data = self._document()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            fail(file, f"this is not YAML: {error.problem}", line)
        except yaml.YAMLError:
            fail(file, "this is not YAML: it has characters that YAML does not allow")

    def line(self, where: Sequence[str | int]) -> int:
        """Return the line (from 1) of the key or item at `where`, or of the nearest above."""
        value = self.data
        line = self._lines.get(id(value), (1, {}))[0]
        for step in where:
            _, lines = self._lines.get(id(value), (0, {}))
            below = child(lines, step)
            if below is None:
                break
            line, value = below, child(value, step)
        return line

    def _document(self) -> Any:
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                data = self._value(event, 0)
                if any(isinstance(later, yaml.DocumentStartEvent) for later in self._events):
                    fail(self._file, "this file has several YAML documents: it must have one")
                return data
        return None

    def _value(self, event: Any, depth: int) -> Any:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                fail(self._file, f"the alias *{event.anchor} has no anchor before it", line)
            return self._anchors[event.anchor]
        if depth > MAX_DEPTH:
            fail(self._file, f"values are nested more than {MAX_DEPTH} deep", line)
        if isinstance(event, yaml.MappingStartEvent):
            value: Any = self._mapping(line, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(line, depth)
        else:
            value = _scalar(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _mapping(self, first: int, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[Any] = []
        self._lines[id(data)] = (first, lines)
        for key in self._events:
            if isinstance(key, yaml.MappingEndEvent):
                break
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarEvent):
                fail(self._file, "a key must be a plain word", line)
            value = self._value(next(self._events), depth + 1)
            if key.value == _MERGE and not key.style:
                merged += value if isinstance(value, list) else [value]
            elif key.value in lines:
                message = f"the key `{key.value}` stands here twice, first in line {lines[key.value]}"
                fail(self._file, message, line)
            else:
                data[key.value], lines[key.value] = value, line
        for other in (each for each in merged if isinstance(each, dict)):
            self._merged += len(other)
            if self._merged > MAX_MERGED:
                fail(self._file, f"merges (`<<`) copy more than {MAX_MERGED} keys", first)
            for name in other:
                data.setdefault(name, other[name])
                lines.setdefault(name, child(self._lines[id(other)][1], name))
        return data

    def _sequence(self, first: int, depth: int) -> list[Any]:
        data: list[Any] = []
        lines: list[int] = []
        self._lines[id(data)] = (first, lines)
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            data.append(self._value(event, depth + 1))
            lines.append(event.start_mark.line + 1)
        return data


def _scalar(event: Any) -> Any:
    """Return the value of a scalar: quoted, or tagged `!!str`, it is a text."""
    text: str = event.value
    if event.style or event.tag == "tag:yaml.org,2002:str":
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] in "-+.0123456789":
        for pattern, number in _NUMBERS:
            if pattern.fullmatch(text):
                return number(text)
    return text
