"""The journal as an outbox: what the commit writes before it publishes, and events of others.

The commit's methods queue one small operation each and return its future, durable when done. The
deliveries of an upload are held back in memory from their recording to their release. The row of an
object is pending until it is known whether S3 has published it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from gateway.domain.model import OBJECT_CREATED, Identity
from gateway.events.claims import UnpublishedEvents, Wakeups
from gateway.events.database import Database, insert
from gateway.events.loop_bridge import BatchWriter, LoopBridge
from gateway.events.protocols import NewEvent

_UPLOADS: Final = (
    "(id, path, bytes, mime, digests, device, inode, mtime_ns, principal, remote, created, committed,"
    " metadata, place, pending)"
)
_EVENTS: Final = "(id, type, upload_id, path, holder, created, body)"
_DELIVERIES: Final = "(event_id, handler, state, due, created, updated)"
_ONCE: Final = "ON CONFLICT DO NOTHING"


class EventRecord(NamedTuple):
    """One event of an upload for `handlers`. `body` is what they get, its secrets redacted."""

    event_id: str
    type: str
    body: dict[str, Any]
    handlers: Sequence[str]


class UploadRecord(NamedTuple):
    """What the journal keeps of one committed upload.

    An event without handlers is not recorded. `metadata` is the client's. `place` is the object that
    holds the upload, None for a file; `pending`: it is not known yet whether that was published.
    """

    upload_id: str
    path: str
    identity: Identity
    mime: str
    digests: dict[str, str]
    principal: dict[str, Any] | None
    remote: str | None
    created: float
    events: Sequence[EventRecord] = ()
    metadata: dict[str, str] | None = None
    place: dict[str, Any] | None = None
    pending: bool = False


class JournalOutbox:
    """Records uploads and events, and wakes the claims of their handlers."""

    def __init__(self, database: Database, unpublished: UnpublishedEvents, wakeups: Wakeups) -> None:
        self._database = database
        self._unpublished = unpublished
        self._wakeups = wakeups
        bridge = LoopBridge(database)
        self._published = BatchWriter[Sequence[NewEvent]](bridge, self._write, self._notify)

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Write events with their deliveries, due at once; those that exist already stay as they are.

        Raises `EventEngineUnavailable`.
        """
        new = [event for event in events if event.handlers]
        if new:
            await self._published.submit(new)

    def _write(self, db: sqlite3.Connection, batches: list[Sequence[NewEvent]]) -> None:
        self._database.check_files()
        _publish(db, batches)

    def _notify(self, batches: list[Sequence[NewEvent]]) -> None:
        events = itertools.chain.from_iterable(batches)
        self._wakeups.notify({handler for event in events for handler in event.handlers})

    def has_unclaimed(self) -> Future[bool]:
        """Return whether deliveries wait that were never claimed: their uploads may be unpublished."""

        def operation(db: sqlite3.Connection) -> bool:
            (exists,) = db.execute(
                "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state = 'ready' AND attempt = 0)"
            ).fetchone()
            return bool(exists)

        return self._database.submit(operation)

    def record_uploads(self, records: Sequence[UploadRecord]) -> Future[None]:
        """Write uploads with their deliveries, all or none; they are not claimed before the release."""
        events = [(r.upload_id, event) for r in records for event in r.events if event.handlers]
        for upload_id, event in events:
            self._unpublished.hold(event.event_id, upload_id, event.handlers)

        def operation(db: sqlite3.Connection) -> None:
            self._database.check_files()
            now = time.time()
            pairs = [(event.event_id, handler) for _, event in events for handler in event.handlers]
            insert(db, "uploads", _UPLOADS, [_upload(record, now) for record in records])
            insert(db, "events", _EVENTS, [_event(upload_id, event, now) for upload_id, event in events])
            insert(db, "deliveries", _DELIVERIES, [(*pair, "ready", 0, now, now) for pair in pairs])

        def finish(future: Future[None]) -> None:
            if future.exception() is not None:
                self._unpublished.release(event.event_id for _, event in events)

        future = self._database.submit(operation)
        future.add_done_callback(finish)
        return future

    def move_upload(self, upload_id: str, path: str) -> Future[None]:
        """Change the final path of an upload that is not yet published."""

        return self._database.write("UPDATE uploads SET path = ? WHERE id = ?", (path, upload_id))

    def forget_uploads(self, upload_ids: Iterable[str]) -> Future[None]:
        """Delete uploads that were never published, with their events."""
        ids = list(upload_ids)

        def operation(db: sqlite3.Connection) -> None:
            rows = [(upload_id,) for upload_id in ids]
            events = "(SELECT id FROM events WHERE upload_id = ?)"
            db.executemany(f"DELETE FROM deliveries WHERE event_id IN {events}", rows)  # noqa: S608 (ours)
            db.executemany("DELETE FROM events WHERE upload_id = ?", rows)
            db.executemany("DELETE FROM uploads WHERE id = ?", rows)

        def finish(future: Future[None]) -> None:
            if future.exception() is None:
                self._unpublished.forget(ids)

        future = self._database.submit(operation)
        future.add_done_callback(finish)
        return future

    def release_events(self, event_ids: Sequence[str]) -> None:
        """Let the deliveries of published uploads be claimed. Costs no transaction."""
        self._wakeups.notify(self._unpublished.release(event_ids))

    async def has_recorded(self, upload_id: str, path: str) -> bool:
        """Return whether the journal has recorded this upload under this path."""
        uploads = await asyncio.wrap_future(self.recorded_uploads([upload_id]))
        return upload_id in uploads and uploads[upload_id][0] == path

    def recorded_uploads(self, upload_ids: Sequence[str]) -> Future[dict[str, tuple[str, Identity]]]:
        """Return path and identity of those of `upload_ids` that the journal knows."""

        def operation(db: sqlite3.Connection) -> dict[str, tuple[str, Identity]]:
            statement = "SELECT path, inode, bytes, mtime_ns FROM uploads WHERE id = ?"
            rows = _rows_by_id(db, statement, upload_ids)
            return {upload_id: (str(path), Identity(*identity)) for upload_id, (path, *identity) in rows}

        return self._database.submit(operation)


