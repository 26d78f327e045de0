"""What one request asks of a file, whichever version of it turns out to be there.

One rule: all of it is decided on one `Stat`, that of the version that is sent. Pure.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from gateway.endpoints.downloads.conditions import is_fresh, range_counts
from gateway.endpoints.downloads.headers import modified_of
from gateway.endpoints.downloads.ranges import ByteRange, parts_of
from gateway.errors import Refusal
from gateway.storage.protocols import Stat

_HEADERS: Final = (
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Range",
)


class ConditionalRequest:
    """One request. After `choose`, `status` is that of the answer (200, 206 or 304).

    With `etag` it is about that version only, whatever its headers say.
    """

    def __init__(self, request: web.BaseRequest, etag: str | None = None) -> None:
        headers = request.headers
        self._etag = etag
        self._headers = {name: ", ".join(headers.getall(name)) for name in _HEADERS if name in headers}
        self._head = request.method == "HEAD"
        self.status = 200
        self.parts: Sequence[ByteRange] = ()

    def choose(self, stat: Stat) -> Sequence[ByteRange]:
        """Return, and keep, the parts of this version that are to be sent; none for HEAD and 304.

        Raises `Refusal` `precondition_failed`, `range_not_satisfiable`, `superseded`.
        """
        if self._etag is not None and stat.etag != self._etag:
            raise Refusal("superseded", f"{stat.path} has been replaced or changed since")
        self.status, parts = self._chosen(stat) if self._headers else (200, None)
        whole = () if self._head else (ByteRange(0, stat.bytes),)
        self.parts = whole if parts is None else parts
        return self.parts

    def _chosen(self, stat: Stat) -> tuple[int, Sequence[ByteRange] | None]:
        """Return the status and the parts, None for the whole file."""
        headers, modified = self._headers, modified_of(stat)
        if is_fresh(headers, stat.etag, modified):
            return 304, ()
        if self._head or "Range" not in headers:
            return 200, None
        if not range_counts(headers, stat.etag, modified, time.time()):
            return 200, None
        parts = parts_of(headers["Range"], stat.bytes)
        return (200, None) if parts is None else (206, parts)
