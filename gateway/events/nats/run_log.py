"""Events room, NATS: records of runs that went well, written behind the runner's back.

The rule: nobody waits for a record one by one. They go in batches of which only the last asks for
the server's answer: it has them in the order they were sent, so that its answer speaks for all.
What is lost with the process, or while NATS is away, is history and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import PATIENCE, Connection, reaching

log = logging.getLogger("gateway.nats")

WINDOW: Final = 256
"""Records that wait while a batch is on its way; sent unanswered, more might be dropped."""


class RunLogEntry(NamedTuple):
    """A message for the stream of runs."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


class RunLog:
    """Writes records down, soon. Lives on the server's loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[RunLogEntry] = []
        self._writing: asyncio.Task[None] | None = None
        self._room = asyncio.Event()

    async def add(self, record: RunLogEntry) -> None:
        """Have it written; waits only where `WINDOW` others do already. Never fails."""
        while len(self._waiting) >= WINDOW:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(record)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> None:
        """Wait until all that was added is written, or lost: some seconds at the most."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=PATIENCE)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            self._room.set()
            try:
                async with reaching():
                    await self._send(batch)
            except EventEngineUnavailable as fault:
                log.warning("the records of up to %d runs are lost: %s", len(batch), fault)

    async def _send(self, batch: list[RunLogEntry]) -> None:
        js, client = self._connection.js, self._connection.client
        for subject, payload, headers in batch[:-1]:
            await client.publish(subject, payload, headers=dict(headers))
        subject, payload, headers = batch[-1]
        await js.publish(subject, payload, headers=dict(headers))