def _rows_by_id(
    db: sqlite3.Connection, statement: str, upload_ids: Sequence[str]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for upload_id in upload_ids:
        if (row := db.execute(statement, (upload_id,)).fetchone()) is not None:
            yield upload_id, row


def _upload(record: UploadRecord, now: float) -> tuple[Any, ...]:
    identity = record.identity
    return (
        record.upload_id,
        record.path,
        identity.size,
        record.mime,
        json.dumps(record.digests) if record.digests else "{}",
        0,  # the device, which tells nothing: its number changes
        identity.inode,
        identity.mtime_ns,
        None if record.principal is None else json.dumps(record.principal),
        record.remote,
        record.created,
        now,
        json.dumps(record.metadata) if record.metadata else None,
        None if record.place is None else json.dumps(record.place),
        int(record.pending),
    )


def _event(upload_id: str, event: EventRecord, now: float) -> tuple[Any, ...]:
    return event.event_id, event.type, upload_id, None, None, now, json.dumps(event.body)


def _publish(db: sqlite3.Connection, batches: list[Sequence[NewEvent]]) -> None:
    now = time.time()
    events = [event for batch in batches for event in batch]
    rows = [(e.id, e.type, e.upload_id, e.path, e.holder, e.created, json.dumps(e.body)) for e in events]
    insert(db, "events", _EVENTS, rows, on_conflict=_ONCE)
    due = [(e.id, handler, "ready", 0, e.created, now) for e in events for handler in e.handlers]
    insert(db, "deliveries", _DELIVERIES, due, on_conflict=_ONCE)


_HANDLERS: Final = (
    "SELECT e.upload_id, e.id, d.handler FROM uploads u JOIN events e ON e.upload_id = u.id"
    " JOIN deliveries d ON d.event_id = e.id WHERE u.pending"
)


class PendingUpload(NamedTuple):
    """A recorded upload: its id, its path, where it may lie, and its events."""

    upload_id: str
    path: str
    place: dict[str, Any]
    event_ids: tuple[str, ...]


class PendingUploads:
    """The rows with `pending`. Each is settled once; a release of its events lets them be claimed."""

    def __init__(self, database: Database, unpublished: UnpublishedEvents) -> None:
        self._database = database
        self._unpublished = unpublished

    def hold(self) -> Future[list[PendingUpload]]:
        """After a start: return all of them, and hold back their deliveries."""

        def operation(db: sqlite3.Connection) -> list[PendingUpload]:
            handlers: dict[str, dict[str, list[str]]] = {}
            for upload_id, event_id, handler in db.execute(_HANDLERS):
                handlers.setdefault(upload_id, {}).setdefault(event_id, []).append(handler)
            uploads = []
            rows = db.execute("SELECT id, path, place FROM uploads WHERE pending")
            for upload_id, path, place in rows:
                events = handlers.get(upload_id, {})
                for event_id, names in events.items():
                    self._unpublished.hold(event_id, upload_id, names)
                uploads.append(PendingUpload(upload_id, path, json.loads(place), tuple(events)))
            return uploads

        return self._database.submit(operation)

    def move(self, upload_id: str, path: str, place: dict[str, Any]) -> Future[None]:
        """Change the object of an upload that is not published."""

        statement = "UPDATE uploads SET path = ?, place = ? WHERE id = ? AND pending"
        return self._database.write(statement, (path, json.dumps(place), upload_id))

    def mark_published(self, upload_id: str, etag: str) -> Future[None]:
        """Note that it was published with this entity tag; its deliveries stay held."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE uploads SET pending = 0, place = json_set(place, '$.etag', ?)"
                " WHERE id = ? AND pending",
                (etag, upload_id),
            )
            db.execute(
                "UPDATE events SET body = json_set(body, '$.etag', ?) WHERE upload_id = ? AND type = ?",
                (etag, upload_id, OBJECT_CREATED),
            )

        return self._database.submit(operation)

    def published_objects(self, upload_ids: Sequence[str]) -> Future[dict[str, tuple[str, str]]]:
        """Return path and entity tag of those of `upload_ids` that were published."""

        def operation(db: sqlite3.Connection) -> dict[str, tuple[str, str]]:
            statement = (
                "SELECT path, json_extract(place, '$.etag') FROM uploads"
                " WHERE id = ? AND place IS NOT NULL AND NOT pending"
            )
            rows = _rows_by_id(db, statement, upload_ids)
            return {upload_id: (str(path), str(etag)) for upload_id, (path, etag) in rows}

        return self._database.submit(operation)
