"""Request targets: the upload path template, its variables, and valid paths.

Paths are decoded exactly once and checked, so that joined to any root they stay below it. Pure.
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from gateway.errors import Refusal

STATE_FOLDER: Final = ".gateway"
"""The first segment that belongs to the gateway's own state."""

RESERVED: Final = "-"
"""The first segment of the gateway's own pages (`/-/health` and so on)."""

UPLOAD_PREFIX: Final = "/upload/"
MAX_SEGMENT_BYTES: Final = 255
MAX_PATH_BYTES: Final = 3500
MAX_SEGMENTS: Final = 100
MAX_QUERY_FIELDS: Final = 1000

_FILEPATH: Final = "filepath"
_FILENAME: Final = "filename"
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
CONTROL_CHARACTER: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_PLAIN: Final = re.compile(r"/?(?!\.\.?(?:/|\Z))[ -.0-[\]-~]+(?:/(?!\.\.?(?:/|\Z))[ -.0-[\]-~]+)*")
"""ASCII paths that are valid except perhaps for their length: nearly all paths of real requests."""

_RULES: Final[tuple[tuple[Callable[[str], bool], str], ...]] = (
    (lambda name: not name, "is empty"),
    (lambda name: name in {".", ".."}, "is a dot segment"),
    (lambda name: "/" in name, "contains a slash"),
    (lambda name: "\\" in name, "contains a backslash"),
    (lambda name: CONTROL_CHARACTER.search(name) is not None, "contains a control character"),
    (lambda name: len(name.encode()) > MAX_SEGMENT_BYTES, f"is longer than {MAX_SEGMENT_BYTES} bytes"),
)
"""Rules that no segment may break. Order matters: text with surrogates has no length in bytes."""


def _broken_rule(name: str) -> str | None:
    return next((rule for breaks, rule in _RULES if breaks(name)), None)


@functools.lru_cache(maxsize=256)
def check_path(path: str) -> tuple[str, ...]:
    """Return the segments of `path`; the leading slash may be missing.

    The same check applies to the path of a request and to one that a hook wrote. Raises
    `Refusal("bad_path")` that names the rule and the segment (from 1), and does not quote the path.
    """
    segments = tuple(path.removeprefix("/").split("/"))
    if len(segments) > MAX_SEGMENTS:
        raise Refusal("bad_path", f"the path has more than {MAX_SEGMENTS} segments")
    if len(path) > MAX_SEGMENT_BYTES or not _PLAIN.fullmatch(path):
        _refuse_broken(segments)
    if segments[0] == STATE_FOLDER:
        raise Refusal("bad_path", "segment 1 of the path is reserved for the gateway's state")
    if len("/".join(("", *segments)).encode()) > MAX_PATH_BYTES:
        raise Refusal("bad_path", f"the path is longer than {MAX_PATH_BYTES} bytes")
    return segments


def _refuse_broken(segments: Sequence[str]) -> None:
    for position, name in enumerate(segments, start=1):
        rule = _broken_rule(name)
        if rule is not None:
            raise Refusal("bad_path", f"segment {position} of the path {rule}")


def split_target(target: str) -> tuple[str, str]:
    """Split a raw request target into raw path and raw query; nothing is decoded.

    Accepts origin-form and absolute-form (RFC 9112 section 3.2). Bytes that are not UTF-8 must be
    surrogate escapes. Raises `Refusal("bad_path")` for any other form.
    """
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise Refusal("bad_path", "the request target is neither a path nor an http URL")
        target = target[absolute.end() :]
        if not target.startswith("/"):
            # RFC 9110 section 4.2.3: an empty path means "/".
            target = "/" + target
    if "#" in target:
        raise Refusal("bad_path", "the request target contains a fragment")
    raw_path, _, raw_query = target.partition("?")
    return raw_path, raw_query


def _decode_segment(raw: str) -> str:
    if "%" not in raw and raw.isascii():
        return raw
    if _BAD_ESCAPE.search(raw):
        raise Refusal("bad_path", "the path contains a bad percent-escape")
    try:
        return unquote_to_bytes(raw.encode("utf-8", "surrogateescape")).decode()
    except UnicodeError:
        raise Refusal("bad_path", "the path is not valid UTF-8") from None


def decode(raw_path: str) -> tuple[str, ...]:
    """Split a raw path on `/`, then percent-decode each segment exactly once (RFC 3986 section 2.4).

    A decoded segment may contain a slash and is not checked. Raises `Refusal("bad_path")` for a
    path without leading slash, for bad escapes and for anything that is not UTF-8.
    """
    if not raw_path.startswith("/"):
        raise Refusal("bad_path", "the path does not start with a slash")
    return tuple(_decode_segment(raw) for raw in raw_path[1:].split("/"))


def parse_query(raw_query: str) -> dict[str, list[str]]:
    """Return the fields of a raw query: every value of a name, in order, blank ones too.

    `+` is a blank; an invalid escape stays as written. Raises
    `Refusal("bad_request")` for more than 1000 fields or text that is not UTF-8.
    """
    if not raw_query:
        return {}
    fields: dict[str, list[str]] = {}
    try:
        text = raw_query.encode("utf-8", "surrogateescape").decode()
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeError:
        raise Refusal("bad_request", "the query is not valid UTF-8") from None
    except ValueError:
        raise Refusal("bad_request", f"the query has more than {MAX_QUERY_FIELDS} fields") from None
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


