"""Reads an OpenAPI document, and follows its references. Errors name its file and line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from gateway.endpoints.routing.specification.json_text import JsonText
from gateway.endpoints.routing.specification.places import Lines, Place, child, dotted, fail
from gateway.endpoints.routing.specification.yaml_text import YamlText
from gateway.errors import ConfigError

MAX_BYTES: Final = 32 << 20
"""Bytes of the largest document that is read. GitHub's has 13 MB."""

MAX_REFERENCES: Final = 32
"""References that lead to references."""

_VERSION: Final = re.compile(r"3\.[01](\.\d+(-\w+)?)?")


class Located(NamedTuple):
    """A value of a document, and its place there, behind all references."""

    value: Any
    place: Place


class Source:
    """An OpenAPI document. `errors` are its faults that were noted so far, each once."""

    def __init__(self, file: Path, data: Mapping[str, Any], lines: Lines) -> None:
        self.file = file
        self.data = data
        self.version = str(data["openapi"])
        self.errors: list[ConfigError] = []
        self._lines = lines
        self._noted: set[str] = set()

    @property
    def is_30(self) -> bool:
        """Whether its schemas are those of OpenAPI 3.0, and not JSON Schema 2020-12."""
        return self.version.startswith("3.0")

    def line(self, where: Sequence[str | int]) -> int:
        """Return the line (from 1) of the key or item at `where`, or of the nearest above."""
        return self._lines.line(where)

    def error(self, message: str, where: Sequence[str | int]) -> ConfigError:
        """Return the error of a place in the document."""
        return ConfigError(f"{dotted(where)}: {message}", str(self.file), self.line(where))

    def note(self, message: str, where: Sequence[str | int]) -> None:
        """Note a fault of the document; a line has the same fault once."""
        key = f"{self.line(where)} {message}"
        if key not in self._noted:
            self._noted.add(key)
            self.errors.append(self.error(message, where))

    def add(self, error: ConfigError) -> None:
        """Note an error that was raised, once."""
        if str(error) not in self._noted:
            self._noted.add(str(error))
            self.errors.append(error)

    def follow(self, value: Any, place: Place) -> Located:
        """Return what a value refers to, or itself. Raises `ConfigError` for a bad reference."""
        for _ in range(MAX_REFERENCES):
            reference = value.get("$ref") if isinstance(value, dict) else None
            if reference is None:
                return Located(value, place)
            value, place = self.resolve(reference, (*place, "$ref"))
        raise self.error("references lead to references without an end", place)

    def resolve(self, reference: Any, where: Place) -> Located:
        """Return what a local reference leads to (`#/components/...`). Raises `ConfigError`."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            message = (
                "references lead into the same file (`#/components/...`): bundle the document into one"
                " file first"
            )
            raise self.error(message, where)
        value: Any = self.data
        place: Place = ()
        for step in unquote(reference[2:]).split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            value = child(value, name)
            place = (*place, name)
            if value is None:
                raise self.error("the reference leads to nothing in this file", where)
        return Located(value, place)

    def mapping(self, value: Any, place: Place) -> dict[str, Any]:
        """Return a value that must be a mapping; nothing is an empty one. Raises `ConfigError`."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error("must be a mapping", place)
        return value

    def items(self, value: Any, place: Place) -> list[Any]:
        """Return a value that must be a list; nothing is an empty one. Raises `ConfigError`."""
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error("must be a list", place)
        return value


def read_source(file: Path) -> Source:
    """Read an OpenAPI document, in JSON or YAML. Raises `ConfigError`."""
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            fail(str(file), f"the document has {size} bytes: at most {MAX_BYTES} are read")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        fail(str(file), "the file is not UTF-8")
    except OSError as error:
        fail(str(file), f"the OpenAPI document cannot be read: {error.strerror}")
    is_json = file.suffix == ".json" or text.lstrip()[:1] == "{"
    parsed = JsonText(str(file), text) if is_json else YamlText(str(file), text)
    return _checked(file, parsed.data, parsed)


def _checked(file: Path, data: Any, lines: Lines) -> Source:
    """Return the document. Raises `ConfigError` for what is none, and for other versions."""
    if isinstance(data, dict) and "swagger" in data:
        message = "this is Swagger 2.0, which is not read: convert it to OpenAPI 3.0 or 3.1"
        fail(str(file), message, lines.line(("swagger",)))
    if not isinstance(data, dict) or "openapi" not in data:
        fail(str(file), "this is no OpenAPI document: it has no key `openapi` with its version", 1)
    if not _VERSION.fullmatch(str(data["openapi"])):
        message = "OpenAPI 3.0 and 3.1 are read, this is another version (`openapi: 3.1.1`)"
        fail(str(file), message, lines.line(("openapi",)))
    return Source(file, data, lines)
