"""The held uploads in a journal as they are told: undecided, accepted and not yet published, rejected.

Ids begin with the time of the upload, so the primary key is the order of the list.
"""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from gateway.events.database import Database, Row, select

WINDOW_ROWS: Final = 100
"""Held uploads that one operation reads: their headers may have 32 KiB each."""

HeldState = Literal["undecided", "accepted", "rejected"]


class HeldUpload(NamedTuple):
    """A held upload. `upload` has the fields of `domain.model.Upload` as the decisions so far left them.
    `place` is its private object, None for a file.

    `handlers` are those that have not decided yet, in their order. `refusal` is what is told of a
    rejection. Times are Unix times.
    """

    id: str
    state: HeldState
    upload: dict[str, Any]
    bytes: int
    mime: str
    digests: dict[str, str]
    place: dict[str, Any] | None
    event_id: str
    handlers: tuple[str, ...]
    refusal: dict[str, Any] | None
    created: float
    decided: float | None


class HeldLog:
    """Reads a journal's held uploads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def window(self, before: str, not_before: str) -> Future[list[HeldUpload]]:
        """Read up to `WINDOW_ROWS` whose id is below `before` and from `not_before` on, newest first."""
        return self._database.submit(partial(_window, before=before, not_before=not_before))

    def count(self) -> Future[int]:
        """Count those that are not published and not rejected."""
        return self._database.submit(_count)


def _window(db: sqlite3.Connection, before: str, not_before: str) -> list[HeldUpload]:
    statement = "SELECT * FROM held WHERE id < ? AND id >= ? ORDER BY id DESC LIMIT ?"
    return list(map(held_upload, select(db, statement, (before, not_before, WINDOW_ROWS))))


def _count(db: sqlite3.Connection) -> int:
    statement = "SELECT count(*) FROM held INDEXED BY held_by_state WHERE state IN (?, ?)"
    (count,) = db.execute(statement, ("undecided", "accepted")).fetchone()
    return int(count)


def find_held(db: sqlite3.Connection, upload_id: str) -> HeldUpload | None:
    """Return a held upload, None where there is none of this id."""
    rows = select(db, "SELECT * FROM held WHERE id = ?", (upload_id,))
    return held_upload(rows[0]) if rows else None


def held_upload(row: Row) -> HeldUpload:
    """Return a held upload of its row."""
    return HeldUpload(
        id=row["id"],
        state=row["state"],
        upload=json.loads(row["upload"]),
        bytes=row["bytes"],
        mime=row["mime"],
        digests=json.loads(row["digests"]),
        place=json.loads(row["place"] or "null"),
        event_id=row["event_id"],
        handlers=tuple(json.loads(row["handlers"])),
        refusal=json.loads(row["refusal"] or "null"),
        created=row["created"],
        decided=row["decided"],
    )
