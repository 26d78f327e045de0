"""JetStream as a ledger: it lists and changes what the streams hold.

A delivery that is done has left the queue, and only its run is kept. The journals replay it: they keep
what they relayed.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from gateway.events.nats.connection import Connection, mapped_errors
from gateway.events.nats.ledger_rows import AREAS, ReadRow, Rows
from gateway.events.nats.message import MESSAGE_ID
from gateway.events.nats.queue import NatsQueue
from gateway.events.nats.stream_reader import ConsumerProgress, StreamMessage, StreamReader
from gateway.events.protocols import (
    VERB_STATES,
    ChunkResult,
    DeliveryPage,
    Depth,
    EventHistory,
    Selection,
    State,
    Verb,
    read_positions,
)

_FOR_EVER: Final = "2999-01-01T00:00:00Z"

_MAX_CHECKS: Final = 50
_CHECK_INTERVAL: Final = 0.05

MAX_CHUNK: Final = 500
"""Rows that one chunk of a bulk operation reads: each that it changes costs two or three round trips."""


class NatsLedger:
    """The deliveries in the streams. Every method raises `EventEngineUnavailable`."""

    def __init__(self, connection: Connection, queue: NatsQueue, reader: StreamReader) -> None:
        self._connection = connection
        self._queue = queue
        self._reader = reader
        self._rows = Rows(reader)

    # -- reading

    async def depth(self) -> list[Depth]:
        """See `Ledger`. A run that is to be repeated within a second counts as running."""
        names = self._reader.names
        waiting = await self._reader.counts(names.runs, "wait")
        depths: list[Depth] = []
        for consumer in await self._reader.consumers():
            depths += await self._depth_of(consumer, waiting.get(consumer.handler, 0))
        for handler, count in (await self._reader.counts(names.dead, "dead")).items():
            first = await self._reader.next(names.dead, names.subject_of("dead", handler), 0)
            depths.append(Depth(handler, "dead", count, _created(first)))
        return sorted(depths, key=lambda depth: (depth.handler, depth.state))

    async def _depth_of(self, consumer: ConsumerProgress, waiting: int) -> list[Depth]:
        delayed = min(waiting, consumer.outstanding)
        counts: tuple[tuple[State, int, int], ...] = (
            ("ready", consumer.ready, consumer.delivered),
            ("delayed", delayed, consumer.settled),
            ("running", consumer.outstanding - delayed, consumer.settled),
        )
        names, depths = self._reader.names, []
        for state, count, behind in counts:
            if count:
                first = await self._reader.next(names.queue, names.subject(consumer.handler), behind)
                depths.append(Depth(consumer.handler, state, count, _created(first)))
        return depths

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """See `Ledger`."""
        await self._queue.flush_run_log()
        rows, cursor = await self._rows.page(selection, after, limit)
        return DeliveryPage([row.row for row in rows], cursor)

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its deliveries; its body only where it is still in a stream."""
        await self._queue.flush_run_log()
        return await self._rows.history(event_id)

    # -- changing

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """See `Ledger`. The journals replay what they relayed: what is done has left the streams."""
        if verb == "replay":
            return ChunkResult(0, None)
        # A retried delivery may be in the stream again at once: a chunk reads only up to where each
        # stream ended when the first one began.
        cursor, _, ends = (None, "", "") if after is None else after.partition("/")
        tops = await self._rows.tops() if after is None else read_positions(ends, len(AREAS))
        rows, cursor = await self._rows.page(selection, cursor, MAX_CHUNK, tops)
        change = self._retry if verb == "retry" else self._drop
        count = 0
        for row in rows:
            if row.row.state in VERB_STATES[verb]:
                count += await change(row)
        position = None if cursor is None else f"{cursor}/{'.'.join(map(str, tops))}"
        return ChunkResult(count, position)

    async def pause(self, handler: str) -> None:
        """Let the handler's consumer deliver nothing, to any node, until `resume`."""
        await self._pause(handler, _FOR_EVER)

    async def resume(self, handler: str) -> None:
        """Let it deliver again."""
        await self._pause(handler, "1970-01-01T00:00:00Z")

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        return frozenset(row.handler for row in await self._reader.consumers() if row.paused)

    async def _pause(self, handler: str, until: str) -> None:
        await self._queue.ensure_consumer(handler)
        names = self._reader.names
        async with mapped_errors():
            await self._connection.js.pause_consumer(names.queue, names.consumer(handler), until)
        # The copies of a cluster apply it one after the other; the caller must see it done.
        for _ in range(_MAX_CHECKS):
            if (handler in await self.paused()) == (until == _FOR_EVER):
                return
            await asyncio.sleep(_CHECK_INTERVAL)

    async def _retry(self, row: ReadRow) -> bool:
        names, message = self._reader.names, row.message
        event = message.fields["event"] if row.row.state == "dead" else message.fields
        subject = names.subject(row.row.handler, row.row.event_id)
        payload = event.encode() if isinstance(event, str) else json.dumps(event).encode()
        headers = {MESSAGE_ID: f"retry:{self._stream(row)}:{message.sequence}"}
        async with mapped_errors():
            await self._connection.js.publish(subject, payload, headers=headers)
        await self._drop(row)
        return True

    async def _drop(self, row: ReadRow) -> bool:
        names, delivery = self._reader.names, row.row
        removed = await self._reader.delete(self._stream(row), row.message.sequence)
        if delivery.state == "delayed":
            subject = names.subject_of("wait", delivery.handler, delivery.event_id)
            await self._reader.purge(names.runs, subject)
        return removed

    def _stream(self, row: ReadRow) -> str:
        return self._reader.names.dead if row.row.state == "dead" else self._reader.names.queue


def _created(message: StreamMessage | None) -> float:
    """Return when the event of a message was created; now, where the message was just deleted."""
    if message is None:
        return time.time()
    event = message.fields.get("event", message.fields)
    return float(event.get("created", 0.0)) if isinstance(event, dict) else 0.0
