"""Messages of the three streams as rows of the ledger.

A page reads three streams at once, oldest event first; a cursor is the position in each of them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.events.nats.message import due_time, used_attempts
from gateway.events.nats.stream_reader import StreamMessage, StreamReader
from gateway.events.protocols import (
    Attempt,
    DeliveryHistory,
    DeliveryRow,
    EventHistory,
    Selection,
    State,
    read_positions,
)

AREAS: Final = ("q", "dead", "run")
_STATES: Final[dict[str, tuple[State, ...]]] = {
    "q": ("ready", "running", "delayed"),
    "dead": ("dead",),
    "run": ("done",),
}

MAX_RUNS: Final = 100
"""Runs of a delivery that are listed: the latest."""

MAX_READ: Final = 5_000
"""Messages that one page reads in an area; then it ends early."""


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row and its message."""

    row: DeliveryRow
    message: StreamMessage


@dataclass(slots=True)
class _AreaCursor:
    """A position in one area: the next row, and the sequence up to which all is read."""

    area: str
    passed: int
    heads: AsyncIterator[tuple[int, ReadRow | None]]
    head: ReadRow | None = None
    ended: bool = False
    messages: int = 0

    async def advance(self) -> None:
        """Go to the next row, or the end."""
        self.head = None
        async for sequence, row in self.heads:
            self.messages += 1
            if row is not None:
                self.head = row
                return
            self.passed = sequence
            if self.messages >= MAX_READ:
                return
        self.ended = True


