"""JetStream as an outbox: an event becomes one message for each handler.

A call returns when the server has acknowledged every message. The same delivery published twice within
the duplicate window is one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import nats.errors
import nats.js.errors

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import Connection, describe
from gateway.events.nats.message import MESSAGE_ID, encode
from gateway.events.nats.names import StreamNames
from gateway.events.protocols import NewEvent
from gateway.events.relay import OutgoingDelivery

MAX_IN_FLIGHT: Final = 256
"""Messages that wait for their acknowledgement at once."""

MAX_HEADER_BYTES: Final = 4096
"""Bytes of a message beside its payload, as the server counts them, and some spare."""


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
        deliveries = [
            OutgoingDelivery(event, name, f"{event.id}:{name}")
            for event in events
            for name in event.handlers
        ]
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
            if len(payload) + MAX_HEADER_BYTES > self._connection.client.max_payload:
                return ValueError(f"the event has {len(payload)} bytes: the NATS servers take less")
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
        except (nats.errors.Error, TimeoutError, OSError) as error:
            return EventEngineUnavailable(f"NATS: {describe(error)}")
        return None
