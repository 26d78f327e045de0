"""Templates of paths, of routes and of uploads: literal segments, and variables in braces.

`{name}` stands for one segment, `{name:path}` at the end of a route for all that are left, and
`{filepath}` in the upload path for one or more. Pure text: no system call, no HTTP library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gateway.domain import paths

LITERAL, VARIABLE, REST = range(3)
"""The kinds of a segment, the most specific first. REST matches one segment or more."""

_VARIABLE: Final = re.compile(r"\{([^{}:]*)(:path)?\}")


class TemplateSegment(NamedTuple):
    """One segment of a template: a literal text, or the name of a variable."""

    kind: int
    text: str


Segments = Sequence[TemplateSegment]


def parse_segments(text: str) -> tuple[TemplateSegment, ...]:
    """Parse a template; its last segment may be empty.

    Raises `ValueError` with a message that completes the name of the template.
    """
    if not text.startswith("/"):
        raise ValueError("must start with a slash")
    raw = text[1:].split("/")
    segments = tuple(
        _parse_segment(segment, position, is_last=position == len(raw))
        for position, segment in enumerate(raw, start=1)
    )
    names = [segment.text for segment in segments if segment.kind != LITERAL]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"has the variable {{{repeated[0]}}} more than once")
    return segments


def _parse_segment(segment: str, position: int, *, is_last: bool) -> TemplateSegment:
    variable = _VARIABLE.fullmatch(segment)
    if variable is not None and variable[1].isidentifier():
        if variable[2] and not is_last:
            raise ValueError(f"may have {segment} at its end only")
        return TemplateSegment(REST if variable[2] else VARIABLE, variable[1])
    if "{" in segment or "}" in segment:
        raise bad_segment(position, "a variable is a whole segment, like {name}")
    if set(segment) & set("%?#"):
        raise bad_segment(position, "write names unencoded, without %, ? or #")
    rule = paths.broken_rule(segment)
    if rule is not None and not (is_last and not segment):
        raise bad_segment(position, f"it {rule}")
    return TemplateSegment(LITERAL, segment)


def bad_segment(position: int, reason: str) -> ValueError:
    """Return the error of a segment (from 1) of a template, for the operator."""
    return ValueError(f"is wrong in segment {position}: {reason}")


def variable_names(template: str) -> list[str]:
    """Return the names of the variables in a legal template, in order."""
    return [match[1] for match in _VARIABLE.finditer(template)]


def fill_variables(template: str, value: Callable[[str], str]) -> str:
    """Return a legal template with each variable replaced by the `value` of its name."""
    return _VARIABLE.sub(lambda match: value(match[1]), template)


def overlap(first: Segments, second: Segments) -> bool:
    """Return whether a path matches both templates."""
    if not first or not second:
        return not first and not second
    kinds = (first[0].kind, second[0].kind)
    if REST in kinds:
        shorter = overlap(first, second[1:]) if first[0].kind == REST else overlap(first[1:], second)
        return shorter or overlap(first[1:], second[1:])
    if VARIABLE not in kinds and first[0].text != second[0].text:
        return False
    return overlap(first[1:], second[1:])


def align_segments(
    segments: Segments, parts: Sequence[str]
) -> list[tuple[TemplateSegment, Sequence[str]]] | None:
    """Assign the parts of a path to segments, one of which may span several; None if they do not fit."""
    extra = len(parts) - len(segments)
    spans = any(segment.kind == REST for segment in segments)
    if extra < 0 or (extra and not spans):
        return None
    aligned: list[tuple[TemplateSegment, Sequence[str]]] = []
    start = 0
    for segment in segments:
        end = start + 1 + (extra if segment.kind == REST else 0)
        aligned.append((segment, parts[start:end]))
        start = end
    return aligned