class Rows:
    """Reads rows. Raises `EventEngineUnavailable`."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader

    async def page(
        self, selection: Selection, after: str | None, limit: int, tops: Sequence[int] = ()
    ) -> tuple[list[ReadRow], str | None]:
        """Return up to `limit` rows behind the cursor, oldest first, and the next cursor.

        With `tops`, only what was there when they were read. Raises `ValueError` for an invalid cursor.
        """
        delivered = {row.handler: row.delivered for row in await self._reader.consumers()}
        positions = [0, 0, 0] if after is None else read_positions(after, len(AREAS))
        cursors = [
            _AreaCursor(area, at, self._read_area(area, selection, at, top, delivered))
            for area, at, top in zip(AREAS, positions, tops or (None, None, None), strict=True)
        ]
        for cursor in cursors:
            await cursor.advance()
        rows: list[ReadRow] = []
        while len(rows) < limit:
            ready = [(cursor.head, cursor) for cursor in cursors if cursor.head is not None]
            if not ready or any(not cursor.ended and cursor.head is None for cursor in cursors):
                break
            head, cursor = min(ready, key=lambda item: item[0].row.created)
            rows.append(head)
            cursor.passed = head.message.sequence
            await cursor.advance()
        if all(cursor.ended for cursor in cursors):
            return rows, None
        return rows, ".".join(str(cursor.passed) for cursor in cursors)

    async def tops(self) -> list[int]:
        """Return the last sequence of each area."""
        return [await self._reader.newest(self._stream(area)) for area in AREAS]

    def _stream(self, area: str) -> str:
        names = self._reader.names
        return {"q": names.queue, "dead": names.dead, "run": names.runs}[area]

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event as the streams have it, or None."""
        selection = Selection(events=(event_id,))
        page, _ = await self.page(selection, None, 1000)
        # A delivery that an operator retried is in the queue and among the runs: the queue counts.
        queued_last = sorted(page, key=lambda item: item.row.state != "done")
        rows = {item.row.handler: item.row for item in queued_last}
        if not rows:
            return None
        body: dict[str, Any] = next((event["body"] for item in page if (event := _event(item))), {})
        deliveries = [await self._delivery(row) for _, row in sorted(rows.items())]
        row = next(iter(rows.values()))
        return EventHistory(event_id, row.event, row.upload_id, row.path, row.created, body, deliveries)

    async def _delivery(self, row: DeliveryRow) -> DeliveryHistory:
        names = self._reader.names
        subject = names.subject_of("run", row.handler, row.event_id)
        runs = [message.fields async for message in self._reader.every(names.runs, subject)]
        columns = ("attempt", "node", "ended", "duration", "outcome", "error")
        attempts = [Attempt(*(run[name] for name in columns)) for run in runs[-MAX_RUNS:]]
        return DeliveryHistory(row, attempts, runs[-1].get("result") if runs else None)

    # -- one area

    async def _read_area(
        self, area: str, selection: Selection, after: int, top: int | None, delivered: dict[str, int]
    ) -> AsyncIterator[tuple[int, ReadRow | None]]:
        if selection.state is not None and selection.state not in _STATES[area]:
            return
        event_id = selection.events[0] if len(selection.events) == 1 else None
        subject = self._reader.names.subject_of(area, selection.handler, event_id)
        async for message in self._reader.every(self._stream(area), subject, after):
            if top is not None and message.sequence > top:
                return
            row = await self._row(area, message, delivered)
            matches = row is not None and _matches(row, selection)
            yield message.sequence, ReadRow(row, message) if row and matches else None

    async def _row(
        self, area: str, message: StreamMessage, delivered: dict[str, int]
    ) -> DeliveryRow | None:
        if area == "dead":
            return _dead(message)
        if area == "run":
            return await self._done(message)
        return await self._queued(message, delivered.get(_handler(message), 0))

    async def _queued(self, message: StreamMessage, delivered: int) -> DeliveryRow:
        fields, base = message.fields, used_attempts(message.headers)
        created, later = float(fields.get("created", 0.0)), due_time(message.headers) or 0.0
        if message.sequence > delivered or later > time.time():
            state: State = "delayed" if later > time.time() else "ready"
            return _make_row(message, fields, state, base, None, max(created, later))
        names, handler = self._reader.names, _handler(message)
        key = handler, str(fields.get("id", ""))
        note = await self._reader.last(names.runs, names.subject_of("wait", *key))
        if note is not None and note.fields["sequence"] == message.sequence:
            delay = note.fields
            return _make_row(message, fields, "delayed", delay["attempt"], delay["error"], delay["due"])
        last = await self._reader.last(names.runs, names.subject_of("run", *key))
        if last is None or last.fields["sequence"] != message.sequence:
            return _make_row(message, fields, "running", base + 1, None, created)
        run = last.fields
        return _make_row(message, fields, "running", run["attempt"] + 1, run["error"], created)

    async def _done(self, message: StreamMessage) -> DeliveryRow | None:
        """Return a done delivery for its newest run only: earlier ones are its history."""
        run = message.fields
        if run.get("outcome") != "done":
            return None
        newest = await self._reader.last(self._reader.names.runs, message.subject)
        if newest is not None and newest.sequence != message.sequence:
            return None
        event = {**run, "id": run["event_id"]}
        return _make_row(message, event, "done", run["attempt"], None, run["ended"])


def _dead(message: StreamMessage) -> DeliveryRow:
    fields, event = message.fields, message.fields.get("event")
    event = event if isinstance(event, dict) else {}
    return _make_row(message, event, "dead", fields["attempt"], fields["error"], fields["died"])


def _make_row(
    message: StreamMessage,
    event: dict[str, Any],
    state: State,
    attempt: int,
    error: str | None,
    when: float,
) -> DeliveryRow:
    return DeliveryRow(
        event_id=str(event.get("id", message.subject.rpartition(".")[2])),
        upload_id=event.get("upload_id"),
        handler=str(event.get("handler", message.handler)),
        event=str(event.get("type", "unknown")),
        path=event.get("path"),
        state=state,
        attempt=int(attempt),
        error=error,
        created=float(event.get("created", when)),
        due=float(when),
    )


def _handler(message: StreamMessage) -> str:
    return str(message.fields.get("handler", message.handler))


def _event(item: ReadRow) -> dict[str, Any]:
    fields = item.message.fields
    event = fields.get("event", fields) if item.row.state == "dead" else fields
    return event if isinstance(event, dict) and "body" in event else {}


def _matches(row: DeliveryRow, selection: Selection) -> bool:
    return (
        selection.state in (None, row.state)
        and selection.handler in (None, row.handler)
        and (selection.since is None or row.created >= selection.since)
        and (not selection.events or row.event_id in selection.events)
    )
