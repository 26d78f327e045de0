"""Events room, NATS: the queue: deliveries are claimed from the consumers that all nodes share.

The rule: the server counts attempts and leases. A delivery whose lease has run out is somebody
else's: settling it changes nothing. Settlements wait for the server's answer, so that what is
done is done when the call returns; only the record of a run that went well may come after. May
import the rest of this package, `model`, `errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nats.aio.msg import Msg

from gateway.domain.model import Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import Connection, reaching
from gateway.events.nats.message import (
    ATTEMPTS,
    DUE,
    MESSAGE_ID,
    NEVER,
    ClaimedMessage,
    ForeignMessage,
    attempt_of,
    decode,
    delivery_of,
    due,
)
from gateway.events.nats.names import StreamNames
from gateway.events.nats.pull_requests import PullRequests
from gateway.events.nats.run_log import RunLog, RunLogEntry
from gateway.events.nats.streams import ensure_consumer

log = logging.getLogger("gateway.nats")

_ACK: Final = b"+ACK"
_WORKING: Final = b"+WPI"
_TERMINATE: Final = b"+TERM"


class NatsQueue:
    """Deliveries, from the runner's point of view. `node` is written into the record of each run."""

    def __init__(self, connection: Connection, names: StreamNames, *, lease: float, node: str) -> None:
        self.lease: float | None = lease
        self._lease = lease
        self._connection = connection
        self._names = names
        self._node = node
        self._pulls = PullRequests(connection, self._return)
        self._records = RunLog(connection)
        self._consumers: dict[str, int] = {}
        self._ensuring = asyncio.Lock()

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        """Take up to `limit` due deliveries; wait up to `wait` seconds for the first.

        Raises `EventEngineUnavailable`.
        """
        until = time.monotonic() + wait
        while True:
            messages = await self._pull(handler, limit, max(0.0, until - time.monotonic()))
            found = await self._sorted_out(messages, handler)
            if found or time.monotonic() >= until:
                return found

    async def _pull(self, handler: str, limit: int, wait: float) -> list[Msg]:
        await self.ensure(handler)
        names = self._names
        try:
            return await self._pulls.pull(names.queue, names.consumer(handler), limit, wait)
        except EventEngineUnavailable:
            self._connection.doubt()
            raise

    async def ensure(self, handler: str) -> None:
        """Make sure that the handler has its consumer. Raises `EventEngineUnavailable`."""
        if self._consumers.get(handler) == self._connection.generation:
            return
        async with self._ensuring:
            generation = self._connection.generation
            if self._consumers.get(handler) != generation:
                async with reaching():
                    await ensure_consumer(self._connection, self._names, handler, self._lease)
                self._consumers[handler] = generation

    async def extend_leases(self, deliveries: Sequence[Delivery]) -> None:
        """Begin each lease anew. Raises `EventEngineUnavailable`."""
        async with reaching():
            for claimed in map(_claimed, deliveries):
                if claimed.ours:
                    await self._connection.client.publish(claimed.message.reply, _WORKING)
                    claimed.until = time.monotonic() + self._lease

    async def ack(self, delivery: Delivery, duration: float) -> None:
        """Done. Raises `EventEngineUnavailable`."""
        claimed = _claimed(delivery)
        if claimed.ours:
            record = self._record(delivery, self._run(delivery, "done", duration, None))
            await self._end(claimed, _ACK)
            await self._records.add(record)

    async def retry(self, delivery: Delivery, delay: float, error: str, duration: float) -> None:
        """Failed: due again in `delay` seconds. Raises `EventEngineUnavailable`."""
        claimed = _claimed(delivery)
        if claimed.ours:
            await self._tell(self._record(delivery, self._run(delivery, "retry", duration, error)))
            await self._wait_visibly(delivery, claimed, delay, error)
            await self._end(claimed, _later(delay))

    async def dead_letter(self, delivery: Delivery, error: str, duration: float) -> None:
        """Given up: it lies among the dead before it leaves the queue. Raises
        `EventEngineUnavailable`."""
        claimed = _claimed(delivery)
        if claimed.ours:
            await self._bury(claimed.message, delivery.handler, delivery.event_id, error)
            await self._tell(self._record(delivery, self._run(delivery, "dead", duration, error)))
            await self._end(claimed, _TERMINATE)

    async def dead_letter_orphans(self, handlers: Sequence[str]) -> int:
        """Return 0: other nodes may have the handlers that this one lacks."""
        return 0

    async def requeue(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Give back unharmed, due again in `delay` seconds. Raises `EventEngineUnavailable`."""
        for claimed in map(_claimed, deliveries):
            if claimed.ours:
                await self._publish_again(claimed.message, delay)
                claimed.until = NEVER

    async def close(self) -> None:
        """Claim no more, and let the last records be written."""
        await self._pulls.close()
        await self._records.written()

    async def written(self) -> None:
        """Wait until what was acknowledged here can be seen; some seconds at the most."""
        await self._records.written()

    # -- what arrives

    async def _sorted_out(self, messages: Sequence[Msg], handler: str) -> list[Delivery]:
        """Return what is to be run now. Cancelled, it gives everything back."""
        found: list[Delivery] = []
        try:
            for message in messages:
                delivery = await self._taken(message, handler)
                found += [] if delivery is None else [delivery]
        except asyncio.CancelledError:
            for message in messages:
                await self._return(message)
            raise
        return found

    async def _taken(self, message: Msg, handler: str) -> Delivery | None:
        """Return the delivery, or None for what is not to be run now."""
        if due(message.headers) is not None and message.metadata.num_delivered == 1:
            delay = (due(message.headers) or 0.0) - time.time()
            await self._connection.ask(message.reply, _later(max(0.0, delay)))
            return None
        try:
            return delivery_of(message, handler, self._lease)
        except ForeignMessage as fault:
            log.error("a message of %s is given up: %s", handler, fault)
            await self._bury(message, handler, f"{message.metadata.sequence.stream}", str(fault))
            await self._connection.ask(message.reply, _TERMINATE)
            return None

    async def _return(self, message: Msg) -> None:
        """Give back what nobody waits for any more; failing that, its lease runs out."""
        with contextlib.suppress(EventEngineUnavailable):
            await self._publish_again(message, 0.0)

    # -- what is written

    async def _end(self, claimed: ClaimedMessage, how: bytes) -> None:
        """Settle. Only what the server has heard is settled: else it may be tried again."""
        await self._connection.ask(claimed.message.reply, how)
        claimed.until = NEVER

    async def _publish_again(self, message: Msg, delay: float) -> None:
        """Put a copy into the queue that has used one attempt less, then end this one.

        A queue that is full takes none: then the message itself goes back, its attempt used up.
        """
        attempts = max(0, attempt_of(message) - 1)
        headers = {MESSAGE_ID: f"again:{message.metadata.sequence.stream}", ATTEMPTS: str(attempts)}
        if delay > 0:
            headers[DUE] = repr(time.time() + delay)
        try:
            async with reaching():
                await self._connection.js.publish(message.subject, message.data, headers=headers)
        except EventEngineUnavailable as fault:
            log.warning("a delivery is handed back with its attempt used up: %s", fault)
            await self._connection.ask(message.reply, _later(delay))
        else:
            await self._connection.ask(message.reply, _ACK)

    async def _bury(self, message: Msg, handler: str, event_id: str, error: str) -> None:
        sequence = message.metadata.sequence.stream
        grave = {
            "handler": handler,
            "attempt": attempt_of(message),
            "error": error,
            "died": time.time(),
            "event": _text(message.data),
        }
        async with reaching():
            await self._connection.js.publish(
                self._names.of("dead", handler, event_id),
                json.dumps(grave).encode(),
                headers={MESSAGE_ID: f"dead:{sequence}"},
            )

    def _run(
        self, delivery: Delivery, outcome: str, duration: float, error: str | None
    ) -> dict[str, Any]:
        """Return what is written of a run that ended."""
        return {
            "event_id": delivery.event_id,
            "handler": delivery.handler,
            "sequence": _claimed(delivery).sequence,
            "attempt": delivery.attempt,
            "node": self._node,
            "ended": time.time(),
            "duration": duration,
            "outcome": outcome,
            "error": error,
            "type": delivery.event,
            "upload_id": delivery.upload_id,
            "path": delivery.body.get("path"),
            "created": delivery.created,
        }

    def _record(self, delivery: Delivery, told: Mapping[str, Any], kind: str = "run") -> RunLogEntry:
        """Return a message for the stream of runs. A repetition is recognised there."""
        return RunLogEntry(
            self._names.of(kind, delivery.handler, delivery.event_id),
            json.dumps(told, separators=(",", ":")).encode(),
            {MESSAGE_ID: f"{kind}:{_claimed(delivery).sequence}:{delivery.attempt}"},
        )

    async def _wait_visibly(
        self, delivery: Delivery, claimed: ClaimedMessage, delay: float, error: str
    ) -> None:
        """Leave a note that goes away by itself when the delivery is due: so watchers can count."""
        if delay >= 1:
            note = {
                "due": time.time() + delay,
                "sequence": claimed.sequence,
                "attempt": delivery.attempt,
                "error": error,
            }
            await self._tell(self._record(delivery, note, "wait"), ttl=delay)

    async def _tell(self, record: RunLogEntry, ttl: float | None = None) -> None:
        """Publish to the stream of runs and wait until the server has it."""
        async with reaching():
            await self._connection.js.publish(
                record.subject, record.payload, headers=dict(record.headers), msg_ttl=ttl
            )


def _claimed(delivery: Delivery) -> ClaimedMessage:
    if not isinstance(delivery.token, ClaimedMessage):
        raise TypeError("this delivery was handed out by another engine")
    return delivery.token


def _later(delay: float) -> bytes:
    """Return what asks for a redelivery after `delay` seconds."""
    return b"-NAK " + json.dumps({"delay": int(delay * 1e9)}).encode() if delay > 0 else b"-NAK"


def _text(data: bytes) -> Any:
    """Return a message's body as JSON where it is, so that it can be read in the stream."""
    with contextlib.suppress(ForeignMessage):
        decode(data)
        return json.loads(data)
    return data.decode(errors="replace")
