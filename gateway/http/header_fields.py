"""Request headers as plain dicts: every line by its name, and one value for each name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import Final, NamedTuple
from urllib.parse import unquote

from gateway.telemetry.redaction import INTERNAL_HEADER

_INTERNAL: Final = INTERNAL_HEADER.lower()
_EXTENDED_FILENAME: Final = re.compile(r";\s*filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)

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

    `filename*` precedes `filename` (RFC 6266 section 4.3). The name is that of a client: not checked.
    """
    text = replace_surrogates(", ".join(lines.get("content-disposition", ())))
    if (extended := _EXTENDED_FILENAME.search(text)) is not None:
        name: str | None = unquote(extended[1])
    else:
        message = Message()
        message["Content-Disposition"] = text
        name = message.get_filename()
    return name.replace("\\", "/").rpartition("/")[2] if name else None
