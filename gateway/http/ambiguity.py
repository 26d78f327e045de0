"""Requests that the parser accepts, yet others might read differently: request smuggling."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import HttpVersion, HttpVersion10, HttpVersion11
from multidict import CIMultiDictProxy

HTTP_VERSIONS: Final = (HttpVersion10, HttpVersion11)

SINGLE_HEADERS: Final = ("Authorization", "Content-Type")
"""Headers of one line, which decide something here: of two lines, others may read the other one."""

_HOST: Final = re.compile(r"[A-Za-z0-9._~:\[\]!$&'()*+;=%-]*")
_ABSOLUTE_TARGET: Final = re.compile(r"https?://([^/?#]+)", re.IGNORECASE)


def find_ambiguity(version: HttpVersion, target: str, headers: CIMultiDictProxy[str]) -> str | None:
    """Return what others might read differently in the head of a request, None for nothing."""
    if version not in HTTP_VERSIONS:
        return "the HTTP version is neither 1.0 nor 1.1"
    codings = headers.get("Transfer-Encoding")
    if codings is not None and codings.strip().lower() != "chunked":
        return "unsupported Transfer-Encoding: send chunked"
    if codings is not None and version < HttpVersion11:
        return "Transfer-Encoding in an HTTP/1.0 request"  # RFC 9112 section 6.1
    host = headers.get("Host", "")
    if not _HOST.fullmatch(host):
        return "invalid Host header"  # RFC 9112 section 3.2
    absolute = None if target.startswith("/") else _ABSOLUTE_TARGET.match(target)
    if absolute is not None and absolute[1].lower() != host.lower():
        return "the Host header differs from the host of the request target"
    repeated = [name for name in SINGLE_HEADERS if len(headers.getall(name, ())) > 1]
    return f"more than one {repeated[0]} header" if repeated else None
