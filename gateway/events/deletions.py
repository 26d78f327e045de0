"""Files that were removed for clients, recorded before they are removed.

A deletion is pending until the file is known to be gone, durably. Its event is held back in memory
meanwhile; a start settles what is pending by whether that version of the file is still there.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple

from gateway.domain.model import DELETED
from gateway.events.claims import Wakeups
from gateway.events.database import Database, insert
from gateway.events.unpublished import UnpublishedEvent, UnpublishedEvents

_DELETIONS: Final = "(id, path, etag, place, created, pending)"
_EVENTS: Final = "(id, type, path, created, body)"
_DELIVERIES: Final = "(event_id, handler, state, attempt, due, created, updated)"

MAX_PRUNED: Final = 1000
"""Deletions that one operation prunes: some 3 ms."""

FileVersionKey = tuple[str, str, str | None]
"""A version of a file: its path, its entity tag and, of an object, the upload that it was."""


class DeletionRecord(NamedTuple):
    """One version of a file that is about to be removed. `id` is that of its event too.

    `place` is the object that it is, None for a file. `body` is what `handlers` get, its secrets
    redacted.
    """

    id: str
    path: str
    etag: str
    place: dict[str, Any] | None
    body: dict[str, Any]
    handlers: Sequence[str]


class PendingDeletion(NamedTuple):
    """A deletion of which it is not known yet whether the file is gone."""

    id: str
    path: str
    etag: str
    place: dict[str, Any] | None


class DeletionLog:
    """The deletions in a journal, and their events. Methods may be called from any thread."""

    def __init__(self, database: Database, unpublished: UnpublishedEvents, wakeups: Wakeups) -> None:
        self._database = database
        self._unpublished = unpublished
        self._wakeups = wakeups

    def record_now(self, records: Sequence[DeletionRecord]) -> None:
        """Write deletions, pending, all or none; their events are held. Blocking.

        Raises `sqlite3.Error`, and what JSON cannot write.
        """
        self._hold(records)
        try:
            self._database.run(partial(self._record, records))
        except BaseException:
            self._unpublished.release([record.id for record in records])
            raise

    def record(self, record: DeletionRecord) -> Future[None]:
        """Do the same for one deletion."""
        self._hold([record])

        def finish(future: Future[None]) -> None:
            if future.exception() is not None:
                self._unpublished.release([record.id])

        future = self._database.submit(partial(self._record, [record]))
        future.add_done_callback(finish)
        return future

    def _hold(self, records: Sequence[DeletionRecord]) -> None:
        self._unpublished.hold(
            UnpublishedEvent(record.id, "", record.handlers) for record in records if record.handlers
        )

    def _record(self, records: Sequence[DeletionRecord], db: sqlite3.Connection) -> None:
        self._database.check_files()
        now = time.time()
        rows = [
            (r.id, r.path, r.etag, None if r.place is None else json.dumps(r.place), now, 1)
            for r in records
        ]
        insert(db, "deletions", _DELETIONS, rows)
        announced = [record for record in records if record.handlers]
        insert(
            db, "events", _EVENTS, [(r.id, DELETED, r.path, now, json.dumps(r.body)) for r in announced]
        )
        deliveries = [(r.id, name, "ready", 0, 0, now, now) for r in announced for name in r.handlers]
        insert(db, "deliveries", _DELIVERIES, deliveries)

    def forget(self, ids: Sequence[str]) -> Future[None]:
        """Delete deletions whose file stays, with their events."""

        def operation(db: sqlite3.Connection) -> None:
            rows = [(deletion_id,) for deletion_id in ids]
            db.executemany("DELETE FROM deliveries WHERE event_id = ?", rows)
            db.executemany("DELETE FROM events WHERE id = ?", rows)
            db.executemany("DELETE FROM deletions WHERE id = ?", rows)

        def finish(future: Future[None]) -> None:
            if future.exception() is None:
                self._unpublished.release(ids)

        future = self._database.submit(operation)
        future.add_done_callback(finish)
        return future

    def settle(self, ids: Sequence[str]) -> Future[None]:
        """Note that the files are gone, durably, and let their events be delivered at once.

        Nothing has to wait for the note: without it a start finds the same out again.
        """
        released = self._unpublished.release(ids)
        if handlers := {handler for event in released for handler in event.handlers}:
            self._wakeups.notify(handlers)

        def operation(db: sqlite3.Connection) -> None:
            rows = [(deletion_id,) for deletion_id in ids]
            db.executemany("UPDATE deletions SET pending = 0 WHERE id = ?", rows)

        return self._database.submit(operation)

    def pending(self) -> Future[list[PendingDeletion]]:
        """Return the deletions that are pending, after a start, and hold back their events."""

        def operation(db: sqlite3.Connection) -> list[PendingDeletion]:
            rows = db.execute("SELECT id, path, etag, place FROM deletions WHERE pending").fetchall()
            deletions = [
                PendingDeletion(key, path, etag, json.loads(place or "null"))
                for key, path, etag, place in rows
            ]
            for row in deletions:
                names = db.execute("SELECT handler FROM deliveries WHERE event_id = ?", (row.id,))
                handlers = [name for (name,) in names]
                if handlers:
                    self._unpublished.hold([UnpublishedEvent(row.id, "", handlers)])
            return deletions

        return self._database.submit(operation)

    def find(self, versions: Sequence[FileVersionKey]) -> Future[list[bool]]:
        """Return for each version whether it was removed for a client, for certain."""

        def operation(db: sqlite3.Connection) -> list[bool]:
            return [_is_deleted(db, version) for version in versions]

        return self._database.submit(operation)


def _is_deleted(db: sqlite3.Connection, version: FileVersionKey) -> bool:
    statement = (
        "SELECT EXISTS (SELECT 1 FROM deletions WHERE path = ?1 AND etag = ?2 AND NOT pending"
        " AND (?3 IS NULL OR json_extract(place, '$.upload_id') = ?3))"
    )
    (exists,) = db.execute(statement, version).fetchone()
    return bool(exists)


def prune_deletions(db: sqlite3.Connection, before: float) -> int:
    """Delete deletions that are settled and older than `before`; return how many, 0 for no more."""
    return db.execute(
        "DELETE FROM deletions WHERE id IN (SELECT id FROM deletions"
        " WHERE created < ? AND NOT pending ORDER BY created LIMIT ?)",
        (before, MAX_PRUNED),
    ).rowcount
