"""Path templates: literal segments, `{name}`, and a last `{name:path}`.

One rule: pure text; a template that exists is legal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LITERAL, VARIABLE, REST = range(3)
"""The kinds of a segment, the most specific first."""

_VARIABLE: Final = re.compile(r"\{([^{}:]*)(:path)?\}")
_ILLEGAL: Final = re.compile(r"[{}%?#\\\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class RouteSegment:
    """One segment of a template: a literal text, or the name of a variable."""

    kind: int
    text: str


@dataclass(frozen=True, slots=True)
class RouteTemplate:
    """A path template. `parts` are its segments."""

    text: str
    parts: tuple[RouteSegment, ...]

    @classmethod
    def parse(cls, text: str) -> RouteTemplate:
        """Read a template. Raises `ValueError` that tells the plugin's author what is wrong."""
        if not text.startswith("/"):
            raise ValueError("must start with a slash")
        segments = text[1:].split("/")
        parts = tuple(_part(segment, len(segments) - at) for at, segment in enumerate(segments))
        names = [part.text for part in parts if part.kind != LITERAL]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"has the variable {{{repeated[0]}}} more than once")
        return cls(text, parts)

    @property
    def names(self) -> frozenset[str]:
        """The names of the variables."""
        return frozenset(part.text for part in self.parts if part.kind != LITERAL)

    @property
    def shape(self) -> tuple[tuple[int, str], ...]:
        """What tells templates apart: two of one shape match the same paths."""
        return tuple((part.kind, part.text if part.kind == LITERAL else "") for part in self.parts)

    def values(self, segments: Sequence[str]) -> dict[str, str]:
        """Return what the variables stand for in the segments of a path that matches."""
        found: dict[str, str] = {}
        for at, part in enumerate(self.parts):
            if part.kind == VARIABLE:
                found[part.text] = segments[at]
            elif part.kind == REST:
                found[part.text] = "/".join(segments[at:])
        return found


def meet(one: Sequence[int | str], other: Sequence[int | str]) -> bool:
    """Tell whether some path fits both patterns: literals as text, else `VARIABLE` or `REST`."""
    if not one or not other:
        return not one and not other
    if REST in (one[0], other[0]):
        return meet(one[1:], other[1:]) or (
            meet(one, other[1:]) if one[0] == REST else meet(one[1:], other)
        )
    if VARIABLE not in (one[0], other[0]) and one[0] != other[0]:
        return False
    return meet(one[1:], other[1:])


def _part(segment: str, left: int) -> RouteSegment:
    """Read one segment, with `left` of them to come, itself among them."""
    found = _VARIABLE.fullmatch(segment)
    if found is None:
        if _ILLEGAL.search(segment) or segment in {".", ".."}:
            raise ValueError(
                "is made of plain segments and variables that are whole segments, like {name}"
            )
        if not segment and left > 1:
            raise ValueError("has an empty segment")
        return RouteSegment(LITERAL, segment)
    name, spans = found.groups()
    if not name.isidentifier():
        raise ValueError("has a variable whose name is no word, such as {name}")
    if spans and left > 1:
        raise ValueError(f"may have {{{name}:path}} at its end only")
    return RouteSegment(REST if spans else VARIABLE, name)
