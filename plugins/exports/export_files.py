"""Plugin exports: writes records, page by page, into a zip with CSV and JSON.

Memory does not grow with the number of records, and nothing is left behind: the files have no names, so
the system removes them in any case. Blocking: for threads.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, Final

MAX_COLUMNS: Final = 1000
"""Fields that become columns; those of further fields are in the JSON only."""

PIECE: Final = 1 << 20
BOM: Final = b"\xef\xbb\xbf"
"""Without it Excel does not recognize UTF-8; other programs ignore it."""

_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a text may begin with to be run as a formula; the last four are their full-width forms."""


class Spool:
    """Collects records for a zip.

    Threads take turns: `close` waits for one that still writes for a builder that was cancelled. Once
    closed it raises `ValueError`.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._lines = _nameless()
        self._made: IO[bytes] | None = None
        self._columns: dict[str, None] = {"key": None}
        self.count = 0

    def add(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Add records."""
        with self._turn:
            for item in items:
                for name in item:
                    if len(self._columns) < MAX_COLUMNS:
                        self._columns.setdefault(name)
                self._lines.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")
                self.count += 1
                _pause(self.count)

    def zipped(self, name: str) -> IO[bytes]:
        """Return a file without a name that holds the zip, at its beginning. `close` closes it."""
        with self._turn:
            self._lines.seek(0)  # where it is closed no file is made
            made = self._made = _nameless()
            with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
                for suffix, pieces in (("csv", self._csv()), ("json", self._json())):
                    with archive.open(f"{name}.{suffix}", "w", force_zip64=True) as part:
                        for piece in pieces:
                            part.write(piece)
            made.seek(0)
            return made

    def close(self) -> None:
        """Free the disk space."""
        with self._turn:
            self._lines.close()
            if self._made is not None:
                self._made.close()

    def _items(self) -> Iterator[dict[str, Any]]:
        self._lines.seek(0)
        return map(json.loads, self._lines)

    def _json(self) -> Iterator[bytes]:
        self._lines.seek(0)
        opening = b"[\n"
        for number, line in enumerate(self._lines):
            yield opening + line.rstrip(b"\n")
            opening = b",\n"
            _pause(number)
        yield b"\n]\n" if self.count else b"[]\n"

    def _csv(self) -> Iterator[bytes]:
        """RFC 4180, with a header line."""
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        columns = list(self._columns)
        rows.writerow(map(cell, columns))
        yield BOM
        for number, item in enumerate(self._items()):
            _pause(number)
            rows.writerow([cell(item.get(name)) for name in columns])
            if text.tell() >= PIECE:
                yield _taken(text)
        yield _taken(text)


def _pause(number: int) -> None:
    """Release the interpreter lock now and then: the server's thread would wait 5 ms at each call."""
    if number % 64 == 0:
        time.sleep(0.0002)


def _nameless() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="gateway-export-")


def cell(value: Any) -> str:
    """Return a value as CSV text; text that a spreadsheet would run gets a `'` in front."""
    if value is None:
        return ""
    if isinstance(value, str):
        return "'" + value if value.startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False)


def _taken(text: io.StringIO) -> bytes:
    piece = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return piece
