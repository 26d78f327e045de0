"""The committed uploads in a journal, the newest first.

Ids begin with the time of the upload, so the primary key is the order of the list.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple

from gateway.domain.model import Identity
from gateway.events.database import Database, Row, select

WINDOW_ROWS: Final = 1000
"""Uploads that one operation reads: some 5 ms."""

_COLUMNS: Final = (
    "id, path, bytes, mime, digests, inode, mtime_ns, principal, remote, created, committed, place,"
    " pending"
)


class LoggedUpload(NamedTuple):
    """A committed upload. `etag` is that of the file it became; `place` is its object, None for a file.

    `pending`: it is not known yet whether it was published. Times are Unix times.
    """

    id: str
    path: str
    bytes: int
    mime: str
    etag: str | None
    digests: dict[str, str]
    principal: dict[str, Any] | None
    remote: str | None
    created: float
    committed: float
    place: dict[str, Any] | None
    pending: bool


class LoggedWindow(NamedTuple):
    """The uploads of one window that match, and the id down to which was read, None at the end."""

    uploads: list[LoggedUpload]
    reached: str | None


class UploadLog:
    """Reads a journal's uploads in windows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def window(
        self, before: str, not_before: str, matches: Callable[[LoggedUpload], bool]
    ) -> Future[LoggedWindow]:
        """Read up to `WINDOW_ROWS` uploads whose id is below `before` and from `not_before` on."""
        return self._database.submit(
            partial(_window, before=before, not_before=not_before, matches=matches)
        )


def _window(
    db: sqlite3.Connection, before: str, not_before: str, matches: Callable[[LoggedUpload], bool]
) -> LoggedWindow:
    statement = f"SELECT {_COLUMNS} FROM uploads WHERE id < ? AND id >= ? ORDER BY id DESC LIMIT ?"  # noqa: S608
    rows = select(db, statement, (before, not_before, WINDOW_ROWS))
    uploads = [upload for upload in map(logged_upload, rows) if matches(upload)]
    return LoggedWindow(uploads, rows[-1]["id"] if len(rows) == WINDOW_ROWS else None)


def logged_upload(row: Row) -> LoggedUpload:
    """Return an upload of its row."""
    place = json.loads(row["place"] or "null")
    own = Identity(row["inode"], row["bytes"], row["mtime_ns"]).etag
    return LoggedUpload(
        id=row["id"],
        path=row["path"],
        bytes=row["bytes"],
        mime=row["mime"],
        etag=own if place is None else place.get("etag"),
        digests=json.loads(row["digests"]),
        principal=json.loads(row["principal"] or "null"),
        remote=row["remote"],
        created=row["created"],
        committed=row["committed"],
        place=place,
        pending=bool(row["pending"]),
    )
