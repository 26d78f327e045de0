"""Events room, outbox: what the commit writes down before it publishes, and recovery reads back.

Each method queues one small operation and returns its future, durable when done. Deliveries are
born `held`: nobody may claim them before their upload is published. May import `model`,
`errors` and `database`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from gateway.events.database import Database
from gateway.model import Identity


class Record(NamedTuple):
    """All that the journal keeps of one committed upload, and whom to tell.

    `event_body` is what handlers get (secrets already redacted); `handlers` may be empty: then
    no event row is written.
    """

    upload_id: str
    path: str
    identity: Identity
    mime: str
    digests: dict[str, str]
    principal: dict[str, Any] | None
    remote: str | None
    created: float
    event_id: str
    event_type: str
    event_body: dict[str, Any]
    handlers: Sequence[str]


class Outbox:
    """Uploads and their events, from the commit's point of view."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def held(self) -> Future[int]:
        """Return how many deliveries belong to uploads that are not known to be published."""

        def operation(db: sqlite3.Connection) -> int:
            (count,) = db.execute("SELECT count(*) FROM deliveries WHERE state = 'held'").fetchone()
            return int(count)

        return self._database.submit(operation)

    def record(self, records: Sequence[Record]) -> Future[None]:
        """Write uploads with their held deliveries, all or none."""

        def operation(db: sqlite3.Connection) -> None:
            _insert(db, records, time.time())

        return self._database.submit(operation)

    def move(self, upload_id: str, path: str) -> Future[None]:
        """Change the final path of an upload that is not yet published."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute("UPDATE uploads SET path = ? WHERE id = ?", (path, upload_id))

        return self._database.submit(operation)

    def forget(self, upload_ids: Iterable[str]) -> Future[None]:
        """Delete all trace of uploads that were never published."""
        ids = [(upload_id,) for upload_id in upload_ids]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany(
                "DELETE FROM deliveries WHERE event_id IN (SELECT id FROM events WHERE upload_id = ?)",
                ids,
            )
            db.executemany("DELETE FROM events WHERE upload_id = ?", ids)
            db.executemany("DELETE FROM uploads WHERE id = ?", ids)

        return self._database.submit(operation)

    def release(self, event_ids: Sequence[str]) -> Future[None]:
        """Let the deliveries of published uploads be claimed: held becomes ready."""
        ids = [(event_id,) for event_id in event_ids]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany(
                "UPDATE deliveries SET state = 'ready' WHERE event_id = ? AND state = 'held'", ids
            )

        return self._database.submit(operation)

    def recorded(self, upload_ids: Sequence[str]) -> Future[dict[str, tuple[str, Identity]]]:
        """Return path and identity of those of `upload_ids` that the journal knows."""

        def operation(db: sqlite3.Connection) -> dict[str, tuple[str, Identity]]:
            found = {}
            for upload_id in upload_ids:
                row = db.execute(
                    "SELECT path, device, inode, bytes, mtime_ns FROM uploads WHERE id = ?",
                    (upload_id,),
                ).fetchone()
                if row is not None:
                    found[upload_id] = (str(row[0]), Identity(*row[1:]))
            return found

        return self._database.submit(operation)


def _insert(db: sqlite3.Connection, records: Sequence[Record], now: float) -> None:
    db.executemany(
        "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_upload_row(record, now) for record in records],
    )
    told = [record for record in records if record.handlers]
    db.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
        [(r.event_id, r.event_type, r.upload_id, now, json.dumps(r.event_body)) for r in told],
    )
    db.executemany(
        "INSERT INTO deliveries (event_id, handler, state, due, created, updated)"
        " VALUES (?, ?, 'held', ?, ?, ?)",
        [(r.event_id, handler, now, now, now) for r in told for handler in r.handlers],
    )


def _upload_row(record: Record, now: float) -> tuple[Any, ...]:
    identity = record.identity
    return (
        record.upload_id,
        record.path,
        identity.size,
        record.mime,
        json.dumps(record.digests) if record.digests else "{}",
        identity.device,
        identity.inode,
        identity.mtime_ns,
        None if record.principal is None else json.dumps(record.principal),
        record.remote,
        record.created,
        now,
    )
