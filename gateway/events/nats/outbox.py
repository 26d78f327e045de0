"""Events room, NATS: the outbox: events become messages, one for each handler.

The rule: it returns only when the server has acknowledged every one of them. The same delivery
published twice within the window is one message.
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

WINDOW: Final = 256
"""Publications that wait for their acknowledgement at once."""

HEADERS_AND_SLACK: Final = 4096
"""Bytes of a message beside its payload, as the server counts them."""


class NatsOutbox:
    """Where events go in. Lives on the server's loop. `ensure` makes a handler's consumer.

    With a consumer, what waits for a handler that no node has (any more) is counted and seen.
    """

    def __init__(
        self, connection: Connection, names: StreamNames, ensure: Callable[[str], Awaitable[None]]
    ) -> None:
        self._connection = connection
        self._names = names
        self._ensure = ensure

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Return only when all are acknowledged. Raises `EventEngineUnavailable`; then try again."""
        parcels = [
            OutgoingDelivery(event, name, f"{event.id}:{name}")
            for event in events
            for name in event.handlers
        ]
        for fault in await self.send(parcels):
            if fault is not None:
                raise fault

    async def wait_ready(self) -> None:
        """Wait until it can be tried."""
        await self._connection.wait_ready()

    async def send(self, parcels: Sequence[OutgoingDelivery]) -> list[Exception | None]:
        """Publish all; return for each None where it is acknowledged, else why it is not.

        A `ValueError` tells of one that will never fit; `EventEngineUnavailable` of one to be tried
        again.
        """
        outcomes: list[Exception | None] = []
        for start in range(0, len(parcels), WINDOW):
            part = parcels[start : start + WINDOW]
            outcomes += await asyncio.gather(*map(self._send, part))
        return outcomes

    async def _send(self, parcel: OutgoingDelivery) -> Exception | None:
        payload = encode(parcel.event, parcel.handler, parcel.origin)
        try:
            if len(payload) + HEADERS_AND_SLACK > self._connection.client.max_payload:
                return ValueError(f"the event has {len(payload)} bytes: the NATS servers take less")
            await self._ensure(parcel.handler)
            await self._connection.js.publish(
                self._names.subject(parcel.handler, parcel.event.id),
                payload,
                headers={MESSAGE_ID: parcel.key},
            )
        except nats.js.errors.NoStreamResponseError as fault:
            # Whoever takes that message is no stream: ours have gone, or are without a leader.
            self._connection.doubt()
            return EventEngineUnavailable(f"NATS: {describe(fault)}")
        except EventEngineUnavailable as fault:
            return fault
        except (nats.errors.Error, TimeoutError, OSError) as fault:
            return EventEngineUnavailable(f"NATS: {describe(fault)}")
        return None
