"""The paths of routes, the upload path, and the path under which an upload is stored. Pure text."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote

from gateway.domain import paths
from gateway.domain.grant import PCHAR
from gateway.domain.template_segments import (
    LITERAL,
    REST,
    VARIABLE,
    Segments,
    TemplateSegment,
    align_segments,
    bad_segment,
    fill_variables,
    parse_segments,
    variable_names,
)
from gateway.errors import Refusal

_FILEPATH: Final = "filepath"
_FILENAME: Final = "filename"
_FILE_NAMES: Final = frozenset({_FILEPATH, _FILENAME})
_SAFE: Final = f"/{PCHAR}"


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

    def values_of(self, path: str) -> dict[str, str]:
        """Return the values of the variables in a decoded path; none where the shape differs."""
        segments = path[1:].split("/")
        spans = self.segments[-1].kind == REST and len(segments) > len(self.segments)
        return self.values(segments) if spans or len(segments) == len(self.segments) else {}

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
    name of the file, and `_stored_segments` are its segments. `_prefix` is what precedes `{filepath}`
    if that is the only variable and the last segment, and `stored` is None.
    """

    text: str
    segments: tuple[TemplateSegment, ...]
    stored: str | None
    _stored_segments: tuple[TemplateSegment, ...]
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
        stored_segments = _stored_segments(segments, stored)
        return cls(text, segments, stored, stored_segments, None if stored else prefix)

    @property
    def unstored_variables(self) -> list[str]:
        """The variables that tell uploads of one file name apart, and that no stored path has.

        Empty where `stored` says what the operator wants, or where every file gets a name of its own.
        """
        names = variable_names(self.text)
        others = [name for name in names if name not in _FILE_NAMES]
        return others if self.stored is None and len(others) < len(names) else []

    @property
    def usage(self) -> str:
        """The request of an upload, for messages: `PUT /upload/<name>`."""
        text = fill_variables(self.text, lambda v: "<name>" if v in _FILE_NAMES else f"<{v}>")
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

    def spell(self, path: str) -> str | None:
        """Return the upload path, encoded, whose file is stored at `path`; None where there is none."""
        prefix = self._prefix
        if prefix:
            below = path.startswith(paths.UPLOAD_PREFIX)
            return quote(prefix + path[len(paths.UPLOAD_PREFIX) :], safe=_SAFE) if below else None
        aligned = align_segments(self._stored_segments, path.split("/")[1:])
        if aligned is None or any(part.kind == LITERAL and raw != [part.text] for part, raw in aligned):
            return None
        values = {part.text: "/".join(raw) for part, raw in aligned if part.kind != LITERAL}
        texts = [text if kind == LITERAL else values.get(text) for kind, text in self.segments]
        if None in texts:
            return None
        raw_path = quote("".join(f"/{text}" for text in texts), safe=_SAFE)
        try:
            match = self.match(raw_path)
        except Refusal:
            return None
        return None if match is None or match.path != path else raw_path

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
        if first or not raw or _decodes_to(raw[0], paths.RESERVED):
            return None
        aligned = align_segments(self.segments, raw)
        if aligned is None:
            return None
        literals = ((part, raw) for part, raw in aligned if part.kind == LITERAL)
        return aligned if all(_decodes_to(raw[0], part.text) for part, raw in literals) else None


def _parse_upload_segments(text: str) -> tuple[TemplateSegment, ...]:
    segments = parse_segments(text)
    names = [segment.text for segment in segments if segment.kind != LITERAL]
    if segments[-1] == TemplateSegment(LITERAL, ""):
        raise bad_segment(len(segments), "it is empty")
    if segments[-1].kind == REST:
        raise bad_segment(len(segments), "of the upload path, only {filepath} spans several segments")
    if segments[0] == TemplateSegment(LITERAL, paths.RESERVED):
        raise ValueError("is below /-/, which is reserved for the gateway")
    if set(names) >= _FILE_NAMES:
        raise ValueError("has both {filepath} and {filename}: use one of them")
    return _with_rest(segments)


def _stored_segments(upload: Segments, stored: str | None) -> tuple[TemplateSegment, ...]:
    """Return the segments of the path under which files are stored."""
    if stored is not None:
        return _with_rest(parse_segments(stored))
    file = next((part for part in upload if part.kind != LITERAL and part.text in _FILE_NAMES), None)
    named = file or TemplateSegment(VARIABLE, _FILENAME)  # a UUID, which no request can name
    return (TemplateSegment(LITERAL, paths.UPLOAD_PREFIX.strip("/")), named)


def _with_rest(segments: Segments) -> tuple[TemplateSegment, ...]:
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
    file = variables & _FILE_NAMES
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
