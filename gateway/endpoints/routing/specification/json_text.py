"""JSON, and the line of each of its keys, which is looked for when it is needed."""

from __future__ import annotations

import bisect
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from gateway.endpoints.routing.specification.places import fail

_DECODER: Final = json.JSONDecoder()
_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]')
_LINE_END: Final = re.compile("\n")


class _DoubledNameError(ValueError):
    """An object has a name twice."""


class JsonText:
    """A JSON text, read. `data` is its value. Raises `ConfigError` with the line."""

    def __init__(self, file: str, text: str) -> None:
        self._text = text
        self._ends: list[int] | None = None
        self._members: dict[int, dict[str | int, tuple[int, int]]] = {}
        """By the offset of an object or array: those of its names, or items, and of their values."""
        try:
            # The hook also lets other threads run, which the parser alone does not.
            self.data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            fail(file, f"this is not JSON: {error.msg}", error.lineno)
        except _DoubledNameError as error:
            fail(file, str(error), self._line_of_doubled())
        except RecursionError:
            fail(file, "values are nested too deep")
        except ValueError as error:
            fail(file, f"this is not JSON: {error}")

    def line(self, where: Sequence[str | int]) -> int:
        """Return the line (from 1) of the key or item at `where`, or of the nearest above."""
        at = value = self._skip(0)
        for step in where:
            members = self._members_at(value)
            if step not in members:
                break
            at, value = members[step]
        return self._line_at(at)

    def _line_at(self, offset: int) -> int:
        if self._ends is None:
            self._ends = [match.start() for match in _LINE_END.finditer(self._text)]
        return bisect.bisect_left(self._ends, offset) + 1

    def _line_of_doubled(self) -> int | None:
        """Return the line of the first name that stands in its object for the second time."""
        names: list[set[str]] = []
        latest = ""
        for token in _TOKEN.finditer(self._text):
            if token[0] in "{[":
                names.append(set())
            elif token[0] in "}]":
                names.pop()
            elif token[0] == ":" and latest in names[-1]:
                return self._line_at(token.start())
            elif token[0] == ":":
                names[-1].add(latest)
            else:
                latest = json.loads(token[0])
        return None

    def _skip(self, offset: int) -> int:
        match = _BLANKS.match(self._text, offset)
        return match.end() if match else offset

    def _members_at(self, offset: int) -> dict[str | int, tuple[int, int]]:
        """Return the offsets of the members of an object, or of the items of an array."""
        members = self._members.get(offset)
        if members is None:
            members = self._members[offset] = {}
            text, at = self._text, offset
            kind = text[at] if at < len(text) else ""
            number = 0
            while kind in "{[" and kind and text[at] not in "}]":
                at = begin = self._skip(at + 1)
                if text[at] in "}]":
                    break
                name: str | int = number
                if kind == "{":
                    name, at = _DECODER.raw_decode(text, at)
                    at = self._skip(self._skip(at) + 1)
                members[name] = (begin, at)
                _, at = _DECODER.raw_decode(text, at)
                at = self._skip(at)
                number += 1
        return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        doubled = next(name for name in members if counts[name] > 1)
        raise _DoubledNameError(f"the key `{doubled}` stands in one object twice")
    return members


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")
