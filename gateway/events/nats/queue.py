"""JetStream as a queue: deliveries are claimed from consumers that all nodes share.

The server counts attempts and leases. A delivery whose lease has ended may belong to another process:
settling it changes nothing. A settlement waits for the server's answer; only the log entry of a
successful run may be written later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from nats.aio.msg import Msg

from gateway.domain.model import Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events.memory_queue import MemoryQueue
from gateway.events.nats.connection import Connection, mapped_errors
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
    due_time,
    fitting,
    redelivery,
)
from gateway.events.nats.outbox import MAX_HEADER_BYTES, RunLog, RunLogEntry
from gateway.events.nats.pull_requests import PullRequests
from gateway.events.nats.streams import StreamNames, ensure_consumer
from gateway.events.protocols import RunOutput
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.nats")

_ACK: Final = b"+ACK"
_WORKING: Final = b"+WPI"
_TERMINATE: Final = b"+TERM"

MAX_REQUEUE_DELAY: Final = 60.0
"""Seconds that a requeued delivery waits at most: it is requeued for less, maybe by a clock ahead."""


class NatsQueue:
    """The deliveries in the queue stream. `node` is written into the log of each run."""

    def __init__(self, connection: Connection, names: StreamNames, *, lease: float, node: str) -> None:
        self.lease: float | None = lease
        self.memory: MemoryQueue | None = None
        self._lease = lease
        self._connection = connection
        self._names = names
        self._node = node
        self._pulls = PullRequests(connection, self._return)
        self._run_log = RunLog(connection)
        self._consumers: dict[str, int] = {}
        self._ensuring = asyncio.Lock()

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        """Claim up to `limit` due deliveries; wait up to `wait` seconds for the first."""
        until = time.monotonic() + wait
        while True:
            messages = await self._pull(handler, limit, max(0.0, until - time.monotonic()))
            deliveries = await self._due_deliveries(messages, handler)
            if deliveries or time.monotonic() >= until:
                return deliveries

    async def _pull(self, handler: str, limit: int, wait: float) -> list[Msg]:
        await self.ensure_consumer(handler)
        names = self._names
        try:
            return await self._pulls.pull(names.queue, names.consumer(handler), limit, wait)
        except EventEngineUnavailable:
            self._connection.prepare_again()
            raise

    async def ensure_consumer(self, handler: str) -> None:
        """Create the handler's consumer unless it exists. Raises `EventEngineUnavailable`."""
        if self._consumers.get(handler) == self._connection.generation:
            return
        async with self._ensuring:
            generation = self._connection.generation
            if self._consumers.get(handler) != generation:
                async with mapped_errors():
                    await ensure_consumer(self._connection, self._names, handler, self._lease)
                self._consumers[handler] = generation

    async def extend_leases(self, deliveries: Sequence[Delivery]) -> None:
        """Begin the lease of each delivery anew."""
        async with mapped_errors():
            for claimed in map(_claimed, deliveries):
                if claimed.leased:
                    await self._connection.client.publish(claimed.message.reply, _WORKING)
                    claimed.until = time.monotonic() + self._lease

    async def ack(self, delivery: Delivery, duration: float, result: RunOutput | None = None) -> None:
        """Settle a delivery as done."""
        claimed = _claimed(delivery)
        if claimed.leased:
            entry = self._run_entry(delivery, "done", duration, None, result)
            await self._settle(claimed, _ACK)
            await self._run_log.add(entry)

    async def retry(
        self,
        delivery: Delivery,
        delay: float,
        error: str,
        duration: float,
        result: RunOutput | None = None,
    ) -> None:
        """Settle a run as failed: due again in `delay` seconds."""
        claimed = _claimed(delivery)
        if claimed.leased:
            await self._publish_entry(self._run_entry(delivery, "retry", duration, error, result))
            await self._note_delay(delivery, delay, error)
            await self._settle(claimed, redelivery(delay))

    async def dead_letter(
        self, delivery: Delivery, error: str, duration: float, result: RunOutput | None = None
    ) -> None:
        """Make a delivery dead: it is in the dead stream before it leaves the queue."""
        claimed = _claimed(delivery)
        if claimed.leased:
            await self._publish_dead(claimed.message, delivery.handler, delivery.event_id, error)
            await self._publish_entry(self._run_entry(delivery, "dead", duration, error, result))
            await self._settle(claimed, _TERMINATE)

    async def limit_delays(self, handler: str, longest: float) -> int:
        """Return 0: the server measures the delays."""
        return 0

    async def dead_letter_orphans(self, handlers: Sequence[str]) -> int:
        """Return 0: other nodes may have the handlers that this one lacks."""
        return 0

    async def requeue(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Return deliveries unharmed, due again in `delay` seconds."""
        for claimed in map(_claimed, deliveries):
            if claimed.leased:
                await self._publish_again(claimed.message, delay)
                claimed.until = NEVER

    async def close(self) -> None:
        """Claim no more, and write the last log entries."""
        await self._pulls.close()
        await self.flush_run_log()

    async def flush_run_log(self) -> None:
        """Wait until acknowledged runs are visible, up to some seconds."""
        await self._run_log.flush()

    # -- received messages

    async def _due_deliveries(self, messages: Sequence[Msg], handler: str) -> list[Delivery]:
        """Return what is to be run now. A cancelled call returns everything to the queue."""
        try:
            deliveries = [await self._due_delivery(message, handler) for message in messages]
        except asyncio.CancelledError:
            for message in messages:
                await self._return(message)
            raise
        return [delivery for delivery in deliveries if delivery is not None]

    async def _due_delivery(self, message: Msg, handler: str) -> Delivery | None:
        """Return the delivery, None where it is not to be run now."""
        due = due_time(message.headers)
        if due is not None and message.metadata.num_delivered == 1:
            delay = min(max(0.0, due - time.time()), MAX_REQUEUE_DELAY)
            await self._connection.request(message.reply, redelivery(delay))
            return None
        try:
            return delivery_of(message, handler, self._lease)
        except ForeignMessage as error:
            dead = "a message of %s is dead: %s"
            log.error(dead, handler, error, extra=event("delivery.dead", handler=handler))
            await self._publish_dead(message, handler, f"{message.metadata.sequence.stream}", str(error))
            await self._connection.request(message.reply, _TERMINATE)
            return None

    async def _return(self, message: Msg) -> None:
        """Return a message of a cancelled claim to the queue; failing that, its lease ends."""
        with contextlib.suppress(EventEngineUnavailable):
            await self._publish_again(message, 0.0)

    # -- sent messages

    async def _settle(self, claimed: ClaimedMessage, verdict: bytes) -> None:
        """Settle. Without the server's answer it is not settled and may be tried again."""
        await self._connection.request(claimed.message.reply, verdict)
        claimed.until = NEVER

    async def _publish_again(self, message: Msg, delay: float) -> None:
        """Publish a copy that has used one attempt less, then settle this one.

        A full queue refuses it: then the message itself goes back, its attempt used up.
        """
        attempts = max(0, attempt_of(message) - 1)
        headers = {MESSAGE_ID: f"again:{message.metadata.sequence.stream}", ATTEMPTS: str(attempts)}
        if delay > 0:
            headers[DUE] = repr(time.time() + delay)
        try:
            async with mapped_errors():
                await self._connection.js.publish(message.subject, message.data, headers=headers)
        except EventEngineUnavailable as error:
            returned = "a delivery goes back to the queue with its attempt used up: %s"
            log.warning(returned, error, extra=event("delivery.returned"))
            await self._connection.request(message.reply, redelivery(delay))
        else:
            await self._connection.request(message.reply, _ACK)

    async def _publish_dead(self, message: Msg, handler: str, event_id: str, error: str) -> None:
        sequence = message.metadata.sequence.stream
        fields = {"handler": handler, "attempt": attempt_of(message), "error": error}
        fields |= {"died": time.time(), "event": _text(message.data)}
        subject = self._names.subject_of("dead", handler, event_id)
        payload = fitting(fields, self._connection.max_payload - MAX_HEADER_BYTES)
        async with mapped_errors():
            headers = {MESSAGE_ID: f"dead:{sequence}"}
            await self._connection.js.publish(subject, payload, headers=headers)

    def _run_entry(
        self,
        delivery: Delivery,
        outcome: str,
        duration: float,
        error: str | None,
        result: RunOutput | None,
    ) -> RunLogEntry:
        """Return the log entry of an ended run."""
        fields = {
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
        if result is not None:
            fields["result"] = result
        return self._entry(delivery, fields, "run")

    def _entry(self, delivery: Delivery, fields: dict[str, Any], kind: str) -> RunLogEntry:
        """Return a message for the stream of runs, which recognises a repetition."""
        return RunLogEntry(
            self._names.subject_of(kind, delivery.handler, delivery.event_id),
            fitting(fields, self._connection.max_payload - MAX_HEADER_BYTES),
            {MESSAGE_ID: f"{kind}:{_claimed(delivery).sequence}:{delivery.attempt}"},
        )

    async def _note_delay(self, delivery: Delivery, delay: float, error: str) -> None:
        """Publish a note that expires when the delivery is due: the ledger counts them."""
        if delay >= 1:
            note: dict[str, Any] = {"due": time.time() + delay, "attempt": delivery.attempt}
            note |= {"sequence": _claimed(delivery).sequence, "error": error}
            await self._publish_entry(self._entry(delivery, note, "wait"), ttl=delay)

    async def _publish_entry(self, entry: RunLogEntry, ttl: float | None = None) -> None:
        """Publish to the stream of runs and wait for the acknowledgement."""
        async with mapped_errors():
            await self._connection.js.publish(
                entry.subject, entry.payload, headers=dict(entry.headers), msg_ttl=ttl
            )


def _claimed(delivery: Delivery) -> ClaimedMessage:
    if not isinstance(delivery.token, ClaimedMessage):
        raise TypeError("this delivery was claimed from another engine")
    return delivery.token


def _text(data: bytes) -> Any:
    """Return a message's body as JSON where it is JSON, so that it can be read in the stream."""
    with contextlib.suppress(ForeignMessage):
        decode(data)
        return json.loads(data)
    return data.decode(errors="replace")
