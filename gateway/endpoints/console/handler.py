"""Serves the pages and what belongs to them, open to all.

Nothing is inline and nothing comes from other hosts. Source: Content Security Policy level 3.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import hdrs

from gateway.auth.request import IncomingRequest
from gateway.endpoints.console.pages import PAGES, find_page
from gateway.errors import ConfigError, Refusal
from gateway.http.accept import prefers_html
from gateway.http.responses import ApiHandler, Response
from gateway.settings import Settings

STATIC: Final = Path(__file__).parent / "static"

THEME: Final = "theme.css"
LANGUAGES: Final = "languages"

MAX_FILE_BYTES: Final = 1 << 20
"""Bytes of a style sheet or language of the operator, which are kept in memory."""

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}

_POLICY: Final = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "media-src 'self'",
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
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The headers of every file. A page of another origin can neither frame nor read it."""

_BASES: Final = ("-/", "./", "../")


class StaticFile(NamedTuple):
    """A file in memory, with its media type and entity tag."""

    content: bytes
    media_type: str
    etag: str


class PagesEndpoint:
    """Serves the pages, and `/-/pages/{filepath}`. The files are read once.

    Raises `ConfigError` for a theme or a translation that cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._enabled = settings.web
        self._files = {
            str(path.relative_to(STATIC)): _static_file(path.read_bytes(), path.suffix)
            for path in STATIC.rglob("*")
            if path.suffix in _TYPES
        }
        self._files |= _operator_files(settings)
        self._pages = self._filled_pages(with_theme=settings.web_theme is not None)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"docs": self._docs, "pages": self._file}

    def page(self, incoming: IncomingRequest) -> Response | None:
        """Return the page of a request that a browser sends for a person, None for any other one."""
        if not self._enabled or incoming.method not in {"GET", "HEAD"}:
            return None
        place = find_page(incoming.raw_path)
        if place is None or not prefers_html(incoming.headers):
            return None
        response = _respond(incoming, self._pages[place])
        response.headers[hdrs.VARY] = hdrs.ACCEPT
        return response

    def _filled_pages(self, *, with_theme: bool) -> dict[tuple[str, str], StaticFile]:
        """Return the document of each page for each depth of its path."""
        template = self._files["page.html"].content.decode()
        link = f'<link rel="stylesheet" href="%API%pages/{THEME}">\n' if with_theme else ""
        template = template.replace("%THEME%\n", link)
        return {
            (name, base): _static_file(
                template.replace("%API%", base).replace("%PAGE%", name).encode(), ".html"
            )
            for name in PAGES.values()
            for base in _BASES
        }

    async def _docs(self, incoming: IncomingRequest) -> Response:
        return self._named(incoming, "docs.html")

    async def _file(self, incoming: IncomingRequest) -> Response:
        return self._named(incoming, incoming.variables["filepath"])

    def _named(self, incoming: IncomingRequest, name: str) -> Response:
        file = self._files.get(name)
        if not self._enabled:
            raise Refusal("not_found", "this gateway has no pages: --web off")
        if file is None:
            raise Refusal("not_found", "the pages have no such file")
        return _respond(incoming, file)


def _operator_files(settings: Settings) -> dict[str, StaticFile]:
    """Read the theme and the translations of the settings. Raises `ConfigError`."""
    files: dict[str, Path] = {}
    if settings.web_theme is not None:
        files[THEME] = settings.web_theme
    if settings.web_translations is not None:
        if not settings.web_translations.is_dir():
            raise ConfigError("--web-translations is not a folder", str(settings.web_translations))
        languages = sorted(settings.web_translations.glob("*.json"))
        files |= {f"{LANGUAGES}/{path.name}": path for path in languages}
    return {name: _static_file(_read(path), path.suffix) for name, path in files.items()}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", str(path)) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"is larger than {MAX_FILE_BYTES >> 20} MiB", str(path))
    return content


def _static_file(content: bytes, suffix: str) -> StaticFile:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return StaticFile(content, _TYPES[suffix], etag)


def _respond(incoming: IncomingRequest, file: StaticFile) -> Response:
    if file.etag in incoming.headers.get(hdrs.IF_NONE_MATCH, ""):
        response = Response(status=304)
    else:
        response = Response(body=file.content, content_type=file.media_type, charset="utf-8")
    response.headers.update({**PAGE_HEADERS, "ETag": file.etag})
    return response
