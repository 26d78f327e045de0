"""Templates of paths, of routes and of uploads: literal segments, and variables in braces.

`{name}` stands for one segment, `{name:path}` at the end of a route for all that are left, and
`{filepath}` in the upload path for one or more. Pure text: no system call, no HTTP library.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.domain import paths
from gateway.errors import Refusal

LITERAL, VARIABLE, REST = range(3)
"""The kinds of a segment, the most specific first. REST matches one segment or more."""

_VARIABLE: Final = re.compile(r"\{([^{}:]*)(:path)?\}")
_FILEPATH: Final = "filepath"
_FILENAME: Final = "filename"


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
        raise _bad_segment(position, "a variable is a whole segment, like {name}")
    if set(segment) & set("%?#"):
        raise _bad_segment(position, "write names unencoded, without %, ? or #")
    rule = paths.broken_rule(segment)
    if rule is not None and not (is_last and not segment):
        raise _bad_segment(position, f"it {rule}")
    return TemplateSegment(LITERAL, segment)


def _bad_segment(position: int, reason: str) -> ValueError:
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


@dataclass(frozen=True, slots=True)
class RouteTemplate:
    """The path of a route."""

    segments: tuple[TemplateSegment, ...]

    @classmethod
    def parse(cls, text: str) -> RouteTemplate:
        """Parse a template without blanks. Raises as `parse_segments` does."""
        if " " in text:
            raise ValueError("must not have a blank")
        return cls(parse_segments(text))

    @property
    def shape(self) -> tuple[tuple[int, str], ...]:
        """The identity of a template: templates of the same shape match the same paths."""
        return tuple((kind, text if kind == LITERAL else "") for kind, text in self.segments)

    def values(self, segments: Sequence[str]) -> dict[str, str]:
        """Return the values of the variables in the segments of a path that matches."""
        values: dict[str, str] = {}
        for position, (kind, name) in enumerate(self.segments):
            if kind == VARIABLE:
                values[name] = segments[position]
            elif kind == REST:
                values[name] = "/".join(segments[position:])
        return values


class PathMatch(NamedTuple):
    """A matched path: `path` (checked, with leading slash) and its variables."""

    path: str
    resources: dict[str, str]


@dataclass(slots=True, frozen=True)
class UploadPathTemplate:
    """The upload path: one of its variables may name the file.

    `stored` is the template of the path under which the file is stored, None for `/upload/` and the
    name of the file. `_prefix` is what precedes `{filepath}` if that is the only variable and the last
    segment, and `stored` is None.
    """

    text: str
    segments: tuple[TemplateSegment, ...]
    stored: str | None
    _prefix: str | None

    @classmethod
    def parse(cls, text: str, stored: str | None = None) -> UploadPathTemplate:
        """Parse a template, and that of the stored path. Raises `ValueError` for the operator."""
        try:
            segments = _parse_upload_segments(text)
        except ValueError as error:
            raise ValueError(f"upload path template {text!r} {error}") from None
        if stored is not None:
            try:
                _check_stored(stored, segments)
            except ValueError as error:
                raise ValueError(f"stored path template {stored!r} {error}") from None
        *before, last = segments
        simple = before and last.kind == REST and all(segment.kind == LITERAL for segment in before)
        prefix = "".join(f"/{segment.text}" for segment in before) + "/" if simple else None
        return cls(text, segments, stored, None if stored else prefix)

    @property
    def unstored_variables(self) -> list[str]:
        """The variables that tell uploads of one file name apart, and that no stored path has.

        Empty where `stored` says what the operator wants, or where every file gets a name of its own.
        """
        names = variable_names(self.text)
        others = [name for name in names if name not in {_FILEPATH, _FILENAME}]
        return others if self.stored is None and len(others) < len(names) else []

    @property
    def usage(self) -> str:
        """The request of an upload, for messages: `PUT /upload/<name>`."""
        text = fill_variables(self.text, lambda v: "<name>" if v in {_FILEPATH, _FILENAME} else f"<{v}>")
        return f"PUT {text}"

    def match(self, raw_path: str) -> PathMatch | None:
        """Match `raw_path` (still encoded); return None if it is no upload path.

        Raises `Refusal("bad_path")` for a path of the template's shape with an invalid file name.
        """
        prefix = self._prefix
        if prefix and raw_path.startswith(prefix) and "%" not in raw_path and raw_path.isascii():
            rest = raw_path[len(prefix) :]
            path = paths.UPLOAD_PREFIX + rest
            paths.check_path(path)
            return PathMatch(path, {_FILEPATH: rest})
        aligned = self._align(raw_path)
        if aligned is None:
            return None
        variables = [(segment, raw) for segment, raw in aligned if segment.kind != LITERAL]
        resources = {segment.text: _decoded_value(segment, raw) for segment, raw in variables}
        path = self._stored_path(resources)
        paths.check_path(path)
        return PathMatch(path, resources)

    def _stored_path(self, resources: dict[str, str]) -> str:
        name = next((resources[name] for name in (_FILEPATH, _FILENAME) if name in resources), None)
        if name is None:
            name = str(uuid.uuid4())
        if self.stored is None:
            return paths.UPLOAD_PREFIX + name
        return fill_variables(self.stored, {_FILENAME: name, **resources}.__getitem__)

    def _align(self, raw_path: str) -> list[tuple[TemplateSegment, Sequence[str]]] | None:
        """Assign the raw segments to those of the template; None if the shape differs."""
        first, *raw = raw_path.split("/")
        extra = len(raw) - len(self.segments)
        spans = any(segment.kind == REST for segment in self.segments)
        if first or extra < 0 or (extra and not spans) or _decodes_to(raw[0], paths.RESERVED):
            return None
        aligned: list[tuple[TemplateSegment, Sequence[str]]] = []
        start = 0
        for segment in self.segments:
            end = start + 1 + (extra if segment.kind == REST else 0)
            aligned.append((segment, raw[start:end]))
            start = end
        literals = ((part, raw) for part, raw in aligned if part.kind == LITERAL)
        return aligned if all(_decodes_to(raw[0], part.text) for part, raw in literals) else None


def _parse_upload_segments(text: str) -> tuple[TemplateSegment, ...]:
    segments = parse_segments(text)
    names = [segment.text for segment in segments if segment.kind != LITERAL]
    if segments[-1] == TemplateSegment(LITERAL, ""):
        raise _bad_segment(len(segments), "it is empty")
    if segments[-1].kind == REST:
        raise _bad_segment(len(segments), "of the upload path, only {filepath} spans several segments")
    if segments[0] == TemplateSegment(LITERAL, paths.RESERVED):
        raise ValueError("is below /-/, which is reserved for the gateway")
    if {_FILEPATH, _FILENAME} <= set(names):
        raise ValueError("has both {filepath} and {filename}: use one of them")
    filepath = TemplateSegment(VARIABLE, _FILEPATH)
    return tuple(TemplateSegment(REST, _FILEPATH) if part == filepath else part for part in segments)


def _check_stored(stored: str, upload: Segments) -> None:
    """Raise `ValueError` for a stored path that lets every upload replace the one before."""
    segments = parse_segments(stored)
    if any(segment.kind == REST for segment in segments) or segments[-1].text == "":
        raise ValueError("consists of names and {variables}")
    if segments[0].text in {paths.STATE_FOLDER, paths.RESERVED}:
        raise ValueError("leads to a place of the gateway itself")
    variables = {segment.text for segment in upload if segment.kind != LITERAL}
    file = variables & {_FILEPATH, _FILENAME}
    used = {segment.text for segment in segments if segment.kind == VARIABLE}
    if unknown := sorted(used - variables - (set() if file else {_FILENAME})):
        raise ValueError(f"has the variable {{{unknown[0]}}}, which the upload path does not have")
    if not used & (file or used):
        needed = min(file, default=_FILENAME)
        raise ValueError(f"needs {{{needed}}}: without it uploads would replace each other")


def _decoded_value(segment: TemplateSegment, raw: Sequence[str]) -> str:
    value = "/".join(paths.decode_segment(part) for part in raw)
    rule = None if segment.kind == REST else paths.broken_rule(value)
    if rule is not None:
        raise Refusal("bad_path", f"{segment.text!r} in the path {rule}")
    return value


def _decodes_to(raw: str, text: str) -> bool:
    try:
        return paths.decode_segment(raw) == text
    except Refusal:
        return False
