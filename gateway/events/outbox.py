"""Where events go in, and what the commit writes down before it publishes.

The commit's methods queue one small operation each and return its future, durable when done. The
deliveries of an upload are `held` (in memory) from their recording to the release. `publish` takes
events of others, due at once.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from gateway.domain.model import Identity
from gateway.events.database import Database, insert
from gateway.events.loop_bridge import BatchWriter, LoopBridge
from gateway.events.protocols import NewEvent
from gateway.events.unpublished import UnpublishedEvents

Ring = Callable[[Iterable[str]], None]

_UPLOADS: Final = (
    "(id, path, bytes, mime, digests, device, inode, mtime_ns, principal, remote, created, committed,"
    " metadata, place, pending)"
)
_EVENTS: Final = "(id, type, upload_id, path, holder, created, body)"
_DELIVERIES: Final = "(event_id, handler, state, due, created, updated)"
_ONCE: Final = "ON CONFLICT DO NOTHING"


class EventRecord(NamedTuple):
    """One event of an upload, and whom to tell. `body` is what they get, secrets already redacted."""

    event_id: str
    type: str
    body: dict[str, Any]
    handlers: Sequence[str]


class UploadRecord(NamedTuple):
    """All that the journal keeps of one committed upload.

    `told` are its events; one without handlers leaves no trace. `metadata` is what the client said of
    the file. `place` is where it lies unless it is a file; `pending` says that nobody knows yet
    whether it was published there.
    """

    upload_id: str
    path: str
    identity: Identity
    mime: str
    digests: dict[str, str]
    principal: dict[str, Any] | None
    remote: str | None
    created: float
    told: Sequence[EventRecord] = ()
    metadata: dict[str, str] | None = None
    place: dict[str, Any] | None = None
    pending: bool = False


class JournalOutbox:
    """Uploads and their events. `ring` is told of handlers that have something new to claim."""

    def __init__(self, database: Database, held: UnpublishedEvents, ring: Ring) -> None:
        self._database = database
        self._held = held
        self._ring = ring
        self._published: BatchWriter[Sequence[NewEvent]] = BatchWriter(
            LoopBridge(database), _publish, self._told
        )

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Write events with their deliveries, due now; those that are there already stay as they are.

        Raises `EventEngineUnavailable`.
        """
        told = [event for event in events if event.handlers]
        if told:
            await self._published.put(told)

    def _told(self, batches: list[Sequence[NewEvent]]) -> None:
        self._ring({handler for batch in batches for event in batch for handler in event.handlers})

    def held(self) -> Future[int]:
        """Return 1 where deliveries wait that may belong to unpublished uploads, else 0.

        At start: nothing of what was never claimed is known to be published.
        """

        def operation(db: sqlite3.Connection) -> int:
            (found,) = db.execute(
                "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state = 'ready' AND attempt = 0)"
            ).fetchone()
            return int(found)

        return self._database.submit(operation)

    def record(self, records: Sequence[UploadRecord]) -> Future[None]:
        """Write uploads with their deliveries, all or none; nobody claims them before the release."""
        told = [(r.upload_id, telling) for r in records for telling in r.told if telling.handlers]
        for upload_id, telling in told:
            self._held.hold(telling.event_id, upload_id, telling.handlers)

        def operation(db: sqlite3.Connection) -> None:
            now = time.time()
            rows = [
                (telling.event_id, handler, "ready", now, now, now)
                for _, telling in told
                for handler in telling.handlers
            ]
            insert(db, "uploads", _UPLOADS, [_upload(record, now) for record in records])
            insert(db, "events", _EVENTS, [_event(upload_id, t, now) for upload_id, t in told])
            insert(db, "deliveries", _DELIVERIES, rows)

        def ended(future: Future[None]) -> None:
            if future.exception() is not None:
                self._held.release(telling.event_id for _, telling in told)

        future = self._database.submit(operation)
        future.add_done_callback(ended)
        return future

    def move(self, upload_id: str, path: str) -> Future[None]:
        """Change the final path of an upload that is not yet published."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute("UPDATE uploads SET path = ? WHERE id = ?", (path, upload_id))

        return self._database.submit(operation)

    def forget(self, upload_ids: Iterable[str]) -> Future[None]:
        """Delete all trace of uploads that were never published."""
        ids = list(upload_ids)

        def operation(db: sqlite3.Connection) -> None:
            rows = [(upload_id,) for upload_id in ids]
            db.executemany(
                "DELETE FROM deliveries WHERE event_id IN (SELECT id FROM events WHERE upload_id = ?)",
                rows,
            )
            db.executemany("DELETE FROM events WHERE upload_id = ?", rows)
            db.executemany("DELETE FROM uploads WHERE id = ?", rows)

        def ended(future: Future[None]) -> None:
            if future.exception() is None:
                self._held.forget(ids)

        future = self._database.submit(operation)
        future.add_done_callback(ended)
        return future

    def release(self, event_ids: Sequence[str]) -> None:
        """Let the deliveries of published uploads be claimed. Costs no transaction."""
        self._ring(self._held.release(event_ids))

    async def knows(self, upload_id: str, path: str) -> bool:
        """Tell whether the journal has recorded this upload under this path."""
        found = await asyncio.wrap_future(self.recorded([upload_id]))
        return upload_id in found and found[upload_id][0] == path

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


def _upload(record: UploadRecord, now: float) -> tuple[Any, ...]:
    identity = record.identity
    principal = None if record.principal is None else json.dumps(record.principal)
    return (
        record.upload_id,
        record.path,
        identity.size,
        record.mime,
        json.dumps(record.digests) if record.digests else "{}",
        identity.device,
        identity.inode,
        identity.mtime_ns,
        principal,
        record.remote,
        record.created,
        now,
        json.dumps(record.metadata) if record.metadata else None,
        None if record.place is None else json.dumps(record.place),
        int(record.pending),
    )


def _event(upload_id: str, telling: EventRecord, now: float) -> tuple[Any, ...]:
    return telling.event_id, telling.type, upload_id, None, None, now, json.dumps(telling.body)


def _publish(db: sqlite3.Connection, batches: list[Sequence[NewEvent]]) -> None:
    now = time.time()
    events = [event for batch in batches for event in batch]
    rows = [(e.id, e.type, e.upload_id, e.path, e.holder, e.created, json.dumps(e.body)) for e in events]
    insert(db, "events", _EVENTS, rows, on_conflict=_ONCE)
    due = [(e.id, handler, "ready", now, e.created, now) for e in events for handler in e.handlers]
    insert(db, "deliveries", _DELIVERIES, due, on_conflict=_ONCE)
