"""The log of successful runs, written in the background in batches.

Only the last message of a batch asks for the server's answer: it gets them in order, so that one answer
confirms all. What is lost with the process, or while NATS is unavailable, is history only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import REQUEST_TIMEOUT, Connection, mapped_errors
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.nats")

MAX_WAITING: Final = 256
"""Entries that wait while a batch is in flight; of more unanswered ones the server might drop some."""


class RunLogEntry(NamedTuple):
    """A message for the stream of runs."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


class RunLog:
    """Writes entries soon. Lives on the server's loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[RunLogEntry] = []
        self._writing: asyncio.Task[None] | None = None
        self._has_space = asyncio.Event()

    async def add(self, entry: RunLogEntry) -> None:
        """Queue an entry; waits only while `MAX_WAITING` entries wait. Never fails."""
        while len(self._waiting) >= MAX_WAITING:
            self._has_space.clear()
            await self._has_space.wait()
        self._waiting.append(entry)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def flush(self) -> None:
        """Wait until all that was added is written or lost, up to some seconds."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=REQUEST_TIMEOUT)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            self._has_space.set()
            try:
                async with mapped_errors():
                    await self._send(batch)
            except EventEngineUnavailable as error:
                log.warning(
                    "up to %d entries of the log of runs are lost: %s",
                    len(batch),
                    error,
                    extra=event("runs.lost", count=len(batch)),
                )

    async def _send(self, batch: list[RunLogEntry]) -> None:
        js, client = self._connection.js, self._connection.client
        for subject, payload, headers in batch[:-1]:
            await client.publish(subject, payload, headers=dict(headers))
        subject, payload, headers = batch[-1]
        await js.publish(subject, payload, headers=dict(headers))
