"""Parsers of the settings that say which files may be uploaded; see `values`."""

from __future__ import annotations

import re
from typing import Final

_MEDIA_RANGE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/(?:\*|[a-z0-9!#$&^_.+-]+)", re.ASCII)
_NAME_SUFFIX: Final = re.compile(r"\.[^/\\\s\x00-\x1f\x7f]{1,50}")


def media_range(value: str) -> str:
    """A media type, or all of a kind: `image/*` (RFC 9110 section 12.5.1), in lower case."""
    if not _MEDIA_RANGE.fullmatch(value.lower()):
        raise ValueError("must be a media type such as application/pdf, or all of a kind: image/*")
    return value.lower()


def name_suffix(value: str) -> str:
    """The end of a file name, from a dot on; in lower case."""
    if not _NAME_SUFFIX.fullmatch(value):
        raise ValueError("must be the end of a file name with its dot, such as .pdf or .tar.gz")
    return value.lower()
