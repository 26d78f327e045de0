"""Events room, NATS: messages of the three streams as the rows that watchers know.

The rule: a page is made by walking three streams at once, oldest event first; a cursor is where
each of them stands.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.events.nats.message import due, used
from gateway.events.nats.stream_reader import StreamMessage, StreamReader
from gateway.events.protocols import (
    Attempt,
    DeliveryHistory,
    DeliveryRow,
    EventHistory,
    Selection,
    State,
)

_AREAS: Final = ("q", "dead", "run")
_STATES: Final[dict[str, tuple[State, ...]]] = {
    "q": ("ready", "running", "delayed"),
    "dead": ("dead",),
    "run": ("done",),
}

Tops = Mapping[str, int]
"""For each area the sequence behind which nothing is looked at."""

_ALL: Final[Tops] = {}

MOST_LOOKED_AT: Final = 5_000
"""Messages that one page looks at, at the most: then it ends early."""


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row, and the message that it was made of."""

    row: DeliveryRow
    message: StreamMessage


@dataclass(slots=True)
class _Walk:
    """One area being walked: the head, and the sequence that everything before it lies up to."""

    area: str
    passed: int
    heads: AsyncIterator[tuple[int, ReadRow | None]]
    head: ReadRow | None = None
    ended: bool = False
    looked_at: int = 0

    async def advance(self) -> None:
        """Go to the next row, or the end."""
        self.head = None
        async for sequence, known in self.heads:
            self.looked_at += 1
            if known is not None:
                self.head = known
                return
            self.passed = sequence
            if self.looked_at >= MOST_LOOKED_AT:
                return
        self.ended = True


