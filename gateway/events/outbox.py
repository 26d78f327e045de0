"""The journal as an outbox: what the commit writes before it publishes, and events of others.

The commit's methods queue one small operation each and return its future, durable when done. The
deliveries of an upload are held back in memory from their recording to their release. Those that this
process runs at once are recorded as running.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple

from gateway.domain.model import RECEIVED, Identity
from gateway.events.claims import Wakeups
from gateway.events.database import Database, insert, rows_by_id
from gateway.events.loop_bridge import BatchWriter, LoopBridge
from gateway.events.memory_queue import FirstRun, MemoryQueue, RecordedEvent
from gateway.events.protocols import NewEvent
from gateway.events.unpublished import UnpublishedEvent, UnpublishedEvents

_UPLOADS: Final = (
    "(id, path, bytes, mime, digests, device, inode, mtime_ns, principal, remote, created, committed,"
    " metadata, place, pending, kept_headers, results)"
)
_EVENTS: Final = "(id, type, upload_id, path, holder, created, body)"
_DELIVERIES: Final = "(event_id, handler, state, attempt, due, created, updated)"
_ONCE: Final = "ON CONFLICT DO NOTHING"

MAX_RECORDED_HERE: Final = 16
"""Uploads up to which a thread records them itself.

With more the transaction takes the time, not the two switches between threads, and the journal's thread
can share it with other callers.
"""


class EventRecord(NamedTuple):
    """One event of an upload for `handlers`. `body` is what they get, its secrets redacted."""

    event_id: str
    type: str
    body: dict[str, Any]
    handlers: Sequence[str]


_NewDelivery = tuple[RecordedEvent, str, FirstRun | None]
"""An event, one of its handlers, and the run of it that needs no claim, if any."""


class UploadRecord(NamedTuple):
    """What the journal keeps of one committed upload.

    An event without handlers is not recorded. `metadata` is the client's. `place` is the object that
    holds the upload, None for a file; `pending`: it is not known yet whether that was published.
    `kept_headers` and `results` are those of the upload.
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
    kept_headers: dict[str, str] | None = None
    results: dict[str, dict[str, Any]] | None = None


