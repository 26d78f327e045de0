"""Events room, NATS: the ledger: what lies in the streams, seen and steered.

The rule: it shows what the streams hold. A delivery that is done has left the queue, and only its
run is known: replaying it is the journals' business, which keep what they handed over.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from gateway.events.nats.connection import Connection, reaching
from gateway.events.nats.ledger_rows import ReadRow, Rows, Tops, read_tops, write_tops
from gateway.events.nats.message import MESSAGE_ID
from gateway.events.nats.queue import NatsQueue
from gateway.events.nats.stream_reader import ConsumerProgress, StreamMessage, StreamReader
from gateway.events.protocols import (
    VERB_STATES,
    ChunkResult,
    DeliveryPage,
    DeliveryRow,
    Depth,
    EventHistory,
    Selection,
    State,
    Verb,
)

FOR_EVER: Final = "2999-01-01T00:00:00Z"

_LOOKS: Final = 50
_LOOK_SECONDS: Final = 0.05

MAX_CHUNK: Final = 500
"""Rows that one chunk of a bulk operation reads: each that it changes costs two or three round trips."""


class NatsLedger:
    """Deliveries, from the point of view of those who watch and steer. Raises
    `EventEngineUnavailable`."""

    def __init__(self, connection: Connection, queue: NatsQueue, reading: StreamReader) -> None:
        self._connection = connection
        self._queue = queue
        self._reading = reading
        self._rows = Rows(reading)

    # -- seeing

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state.

        A run that is to be repeated within a second counts as running.
        """
        names = self._reading.names
        waiting = await self._reading.counts(names.runs, "wait")
        told: list[Depth] = []
        for consumer in await self._reading.consumers():
            told += await self._depth_of(consumer, waiting.get(consumer.handler, 0))
        for handler, count in (await self._reading.counts(names.dead, "dead")).items():
            first = await self._reading.next(names.dead, names.of("dead", handler), 0)
            told.append(Depth(handler, "dead", count, _born(first)))
        return sorted(told, key=lambda one: (one.handler, one.state))

    async def _depth_of(self, consumer: ConsumerProgress, waiting: int) -> list[Depth]:
        delayed = min(waiting, consumer.outstanding)
        counts: tuple[tuple[State, int, int], ...] = (
            ("ready", consumer.ready, consumer.delivered),
            ("delayed", delayed, consumer.settled),
            ("running", consumer.outstanding - delayed, consumer.settled),
        )
        names, told = self._reading.names, []
        for state, count, behind in counts:
            if count:
                first = await self._reading.next(names.queue, names.subject(consumer.handler), behind)
                told.append(Depth(consumer.handler, state, count, _born(first)))
        return told

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`, oldest first.

        Raises `ValueError` for a cursor that is none.
        """
        await self._queue.written()
        found, cursor = await self._rows.page(selection, after, limit)
        return DeliveryPage([known.row for known in found], cursor)

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its stories; its body only where it is still in a stream."""
        await self._queue.written()
        return await self._rows.history(event_id)

    # -- steering

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`.

        `replay` changes nothing: what is done has left the streams. The journals replay what they handed
        over.
        """
        if verb == "replay":
            return ChunkResult(0, None)
        cursor, tops = await self._bulk_cursor(after)
        rows, cursor = await self._rows.page(selection, cursor, MAX_CHUNK, tops)
        change = self._retry if verb == "retry" else self._drop
        count = 0
        for row in rows:
            if row.row.state in VERB_STATES[verb]:
                count += await change(row)
        return ChunkResult(count, None if cursor is None else f"{cursor}/{write_tops(tops)}")

    async def _bulk_cursor(self, after: str | None) -> tuple[str | None, Tops]:
        """Return where a chunk begins, and where each stream ended when the first chunk began.

        A retried delivery may be in the stream again at once: without the ends it would be met again.
        """
        if after is None:
            return None, await self._rows.tops()
        cursor, _, tops = after.partition("/")
        return cursor, read_tops(tops)

    async def pause(self, handler: str) -> None:
        """Let the handler's consumer give nothing out, to any node, until `resume`."""
        await self._pause(handler, FOR_EVER)

    async def resume(self, handler: str) -> None:
        """Let it give out again."""
        await self._pause(handler, "1970-01-01T00:00:00Z")

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        return frozenset(one.handler for one in await self._reading.consumers() if one.paused)

    async def _pause(self, handler: str, until: str) -> None:
        await self._queue.ensure(handler)
        names = self._reading.names
        async with reaching():
            await self._connection.js.pause_consumer(names.queue, names.consumer(handler), until)
        # The copies of a cluster learn of it one after the other; what was said shall be seen.
        for _ in range(_LOOKS):
            if (handler in await self.paused()) == (until == FOR_EVER):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _retry(self, known: ReadRow) -> bool:
        names, message = self._reading.names, known.message
        event = message.told["event"] if known.row.state == "dead" else message.told
        stream = names.dead if known.row.state == "dead" else names.queue
        subject = names.subject(known.row.handler, known.row.event_id)
        payload = event.encode() if isinstance(event, str) else json.dumps(event).encode()
        headers = {MESSAGE_ID: f"retry:{stream}:{message.sequence}"}
        async with reaching():
            await self._connection.js.publish(subject, payload, headers=headers)
        await self._remove(known.row, stream, message)
        return True

    async def _drop(self, known: ReadRow) -> bool:
        names = self._reading.names
        stream = names.dead if known.row.state == "dead" else names.queue
        return await self._remove(known.row, stream, known.message)

    async def _remove(self, row: DeliveryRow, stream: str, message: StreamMessage) -> bool:
        names = self._reading.names
        removed = await self._reading.delete(stream, message.sequence)
        if row.state == "delayed":
            await self._reading.purge(names.runs, names.of("wait", row.handler, row.event_id))
        return removed


def _born(message: StreamMessage | None) -> float:
    """Return when the event of a message was born; now, where the message has just gone."""
    if message is None:
        return time.time()
    event = message.told.get("event", message.told)
    return float(event.get("created", 0.0)) if isinstance(event, dict) else 0.0