class Rows:
    """Reads rows. Raises `EventEngineUnavailable`."""

    def __init__(self, reading: StreamReader) -> None:
        self._reading = reading

    async def page(
        self, selection: Selection, after: str | None, limit: int, tops: Tops = _ALL
    ) -> tuple[list[ReadRow], str | None]:
        """Return up to `limit` rows behind the cursor, oldest first, and the next cursor.

        With `tops`, only what was there when these were asked for. Raises `ValueError` for a cursor that
        is none.
        """
        delivered = {one.handler: one.delivered for one in await self._reading.consumers()}
        walks = [
            _Walk(area, passed, self._walk(area, selection, (passed, tops.get(area)), delivered))
            for area, passed in zip(_AREAS, _cursor(after), strict=True)
        ]
        for walk in walks:
            await walk.advance()
        rows: list[ReadRow] = []
        while len(rows) < limit:
            ready = [(walk.head, walk) for walk in walks if walk.head is not None]
            if not ready or any(not walk.ended and walk.head is None for walk in walks):
                break
            head, walk = min(ready, key=lambda one: one[0].row.created)
            rows.append(head)
            walk.passed = head.message.sequence
            await walk.advance()
        if all(walk.ended for walk in walks):
            return rows, None
        return rows, ".".join(str(walk.passed) for walk in walks)

    async def tops(self) -> Tops:
        """Return where each area ends now."""
        return {area: await self._reading.newest(self._stream(area)) for area in _AREAS}

    def _stream(self, area: str) -> str:
        names = self._reading.names
        return {"q": names.queue, "dead": names.dead, "run": names.runs}[area]

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event as the streams know it, None where they do not."""
        selection = Selection(events=(event_id,))
        found, _ = await self.page(selection, None, 1000)
        # A delivery that was retried by hand is in the queue and among the runs: the former counts.
        rows: dict[str, DeliveryRow] = {}
        for known in sorted(found, key=lambda one: one.row.state != "done"):
            rows[known.row.handler] = known.row
        if not rows:
            return None
        event: dict[str, Any] = next((told for known in found if (told := _event(known))), {})
        first = next(iter(rows.values()))
        return EventHistory(
            id=event_id,
            type=first.event,
            upload_id=first.upload_id,
            path=first.path,
            created=first.created,
            body=event.get("body", {}),
            deliveries=[DeliveryHistory(row, await self._runs(row)) for _, row in sorted(rows.items())],
        )

    async def _runs(self, row: DeliveryRow) -> list[Attempt]:
        names = self._reading.names
        subject = names.of("run", row.handler, row.event_id)
        found = [message async for message in self._reading.every(names.runs, subject)]
        return [
            Attempt(
                attempt=int(run["attempt"]),
                node=str(run["node"]),
                ended=float(run["ended"]),
                duration=float(run["duration"]),
                outcome=str(run["outcome"]),
                error=run["error"],
            )
            for run in (message.told for message in found[-100:])
        ]

    # -- one area

    async def _walk(
        self, area: str, selection: Selection, span: tuple[int, int | None], delivered: dict[str, int]
    ) -> AsyncIterator[tuple[int, ReadRow | None]]:
        if selection.state is not None and selection.state not in _STATES[area]:
            return
        after, top = span
        event_id = selection.events[0] if len(selection.events) == 1 else None
        subject = self._reading.names.of(area, selection.handler, event_id)
        async for message in self._reading.every(self._stream(area), subject, after):
            if top is not None and message.sequence > top:
                return
            row = await self._row(area, message, delivered)
            known = ReadRow(row, message) if row is not None and _fits(row, selection) else None
            yield message.sequence, known

    async def _row(
        self, area: str, message: StreamMessage, delivered: dict[str, int]
    ) -> DeliveryRow | None:
        if area == "dead":
            return _dead(message)
        if area == "run":
            return await self._done(message)
        return await self._queued(message, delivered.get(_handler(message), 0))

    async def _queued(self, message: StreamMessage, delivered: int) -> DeliveryRow:
        told, base = message.told, used(message.headers)
        born, later = float(told.get("created", 0.0)), due(message.headers) or 0.0
        if message.sequence > delivered or later > time.time():
            state: State = "delayed" if later > time.time() else "ready"
            return _made(message, told, state, base, None, max(born, later))
        names, handler = self._reading.names, _handler(message)
        about = handler, str(told.get("id", ""))
        note = await self._reading.last(names.runs, names.of("wait", *about))
        if note is not None and note.told["sequence"] == message.sequence:
            waits = note.told
            return _made(message, told, "delayed", waits["attempt"], waits["error"], waits["due"])
        run = await self._reading.last(names.runs, names.of("run", *about))
        if run is None or run.told["sequence"] != message.sequence:
            return _made(message, told, "running", base + 1, None, born)
        return _made(message, told, "running", run.told["attempt"] + 1, run.told["error"], born)

    async def _done(self, message: StreamMessage) -> DeliveryRow | None:
        """Return what was done, by its newest run alone: earlier ones are its history."""
        run = message.told
        if run.get("outcome") != "done":
            return None
        newest = await self._reading.last(self._reading.names.runs, message.subject)
        if newest is not None and newest.sequence != message.sequence:
            return None
        return DeliveryRow(
            event_id=str(run["event_id"]),
            upload_id=run["upload_id"],
            handler=str(run["handler"]),
            event=str(run["type"]),
            path=run["path"],
            state="done",
            attempt=int(run["attempt"]),
            error=None,
            created=float(run["created"]),
            due=float(run["ended"]),
        )


def _dead(message: StreamMessage) -> DeliveryRow:
    grave = message.told
    event = grave.get("event")
    known = event if isinstance(event, dict) else {}
    return _made(message, known, "dead", grave["attempt"], grave["error"], grave["died"])


def _made(
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
    return str(message.told.get("handler", message.handler))


def _event(known: ReadRow) -> dict[str, Any]:
    told = known.message.told
    event = told.get("event", told) if known.row.state == "dead" else told
    return event if isinstance(event, dict) and "body" in event else {}


def _fits(row: DeliveryRow, selection: Selection) -> bool:
    return (
        selection.state in (None, row.state)
        and selection.handler in (None, row.handler)
        and (selection.since is None or row.created >= selection.since)
        and (not selection.events or row.event_id in selection.events)
    )


def _cursor(after: str | None) -> list[int]:
    if after is None:
        return [0, 0, 0]
    parts = after.split(".")
    if len(parts) != len(_AREAS) or not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
        raise ValueError("invalid cursor: use the one of the previous page")
    return [int(part) for part in parts]


def write_tops(tops: Tops) -> str:
    """Return `tops` as a part of a cursor."""
    return ".".join(str(tops[area]) for area in _AREAS)


def read_tops(text: str) -> Tops:
    """Read what `write_tops` wrote. Raises `ValueError`."""
    return dict(zip(_AREAS, _cursor(text), strict=True))
