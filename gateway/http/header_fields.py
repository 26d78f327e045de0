"""Request headers as plain dicts: every line by its name, and one value for each name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

from gateway.telemetry.redaction import INTERNAL_HEADER

_INTERNAL: Final = INTERNAL_HEADER.lower()
_PARAMETER: Final = re.compile(r';\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))')
"""A parameter of a header: its name, and its value quoted or plain (RFC 6266 section 4.1)."""

_EXTENDED_VALUE: Final = re.compile(r"utf-8'[^']*'(.+)", re.IGNORECASE)
_ESCAPED: Final = re.compile(r'\\([\\"])')

Lines = Mapping[str, Sequence[str]]
"""The lines of each header, by its name in lower case."""


class HeaderFields(NamedTuple):
    """The headers of a request, read once.

    `lines` are the lines of each header by its name in lower case (RFC 9110 section 5.3). `values` are
    what scripts get: see `headers_as_dict`.
    """

    lines: Lines
    values: dict[str, str]


def read_headers(headers: Mapping[str, str]) -> HeaderFields:
    """Read headers in one pass; a repeated name, and the internal credential, need a second one."""
    lines: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    is_rare = False
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in lines:
            lines[lowered].append(value)
            is_rare = True
        else:
            lines[lowered] = [value]
            values[name] = value if value.isascii() else replace_surrogates(value)
    if is_rare or _INTERNAL in lines:
        values = headers_as_dict(headers)
    return HeaderFields(lines, values)


def headers_as_dict(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as a plain dict; lines of one name are joined (RFC 9110 section 5.2).

    Without the internal credential: it is for `auth` alone, not for scripts.
    """
    values: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, raw in headers.items():
        lowered = name.lower()
        if lowered == _INTERNAL:
            continue
        value = raw if raw.isascii() else replace_surrogates(raw)
        first = names.setdefault(lowered, name)
        if first in values:
            value = f"{values[first]}{'; ' if lowered == 'cookie' else ', '}{value}"
        values[first] = value
    return values


def replace_surrogates(value: str) -> str:
    """Return a header's value as valid text: aiohttp leaves bytes that are not UTF-8 as surrogates."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def filename_of(lines: Lines) -> str | None:
    """Return the last segment of the file name in `Content-Disposition`, None if it has none.

    `filename*` precedes `filename` (RFC 6266 section 4.3) where it is in UTF-8: the reader of `email`
    takes every codec of Python, of which some raise, and its time grows with the square of the length.
    The name is that of a client: not checked.
    """
    text = replace_surrogates(", ".join(lines.get("content-disposition", ())))
    values: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(text):
        values.setdefault(name.lower(), _ESCAPED.sub(r"\1", quoted) or plain)
    extended = _EXTENDED_VALUE.fullmatch(values.get("filename*", ""))
    filename = values.get("filename", "") if extended is None else unquote(extended[1])
    return filename.replace("\\", "/").rpartition("/")[2] or None
