"""The files of the pages, in memory, with the theme and the languages of the operator."""

from __future__ import annotations

import hashlib
import html
import json
from pathlib import Path
from typing import Final, NamedTuple

from gateway.endpoints.console.pages import BASES, PAGES, PagePlace
from gateway.endpoints.console.translations import LANGUAGES, check_translation, language_name
from gateway.errors import ConfigError
from gateway.settings import Settings

STATIC: Final = Path(__file__).parent / "static"

THEME: Final = "theme.css"

MAX_FILE_BYTES: Final = 1 << 20
"""Bytes of a style sheet or language of the operator, which are kept in memory."""

MAX_LANGUAGES: Final = 100

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


class StaticFile(NamedTuple):
    """A file in memory, with its media type and entity tag."""

    content: bytes
    media_type: str
    etag: str


class StaticFiles:
    """The files by their names, and the document of each page. They are read once.

    `version` is the first segment of the URLs that pages use: it names the content of all files.
    Raises `ConfigError` for a theme or a translation that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.named = {
            path.relative_to(STATIC).as_posix(): _static_file(path.read_bytes(), path.suffix)
            for path in STATIC.rglob("*")
            if path.suffix in _TYPES
        }
        self.named |= read_operator_files(settings)
        etags = "".join(f"{name}{file.etag}" for name, file in sorted(self.named.items()))
        self.version = f"v-{hashlib.sha256(etags.encode()).hexdigest()[:16]}"
        themed = settings.web_theme is not None
        documents = {
            "page.html": [PagePlace(name, base) for name in PAGES.values() for base in BASES],
            "docs.html": [PagePlace("docs", "./")],
        }
        self.pages = {
            place: self._filled(self.named[document], place, themed=themed)
            for document, places in documents.items()
            for place in places
        }
        for document in documents:
            del self.named[document]

    def _filled(self, document: StaticFile, place: PagePlace, *, themed: bool) -> StaticFile:
        """Return the document of a page."""
        link = f'<link rel="stylesheet" href="%FILES%{THEME}">\n' if themed else ""
        values = {
            "  %THEME%\n": link,
            "%FILES%": f"{place.base}pages/{self.version}/",
            "%API%": place.base,
            "%PAGE%": place.name,
            "%LANGUAGES%": html.escape(json.dumps(self._languages(), ensure_ascii=False)),
        }
        text = document.content.decode()
        for name, value in values.items():
            text = text.replace(name, value)
        return _static_file(text.encode(), ".html")

    def _languages(self) -> dict[str, str | None]:
        """Return the name of each language in itself, by its code; None: the browser has to name it."""
        names = {
            name.removeprefix(f"{LANGUAGES}/").removesuffix(".json"): language_name(file.content)
            for name, file in sorted(self.named.items())
            if name.startswith(f"{LANGUAGES}/")
        }
        return {"en": None, **names}


def read_operator_files(settings: Settings) -> dict[str, StaticFile]:
    """Read the theme and the translations of the settings. Raises `ConfigError`."""
    files: dict[str, StaticFile] = {}
    if not settings.web:
        return files
    if settings.web_theme is not None:
        files[THEME] = _static_file(_theme(settings.web_theme), ".css")
    if settings.web_translations is not None:
        for path in _translations(settings.web_translations):
            content = _read(path)
            check_translation(path, content)
            files[f"{LANGUAGES}/{path.name}"] = _static_file(content, ".json")
    return files


def _theme(path: Path) -> bytes:
    content = _read(path)
    try:
        content.decode()
    except UnicodeDecodeError:
        raise ConfigError("--web-theme is not a style sheet in UTF-8", str(path)) from None
    return content


def _translations(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError("--web-translations is not a folder", str(folder))
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ConfigError("--web-translations has no language, such as fr.json", str(folder))
    if len(paths) > MAX_LANGUAGES:
        raise ConfigError(f"--web-translations has more than {MAX_LANGUAGES} languages", str(folder))
    return paths


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