class JournalOutbox:
    """Records uploads and events, and wakes the claims of their handlers."""

    def __init__(
        self, database: Database, unpublished: UnpublishedEvents, memory: MemoryQueue, wakeups: Wakeups
    ) -> None:
        self._database = database
        self._unpublished = unpublished
        self._memory = memory
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
        """Return whether deliveries may never have begun: their uploads may be unpublished."""

        def operation(db: sqlite3.Connection) -> bool:
            (exists,) = db.execute(
                "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state = 'ready' AND attempt = 0)"
                " OR EXISTS (SELECT 1 FROM deliveries WHERE state = 'running' AND attempt = 1)"
            ).fetchone()
            return bool(exists)

        return self._database.submit(operation)

    def record_uploads(self, records: Sequence[UploadRecord]) -> Future[None]:
        """Write uploads with their deliveries, all or none; none is run before the release.

        Raises what JSON cannot write.
        """
        deliveries = self._hold(records)

        def finish(future: Future[None]) -> None:
            if future.exception() is not None:
                self._drop(deliveries)

        future = self._database.submit(partial(self._record, records, deliveries))
        future.add_done_callback(finish)
        return future

    def record_uploads_now(self, records: Sequence[UploadRecord]) -> None:
        """Write uploads as `record_uploads` does, a few of them in this thread. Blocking.

        Raises what that future would.
        """
        if len(records) > MAX_RECORDED_HERE:
            return self.record_uploads(records).result()
        deliveries = self._hold(records)
        try:
            self._database.run(partial(self._record, records, deliveries))
        except BaseException:
            self._drop(deliveries)
            raise

    def _hold(self, records: Sequence[UploadRecord]) -> list[_NewDelivery]:
        """Return the deliveries of uploads, those with a first run in memory; all are held now."""
        deliveries: list[_NewDelivery] = []
        held: list[UnpublishedEvent] = []
        for record in records:
            for event in record.events:
                if event.handlers:
                    recorded = _recorded_event(record, event)
                    # Of a pending object the body is not complete yet.
                    runs = {} if record.pending else self._memory.reserve(recorded)
                    deliveries += [(recorded, name, runs.get(name)) for name in event.handlers]
                    claimed = [name for name in event.handlers if name not in runs]
                    first_runs = tuple(runs.values())
                    held.append(UnpublishedEvent(recorded.id, record.upload_id, claimed, first_runs))
        self._unpublished.hold(held)
        return deliveries

    def _drop(self, deliveries: list[_NewDelivery]) -> None:
        """Hold no longer what could not be recorded."""
        self._unpublished.release({event.id for event, _, _ in deliveries})
        self._memory.leave([run for _, _, run in deliveries if run is not None])

    def _record(
        self, records: Sequence[UploadRecord], deliveries: list[_NewDelivery], db: sqlite3.Connection
    ) -> None:
        self._database.check_files()
        now = time.time()
        events = {event.id: event for event, _, _ in deliveries}.values()
        rows = [(e.id, e.type, e.upload_id, None, None, now, e.text) for e in events]
        states = [("ready", 0) if run is None else ("running", 1) for _, _, run in deliveries]
        insert(db, "uploads", _UPLOADS, [_upload(record, now) for record in records])
        insert(db, "events", _EVENTS, rows)
        last = insert(
            db,
            "deliveries",
            _DELIVERIES,
            [
                (event.id, handler, *state, 0, now, now)
                for (event, handler, _), state in zip(deliveries, states, strict=True)
            ],
        )
        for seq, (event, _, run) in enumerate(deliveries, last - len(deliveries) + 1):
            if run is not None:
                run.seq, event.created = seq, now

    def move_upload(self, upload_id: str, path: str) -> Future[None]:
        """Change the final path of an upload that is not yet published."""
        self._unpublished.move(upload_id, path)
        return self._database.write("UPDATE uploads SET path = ? WHERE id = ?", (path, upload_id))

    def forget_uploads(self, upload_ids: Iterable[str]) -> Future[None]:
        """Delete uploads that were never published, with their events.

        Those of held uploads wait for another try: the event that decided about them stays.
        """
        ids = list(upload_ids)

        def operation(db: sqlite3.Connection) -> None:
            rows = [(upload_id,) for upload_id in ids]
            events = f"FROM events WHERE upload_id = ? AND type <> '{RECEIVED}'"
            db.executemany(f"DELETE FROM deliveries WHERE event_id IN (SELECT id {events})", rows)  # noqa: S608 (ours)
            db.executemany(f"DELETE {events}", rows)
            db.executemany("DELETE FROM uploads WHERE id = ?", rows)

        def finish(future: Future[None]) -> None:
            if future.exception() is None:
                for event in self._unpublished.forget(ids):
                    self._memory.leave(event.first_runs)

        future = self._database.submit(operation)
        future.add_done_callback(finish)
        return future

    def release_events(self, event_ids: Sequence[str]) -> None:
        """Let the deliveries of published uploads run. Costs no transaction."""
        released = self._unpublished.release(event_ids)
        if handlers := {handler for event in released for handler in event.handlers}:
            self._wakeups.notify(handlers)
        self._memory.release([run for event in released for run in event.first_runs])

    async def has_recorded(self, upload_id: str, path: str) -> bool:
        """Return whether the journal has recorded this upload under this path."""
        uploads = await asyncio.wrap_future(self.recorded_uploads([upload_id]))
        return upload_id in uploads and uploads[upload_id][0] == path

    def recorded_uploads(self, upload_ids: Sequence[str]) -> Future[dict[str, tuple[str, Identity]]]:
        """Return path and identity of those of `upload_ids` that the journal knows."""

        def operation(db: sqlite3.Connection) -> dict[str, tuple[str, Identity]]:
            statement = "SELECT path, inode, bytes, mtime_ns FROM uploads WHERE id = ?"
            rows = rows_by_id(db, statement, upload_ids)
            return {upload_id: (str(path), Identity(*identity)) for upload_id, (path, *identity) in rows}

        return self._database.submit(operation)

    def record_move(self, upload_id: str, path: str, etag: str) -> Future[None]:
        """Note at which path, and with which entity tag, the file of an upload is now."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute(_MOVE, (upload_id, path, etag))

        return self._database.submit(operation)


_MOVE: Final = """
UPDATE uploads SET path = ?2, place = json_set(place, '$.etag', ?3, '$.key', substr(
    json_extract(place, '$.key'), 1, length(json_extract(place, '$.key')) - length(path) + 1
) || substr(?2, 2)) WHERE id = ?1
"""
"""The key of an object is a prefix and its path without the slash. The place of a file stays NULL."""


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
        json.dumps(record.kept_headers) if record.kept_headers else None,
        json.dumps(record.results) if record.results else None,
    )


def _recorded_event(record: UploadRecord, event: EventRecord) -> RecordedEvent:
    body = json.dumps(event.body)
    return RecordedEvent(event.event_id, event.type, record.upload_id, record.path, body, event.handlers)


def _publish(db: sqlite3.Connection, batches: list[Sequence[NewEvent]]) -> None:
    now = time.time()
    events = [event for batch in batches for event in batch]
    rows = [(e.id, e.type, e.upload_id, e.path, e.holder, e.created, json.dumps(e.body)) for e in events]
    insert(db, "events", _EVENTS, rows, on_conflict=_ONCE)
    due = [(e.id, handler, "ready", 0, 0, e.created, now) for e in events for handler in e.handlers]
    insert(db, "deliveries", _DELIVERIES, due, on_conflict=_ONCE)
