"""Request targets and valid paths.

Paths are decoded exactly once and checked, so that joined to any root they stay below it. Pure.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

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

MAX_NEW_FOLDERS: Final = 16
"""Folders that one upload may create where the settings say nothing else.

Each costs an inode and two syncs: 98 of them made an upload fifty times as slow as a flat one.
"""

MAX_NUMBERED_NAMES: Final = 20
"""`rename` counts up this far (`a-1.bin`, `a-2.bin`), then it appends a part of the upload's id."""

MAX_SUFFIX_BYTES: Final = 32
"""Bytes behind the last dot that count as a suffix to be kept; more is part of the name."""

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


def broken_rule(name: str) -> str | None:
    """Return the rule that a decoded segment breaks, as a predicate; None for a legal one."""
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
        rule = broken_rule(name)
        if rule is not None:
            end = ": it ends with a slash, and needs the name of a file"
            advice = end if not name and 1 < position == len(segments) else ""
            raise Refusal("bad_path", f"segment {position} of the path {rule}{advice}")


def names_beside(name: str, upload_id: str) -> Iterator[str]:
    """Yield names to try where `name` exists: `a-1.bin`, `a-2.bin`, then parts of the upload's id."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) > MAX_SUFFIX_BYTES:
        stem, dot, suffix = name, "", ""
    for mark in (*map(str, range(1, MAX_NUMBERED_NAMES)), upload_id[10:26], upload_id):
        tail = f"-{mark}{dot}{suffix}"
        yield _shorten(stem, MAX_SEGMENT_BYTES - len(tail.encode())) + tail


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


def decode_segment(raw: str) -> str:
    """Percent-decode one segment exactly once. Raises `Refusal("bad_path")`."""
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
    return tuple(decode_segment(raw) for raw in raw_path[1:].split("/"))


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


def _shorten(stem: str, max_bytes: int) -> str:
    return stem.encode()[: max(max_bytes, 1)].decode(errors="ignore")
