"""Notes of uploads that are published although their private file could not be removed.

Recovery takes a private file whose upload has no other name for one that was never published. Such a
file may lose its other name, when it is replaced or removed: then the note says what it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future

from gateway.events.database import Database


class PublishedNotes:
    """The notes in a journal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, upload_id: str) -> Future[None]:
        """Note that an upload is published."""
        return self._database.write("REPLACE INTO facts VALUES (?, '')", (_fact(upload_id),))

    def find(self, upload_ids: Sequence[str]) -> Future[set[str]]:
        """Return those of `upload_ids` that have a note."""
        names = {upload_id: _fact(upload_id) for upload_id in upload_ids}

        def operation(db: sqlite3.Connection) -> set[str]:
            find = "SELECT 1 FROM facts WHERE name = ?"
            return {key for key, name in names.items() if db.execute(find, (name,)).fetchone()}

        return self._database.submit(operation)

    def remove(self, upload_ids: Sequence[str]) -> Future[None]:
        """Remove notes, once the private files are gone, durably."""
        rows = [(_fact(upload_id),) for upload_id in upload_ids]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM facts WHERE name = ?", rows)

        return self._database.submit(operation)


def _fact(upload_id: str) -> str:
    """Return the name of a note in the table of facts."""
    return f"published {upload_id}"
