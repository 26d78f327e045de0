"""JetStream as an outbox: an event becomes one message for each handler. And the log of runs.

A call returns when the server has acknowledged every message. The same delivery published twice within
the duplicate window is one message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import nats.js.errors

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import (
    CLIENT_ERRORS,
    REQUEST_TIMEOUT,
    Connection,
    describe,
    mapped_errors,
)
from gateway.events.nats.message import MESSAGE_ID, encode
from gateway.events.nats.streams import StreamNames
from gateway.events.protocols import NewEvent
from gateway.events.relay import OutgoingDelivery
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.nats")

MAX_IN_FLIGHT: Final = 256
"""Messages that wait for their acknowledgement at once."""

MAX_HEADER_BYTES: Final = 4096
"""Bytes of a message beside its payload, as the server counts them, and some spare."""

MAX_WAITING: Final = 256
"""Entries that wait while a batch is in flight; of more unanswered ones the server might drop some."""


class NatsOutbox:
    """Publishes events. Lives on the server's loop. `ensure` makes a handler's consumer.

    With a consumer, what waits for a handler that no node has is counted and listed.
    """

    def __init__(
        self, connection: Connection, names: StreamNames, ensure: Callable[[str], Awaitable[None]]
    ) -> None:
        self._connection = connection
        self._names = names
        self._ensure = ensure

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Publish events; all are acknowledged on return. Raises `EventEngineUnavailable`."""
        pairs = [(new, name) for new in events for name in new.handlers]
        deliveries = [OutgoingDelivery(new, name, f"{new.id}:{name}") for new, name in pairs]
        for error in await self.send(deliveries):
            if error is not None:
                raise error

    async def wait_ready(self) -> None:
        """Wait until the streams are there."""
        await self._connection.wait_ready()

    async def send(self, deliveries: Sequence[OutgoingDelivery]) -> list[Exception | None]:
        """Publish all; return for each None where it is acknowledged, else the error.

        `ValueError`: it will never fit. `EventEngineUnavailable`: it may be tried again.
        """
        errors: list[Exception | None] = []
        for start in range(0, len(deliveries), MAX_IN_FLIGHT):
            chunk = deliveries[start : start + MAX_IN_FLIGHT]
            errors += await asyncio.gather(*map(self._send, chunk))
        return errors

    async def _send(self, delivery: OutgoingDelivery) -> Exception | None:
        payload = encode(delivery.event, delivery.handler, delivery.origin)
        try:
            if (limit := self._connection.client.max_payload - MAX_HEADER_BYTES) < len(payload):
                return ValueError(
                    f"the event has {len(payload)} bytes, and the NATS servers take {limit}: raise"
                    " `max_payload` in their configuration"
                )
            await self._ensure(delivery.handler)
            await self._connection.js.publish(
                self._names.subject(delivery.handler, delivery.event.id),
                payload,
                headers={MESSAGE_ID: delivery.key},
            )
        except nats.js.errors.NoStreamResponseError as error:
            # No stream takes the message: ours were deleted, or have no leader.
            self._connection.prepare_again()
            return EventEngineUnavailable(f"NATS: {describe(error)}")
        except EventEngineUnavailable as error:
            return error
        except CLIENT_ERRORS as error:
            return EventEngineUnavailable(f"NATS: {describe(error)}")
        return None


class RunLogEntry(NamedTuple):
    """A message for the stream of runs."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


class RunLog:
    """Writes entries in the background, in batches. Lives on the server's loop.

    Only the last message of a batch asks for the server's answer: it gets them in order, so that one
    answer confirms all. What is lost with the process, or while NATS is unavailable, is history only.
    """

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
                lost = "up to %d entries of the log of runs are lost: %s"
                log.warning(lost, len(batch), error, extra=event("runs.lost", count=len(batch)))

    async def _send(self, batch: list[RunLogEntry]) -> None:
        js, client = self._connection.js, self._connection.client
        for subject, payload, headers in batch[:-1]:
            await client.publish(subject, payload, headers=dict(headers))
        subject, payload, headers = batch[-1]
        await js.publish(subject, payload, headers=dict(headers))
