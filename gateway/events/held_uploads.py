"""The uploads in a journal that wait for the decision of handlers of `APIGW.OnFileReceived`.

One delivery at a time: that of the first handler that has not decided. What it decides, the end of its
delivery and what follows are one transaction. A row that is decided changes no more, but from accepted
to rejected where the file can never be published; it goes when the file is published.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from gateway.domain.event_bodies import received_id
from gateway.domain.held import Decision
from gateway.domain.model import Delivery
from gateway.domain.sqlite_writer import Operation
from gateway.events.claims import Wakeups
from gateway.events.database import Database, packed, rows_by_id, select
from gateway.events.held_changes import refusal_fields
from gateway.events.held_log import HeldUpload, find_held, held_upload
from gateway.events.held_operations import (
    HeldRows,
    HoldRecord,
    decide_held,
    end_held,
    forget_held,
    overrule_held,
    record_held,
)
from gateway.events.queue import MAX_ORPHANS
from gateway.events.queue_statements import DEAD_LETTER_HELD
from gateway.events.unpublished import UnpublishedEvent, UnpublishedEvents

_UNSETTLED: Final = (
    "SELECT * FROM held INDEXED BY held_unsettled WHERE decided IS NOT NULL AND settled = 0"
    " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY decided LIMIT ?"
)

_NEXT_HANDLER: Final = "json_extract(handlers, '$[0]')"
_NEXT_HANDLERS: Final = (
    "WITH RECURSIVE asked(name) AS ("  # noqa: S608 (ours)
    f"SELECT min({_NEXT_HANDLER}) FROM held INDEXED BY held_by_handler WHERE state = 'undecided'"
    f" UNION ALL SELECT (SELECT min({_NEXT_HANDLER}) FROM held INDEXED BY held_by_handler"
    f" WHERE state = 'undecided' AND {_NEXT_HANDLER} > name) FROM asked WHERE name IS NOT NULL"
    ") SELECT name FROM asked WHERE name IS NOT NULL"
)
"""The handlers that are to decide, from one to the next by the index."""

MAX_UNSETTLED: Final = 32
"""Uploads that one operation reads: their headers may have 32 KiB each."""


class HeldTable:
    """Records held uploads and what becomes of them. Methods may be called from any thread."""

    def __init__(
        self, database: Database, unpublished: UnpublishedEvents, wakeups: Wakeups, node: str
    ) -> None:
        self._database = database
        self._unpublished = unpublished
        self._wakeups = wakeups
        self._node = node

    # -- the beginning

    def record(self, records: Sequence[HoldRecord]) -> Future[None]:
        """Write held uploads, each with its first delivery, all or none; nothing runs before `release`.

        Raises what JSON cannot write.
        """
        rows = HeldRows.of(records)  # here: JSON of many large headers takes a while
        events = [_first_event(record) for record in records]
        self._unpublished.hold(events)

        def finish(future: Future[None]) -> None:
            if future.exception() is not None:
                self._unpublished.release([event.event_id for event in events])

        future = self._database.submit(partial(record_held, self._database, rows))
        future.add_done_callback(finish)
        return future

    def release(self, upload_ids: Collection[str]) -> None:
        """Let the first deliveries of held uploads run. Costs no transaction."""
        released = self._unpublished.release([received_id(upload_id) for upload_id in upload_ids])
        self._wakeups.notify({handler for event in released for handler in event.handlers})

    def forget(self, upload_ids: Sequence[str]) -> Future[None]:
        """Delete held uploads that nobody was told of, with their events."""

        def operation(db: sqlite3.Connection) -> None:
            forget_held(db, upload_ids)

        def finish(future: Future[None]) -> None:
            if future.exception() is None:
                self._unpublished.release([received_id(upload_id) for upload_id in upload_ids])

        future = self._database.submit(operation)
        future.add_done_callback(finish)
        return future

    # -- decisions

    def decide(
        self, delivery: Delivery, decision: Decision, duration: float
    ) -> Future[HeldUpload | None]:
        """Settle a run as done, with its decision; return the upload as it is then.

        None where nothing was decided: another run, or somebody, has decided meanwhile.
        """
        operation = partial(decide_held, delivery=delivery, decision=decision)
        return self._decided(partial(operation, duration=duration, node=self._node))

    def release_held(self, upload_id: str, by: str) -> Future[HeldUpload | None]:
        """Accept an upload for an operator, whatever its handlers would say; None as in `decide`.

        None too for one that is still on its way into the folder: nobody was told that it is held.
        """
        return self._overrule(upload_id, None, by)

    def reject_held(self, upload_id: str, reason: str, by: str) -> Future[HeldUpload | None]:
        """Reject an upload for an operator; None as in `release_held`."""
        return self._overrule(upload_id, refusal_fields(reason=reason, by=by), by)

    def _overrule(
        self, upload_id: str, refusal: dict[str, Any] | None, by: str
    ) -> Future[HeldUpload | None]:
        def operation(db: sqlite3.Connection) -> HeldUpload | None:
            if self._unpublished.holds(received_id(upload_id)):
                return None
            return overrule_held(db, upload_id, refusal, by)

        return self._decided(operation)

    def reject_lost(self, upload_id: str) -> Future[HeldUpload | None]:
        """Reject an upload whose body is gone; None as in `decide`."""
        refusal = refusal_fields(code="not_found", reason="the body of this upload is gone")
        return self._decided(partial(overrule_held, upload_id=upload_id, refusal=refusal, by="a start"))

    def reject_accepted(self, upload_id: str, code: str, reason: str) -> Future[HeldUpload | None]:
        """Reject what was accepted and can never be published: `code` is that of the refusal."""
        refusal = refusal_fields(code=code, reason=reason)

        def operation(db: sqlite3.Connection) -> HeldUpload | None:
            end_held(db, upload_id, "rejected", refusal, before="accepted")
            return find_held(db, upload_id)

        return self._database.submit(operation)

    def _decided(self, operation: Operation[HeldUpload | None]) -> Future[HeldUpload | None]:
        def finish(future: Future[HeldUpload | None]) -> None:
            if future.exception() is None and (held := future.result()) is not None:
                self._wakeups.notify(held.handlers[:1])

        future = self._database.submit(operation)
        future.add_done_callback(finish)
        return future

    def dead_letter_orphans(self, handlers: Collection[str]) -> Future[int]:
        """Make some deliveries of handlers other than `handlers` dead; return how many.

        Their uploads stay held, until an operator decides.
        """

        def operation(db: sqlite3.Connection) -> int:
            names = [name for (name,) in db.execute(_NEXT_HANDLERS) if name not in handlers]
            unpublished, count = packed(self._unpublished.event_ids()), 0
            for name in names:
                values = (time.time(), name, unpublished, MAX_ORPHANS - count)
                count += db.execute(DEAD_LETTER_HELD, values).rowcount
                if count == MAX_ORPHANS:
                    break
            return count

        return self._database.submit(operation)

    # -- the end

    def settle(self, upload_id: str) -> Future[None]:
        """Note that nothing is left of a rejected upload but its row."""
        return self._database.write("UPDATE held SET settled = 1 WHERE id = ?", (upload_id,))

    def end(self, upload_ids: Sequence[str]) -> Future[None]:
        """Delete the rows of uploads that are published. Their events stay for a while, as all do."""

        def operation(db: sqlite3.Connection) -> None:
            ids = packed(list(upload_ids))
            db.execute("DELETE FROM held WHERE id IN (SELECT value FROM json_each(?))", (ids,))

        return self._database.submit(operation)

    # -- reading

    def find(self, upload_ids: Sequence[str]) -> Future[dict[str, HeldUpload]]:
        """Return those of `upload_ids` that the journal has, whatever their state."""

        def operation(db: sqlite3.Connection) -> dict[str, HeldUpload]:
            rows = {upload_id: find_held(db, upload_id) for upload_id in upload_ids}
            return {upload_id: held for upload_id, held in rows.items() if held is not None}

        return self._database.submit(operation)

    def states(self, upload_ids: Sequence[str]) -> Future[dict[str, str]]:
        """Return the states of those of `upload_ids` that the journal has."""

        def operation(db: sqlite3.Connection) -> dict[str, str]:
            rows = rows_by_id(db, "SELECT state FROM held WHERE id = ?", upload_ids)
            return {upload_id: str(state) for upload_id, (state,) in rows}

        return self._database.submit(operation)

    def unsettled(self, without: Collection[str]) -> Future[list[HeldUpload]]:
        """Return some that are decided, and neither published nor removed yet, the oldest first."""
        values = (packed(list(without)), MAX_UNSETTLED)
        return self._database.submit(lambda db: list(map(held_upload, select(db, _UNSETTLED, values))))

    def files(self, after: str, limit: int) -> Future[list[tuple[str, str]]]:
        """Return ids and states of uploads whose body is a file that should be there, by id."""
        statement = (
            "SELECT id, state FROM held WHERE id > ? AND place IS NULL"
            " AND settled = 0 ORDER BY id LIMIT ?"
        )
        return self._database.submit(lambda db: db.execute(statement, (after, limit)).fetchall())


def _first_event(record: HoldRecord) -> UnpublishedEvent:
    upload_id = record.upload.id
    return UnpublishedEvent(received_id(upload_id), upload_id, record.handlers[:1])