class Match(NamedTuple):
    """A matched upload path: `path` (checked, with leading slash) and the template's variables."""

    path: str
    resources: dict[str, str]


@dataclass(slots=True, frozen=True)
class _UploadPathSegment:
    """One segment of a template: a literal, or the name of a variable."""

    text: str
    variable: bool = False

    @property
    def spans(self) -> bool:
        return self.variable and self.text == _FILEPATH

    def fits(self, raw: Sequence[str]) -> bool:
        return self.variable or _decodes_to(raw[0], self.text)

    def value(self, raw: Sequence[str]) -> str:
        value = "/".join(_decode_segment(segment) for segment in raw)
        rule = None if self.spans else _broken_rule(value)
        if rule is not None:
            raise Refusal("bad_path", f"{self.text!r} in the path {rule}")
        return value


def _decodes_to(raw: str, text: str) -> bool:
    try:
        return _decode_segment(raw) == text
    except Refusal:
        return False


@dataclass(slots=True, frozen=True)
class UploadPathTemplate:
    """The upload path template: literals and `{name}` variables; `{filepath}` may span segments."""

    text: str
    _parts: tuple[_UploadPathSegment, ...]
    _prefix: str | None
    """The path before `{filepath}` if that is the only variable and the last part."""

    @classmethod
    def parse(cls, text: str) -> UploadPathTemplate:
        """Parse a template. Raises `ValueError` with a message for the operator."""
        try:
            parts = _parse_parts(text)
        except ValueError as error:
            raise ValueError(f"upload path template {text!r}: {error}") from None
        *before, last = parts
        simple = bool(before) and last.spans and not any(part.variable for part in before)
        return cls(text, parts, "".join(f"/{part.text}" for part in before) + "/" if simple else None)

    def example_path(self, filename: str) -> str:
        """Return an encoded path that matches: `filename` for the file, NAME for another variable."""
        names = {_FILEPATH: filename, _FILENAME: filename}
        values = [
            names.get(part.text, part.text.upper()) if part.variable else part.text
            for part in self._parts
        ]
        return "/" + "/".join(quote(value, safe="") for value in values)

    def match(self, raw_path: str) -> Match | None:
        """Match `raw_path` (still encoded); return None if it is no upload path.

        Raises `Refusal("bad_path")` for a path of the template's shape with an invalid file name.
        """
        prefix = self._prefix
        if prefix and raw_path.startswith(prefix) and "%" not in raw_path and raw_path.isascii():
            rest = raw_path[len(prefix) :]
            path = UPLOAD_PREFIX + rest
            check_path(path)
            return Match(path, {_FILEPATH: rest})
        aligned = self._align(raw_path)
        if aligned is None:
            return None
        resources = {part.text: part.value(raw) for part, raw in aligned if part.variable}
        path = UPLOAD_PREFIX + _stored_name(resources)
        check_path(path)
        return Match(path, resources)

    def _align(self, raw_path: str) -> list[tuple[_UploadPathSegment, Sequence[str]]] | None:
        """Assign the raw segments to the template's parts; None if the shape differs."""
        first, *raw = raw_path.split("/")
        extra = len(raw) - len(self._parts)
        spanning = any(part.spans for part in self._parts)
        if first or extra < 0 or (extra and not spanning) or _decodes_to(raw[0], RESERVED):
            return None
        aligned: list[tuple[_UploadPathSegment, Sequence[str]]] = []
        start = 0
        for part in self._parts:
            end = start + 1 + (extra if part.spans else 0)
            aligned.append((part, raw[start:end]))
            start = end
        return aligned if all(part.fits(segments) for part, segments in aligned) else None


def _stored_name(resources: dict[str, str]) -> str:
    for variable in (_FILEPATH, _FILENAME):
        if variable in resources:
            return resources[variable]
    return str(uuid.uuid4())


def _parse_parts(text: str) -> tuple[_UploadPathSegment, ...]:
    if not text.startswith("/"):
        raise ValueError("it must start with a slash")
    parts = tuple(_parse_part(segment, at) for at, segment in enumerate(text[1:].split("/"), start=1))
    if parts[0] == _UploadPathSegment(RESERVED):
        raise ValueError("paths below /-/ are reserved for the gateway")
    names = [part.text for part in parts if part.variable]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the variable {{{repeated[0]}}} is used more than once")
    if {_FILEPATH, _FILENAME} <= set(names):
        raise ValueError("{filepath} and {filename} cannot be combined")
    return parts


def _parse_part(segment: str, position: int) -> _UploadPathSegment:
    name = segment[1:-1]
    if segment.startswith("{") and segment.endswith("}") and name.isidentifier():
        return _UploadPathSegment(name, variable=True)
    if "{" in segment or "}" in segment:
        raise ValueError(f"segment {position}: a variable is a whole segment, like {{name}}")
    if set(segment) & set("%?#"):
        raise ValueError(f"segment {position}: write names unencoded, without %, ? or #")
    rule = _broken_rule(segment)
    if rule is not None:
        raise ValueError(f"segment {position} {rule}")
    return _UploadPathSegment(segment)
