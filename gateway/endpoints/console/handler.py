"""Serves the pages and what belongs to them, open to all.

Nothing is inline and nothing comes from other hosts. Source: Content Security Policy level 3.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

from aiohttp import hdrs

from gateway.auth.request import IncomingRequest
from gateway.endpoints.console.pages import PagePlace, find_page
from gateway.endpoints.console.static_files import StaticFile, StaticFiles
from gateway.errors import Refusal
from gateway.http.accept import prefers_html
from gateway.http.responses import ApiHandler, Response
from gateway.settings import Settings

_POLICY: Final = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "media-src 'self'",
    "font-src 'self' data:",
    "connect-src 'self'",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
))  # fmt: skip

PAGE_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-cache",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",  # for browsers before frame-ancestors
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The headers of every file. A page of another origin can neither frame nor read it."""

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""How long a file is good whose URL names the version of all files (RFC 8246)."""

_READ: Final = frozenset({"GET", "HEAD"})


class PagesEndpoint:
    """Serves the pages, and `/-/pages/{filepath}`.

    Raises `ConfigError` for a theme or a translation that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._files = StaticFiles(settings) if settings.web else None
        self.docs = "/-/openapi.json" if self._files is None else "/-/docs"

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"docs": self._docs, "pages": self._file}

    def page(self, incoming: IncomingRequest) -> Response | None:
        """Return the page of a request that a browser sends for a person, None for any other one."""
        if self._files is None or incoming.method not in _READ:
            return None
        place = find_page(incoming.raw_path)
        if place is None or not prefers_html(incoming.headers):
            return None
        return _respond(incoming, self._files.pages[place])

    def set_vary(self, method: str, raw_path: str, headers: MutableMapping[str, str]) -> None:
        """Tell caches that the path of a page has another answer for a program (RFC 9110 12.5.5)."""
        if self._files is not None and method in _READ and find_page(raw_path) is not None:
            headers[hdrs.VARY] = ", ".join(filter(None, (headers.get(hdrs.VARY), hdrs.ACCEPT)))

    async def _docs(self, incoming: IncomingRequest) -> Response:
        return _respond(incoming, self._require().pages[PagePlace("docs", "./")])

    async def _file(self, incoming: IncomingRequest) -> Response:
        files = self._require()
        version, _, name = incoming.variables["filepath"].partition("/")
        if not version.startswith("v-"):
            name = incoming.variables["filepath"]
        file = files.named.get(name)
        if file is None:
            raise Refusal("not_found", "the pages have no such file")
        response = _respond(incoming, file)
        if version == files.version:
            response.headers[hdrs.CACHE_CONTROL] = IMMUTABLE
        return response

    def _require(self) -> StaticFiles:
        if self._files is None:
            raise Refusal("not_found", "this gateway has no pages: --web=off")
        return self._files


def _respond(incoming: IncomingRequest, file: StaticFile) -> Response:
    if file.etag in incoming.headers.get(hdrs.IF_NONE_MATCH, ""):
        response = Response(status=304)
    else:
        response = Response(body=file.content, content_type=file.media_type, charset="utf-8")
    response.headers.update({**PAGE_HEADERS, "ETag": file.etag})
    return response
