"""Serves the pages and what belongs to them, open to all.

Nothing is inline and nothing comes from other hosts. Source: Content Security Policy level 3.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import hdrs

from gateway.auth.request import IncomingRequest
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, Response

STATIC: Final = Path(__file__).parent / "static"

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_POLICY: Final = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
))  # fmt: skip

PAGE_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-cache",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The headers of every file. A page of another origin can neither frame nor read it."""


class StaticFile(NamedTuple):
    """A file in memory, with its media type and entity tag."""

    content: bytes
    media_type: str
    etag: str


class PagesEndpoint:
    """Serves `/-/docs` and `/-/pages/{name}`. The files are read once."""

    def __init__(self) -> None:
        self._files = {file.name: _read(file) for file in STATIC.iterdir() if file.suffix in _TYPES}

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"docs": self._docs, "pages": self._file}

    async def _docs(self, incoming: IncomingRequest) -> Response:
        return self._respond(incoming, "docs.html")

    async def _file(self, incoming: IncomingRequest) -> Response:
        return self._respond(incoming, incoming.variables["name"])

    def _respond(self, incoming: IncomingRequest, name: str) -> Response:
        file = self._files.get(name)
        if file is None:
            raise Refusal("not_found", "the pages have no such file")
        if file.etag in incoming.headers.get(hdrs.IF_NONE_MATCH, ""):
            response = Response(status=304)
        else:
            response = Response(body=file.content, content_type=file.media_type, charset="utf-8")
        response.headers.update({**PAGE_HEADERS, "ETag": file.etag})
        return response


def _read(file: Path) -> StaticFile:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return StaticFile(content, _TYPES[file.suffix], etag)
