"""Objects of whole bodies that are not visible, for which this journal answers.

A row is durable before its object exists, and goes after it. So an object is removed as soon as nothing
else in this journal needs it: the object of a held upload, or of one whose publishing is not settled, is
needed. Journals of other processes and gateways have rows of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from gateway.events.database import Database

MAX_ROWS: Final = 1000
"""Rows that one operation reads: some 3 ms."""

_IS_HELD: Final = "SELECT 1 FROM held h WHERE h.id = o.id AND h.state != 'rejected'"
_IS_PENDING: Final = "SELECT 1 FROM uploads u WHERE u.id = o.id AND u.pending"
_WAS_HELD: Final = "SELECT 1 FROM held h WHERE h.id = o.id"
_ROWS: Final = (
    f"SELECT o.id, o.bucket, o.key, o.claim, EXISTS ({_IS_HELD}) OR EXISTS ({_IS_PENDING}),"  # noqa: S608 (ours)
    f" EXISTS ({_WAS_HELD}) FROM private_objects o"
)


class PrivateObjectRow(NamedTuple):
    """The private object of an upload, and who needs it.

    `claim` is there while the state of a partial upload may still name it: the claim of the hold.
    `was_held`: there is a row of a held upload, decided or not.
    """

    upload_id: str
    bucket: str
    key: str
    claim: str | None
    is_needed: bool
    was_held: bool


class PrivateObjectWindow(NamedTuple):
    """Some rows of those up to the id `last`, which is None where there were none."""

    rows: Sequence[PrivateObjectRow]
    last: str | None


class PrivateObjectLog:
    """The table `private_objects` of a journal. Methods may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, upload_id: str, bucket: str, key: str, claim: str | None = None) -> Future[None]:
        """Answer for an object that is about to exist."""
        statement = "INSERT OR REPLACE INTO private_objects (id, bucket, key, claim) VALUES (?, ?, ?, ?)"
        return self._database.write(statement, (upload_id, bucket, key, claim))

    def end_claim(self, upload_id: str) -> Future[None]:
        """Note that no state of a partial upload names the object any more."""
        return self._database.write("UPDATE private_objects SET claim = NULL WHERE id = ?", (upload_id,))

    def remove(self, upload_id: str) -> Future[None]:
        """Answer no longer for the object of an upload."""
        return self._database.write("DELETE FROM private_objects WHERE id = ?", (upload_id,))

    def find(self, upload_id: str) -> Future[PrivateObjectRow | None]:
        """Return the row of an upload, if there is one."""

        def operation(db: sqlite3.Connection) -> PrivateObjectRow | None:
            values = db.execute(f"{_ROWS} WHERE o.id = ?", (upload_id,)).fetchone()
            return None if values is None else _row(values)

        return self._database.submit(operation)

    def unneeded(self, after: str) -> Future[PrivateObjectWindow]:
        """Find, in rows with ids above `after`, objects that nobody needs or that have a claim."""

        def operation(db: sqlite3.Connection) -> PrivateObjectWindow:
            statement = f"{_ROWS} WHERE o.id > ? ORDER BY o.id LIMIT ?"
            rows = [_row(values) for values in db.execute(statement, (after, MAX_ROWS))]
            unneeded = [row for row in rows if row.claim is not None or not row.is_needed]
            return PrivateObjectWindow(unneeded, rows[-1].upload_id if rows else None)

        return self._database.submit(operation)


def _row(values: Sequence[object]) -> PrivateObjectRow:
    upload_id, bucket, key, claim, is_needed, was_held = values
    return PrivateObjectRow(
        str(upload_id),
        str(bucket),
        str(key),
        None if claim is None else str(claim),
        bool(is_needed),
        bool(was_held),
    )
