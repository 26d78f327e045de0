"""What is said of a file before its bytes.

One rule: a browser saves what it gets here, and never shows, guesses or runs it: an attachment, of
the type that was stored, in a sandbox. Pure.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from gateway.domain.metadata import content_disposition
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import Stat

NOBODY_ELSES: Final = "private, no-cache"
"""Whoever asks again is decided upon again, and hears "not modified" where nothing has changed."""

_SANDBOX: Final = "sandbox; default-src 'none'"
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """How a file is to be handed out: the name to save it under, how it may be cached.

    What is None is as usual.
    """

    filename: str | None = None
    cache_control: str | None = None


def head_of(stat: Stat, wish: ResponseOptions) -> dict[str, str]:
    """Return the headers of an answer with this file, or about it."""
    return {
        **head_of_any(wish.filename or stat.path.rpartition("/")[2], wish),
        "Accept-Ranges": "bytes",
        "Content-Type": type_of(stat),
        "ETag": f'"{stat.etag}"',
        "Last-Modified": formatdate(modified_of(stat), usegmt=True),
    }


def modified_of(stat: Stat) -> int:
    """Return the second of the last change; never in the future (RFC 9110 section 8.8.2.1)."""
    return max(0, min(int(stat.modified), int(time.time())))


def head_of_any(filename: str, wish: ResponseOptions) -> dict[str, str]:
    """Return the headers that all downloads have."""
    cached = wish.cache_control
    return {
        "Cache-Control": cached if cached and _PRINTABLE.fullmatch(cached) else NOBODY_ELSES,
        "Content-Disposition": content_disposition(filename),
        "Content-Security-Policy": _SANDBOX,
        "X-Content-Type-Options": "nosniff",
    }


def type_of(stat: Stat) -> str:
    """Return the type that was stored with a file, else what its name tells."""
    stored = stat.mime
    return stored if stored and _PRINTABLE.fullmatch(stored) else guess_mime(stat.path)
