"""Headers of downloads: a browser saves what it gets, and never shows, guesses or runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final
from urllib.parse import quote

from gateway.endpoints.downloads.negotiation import modified_second
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import Stat

DEFAULT_CACHE_CONTROL: Final = "private, no-cache"
"""Each request is authorized anew, and gets 304 where nothing has changed."""

_SANDBOX: Final = "sandbox; default-src 'none'"
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{1,255}")
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 !#$&'()+,.;=@^_`{}~\[\]-]")


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """The name to save a download under, and how it may be cached; None is the default."""

    filename: str | None = None
    cache_control: str | None = None


def file_headers(stat: Stat, options: ResponseOptions) -> dict[str, str]:
    """Return the headers of a response with this file, or about it."""
    return {
        **download_headers(options.filename or stat.path.rpartition("/")[2], options),
        "Accept-Ranges": "bytes",
        "Content-Type": media_type_of(stat),
        "ETag": f'"{stat.etag}"',
        "Last-Modified": formatdate(modified_second(stat), usegmt=True),
    }


def download_headers(filename: str, options: ResponseOptions) -> dict[str, str]:
    """Return the headers that all downloads have."""
    cached = options.cache_control
    return {
        "Cache-Control": cached if cached and _PRINTABLE.fullmatch(cached) else DEFAULT_CACHE_CONTROL,
        "Content-Disposition": content_disposition(filename),
        "Content-Security-Policy": _SANDBOX,
        "X-Content-Type-Options": "nosniff",
    }


def media_type_of(stat: Stat) -> str:
    """Return the media type that was stored with a file, else that of its name."""
    stored = stat.mime
    return stored if stored and _PRINTABLE.fullmatch(stored) else guess_mime(stat.path)


def content_disposition(filename: str) -> str:
    """Return the header for a file to be saved under this name (RFC 6266, RFC 8187).

    Clients without `filename*` get the name in plain ASCII.
    """
    plain = _NOT_PLAIN.sub("_", filename)
    exact = quote(filename, safe="", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"
