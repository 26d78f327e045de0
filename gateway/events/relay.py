"""Moves deliveries from the journal to a remote engine.

A delivery leaves the journal's queue only when the engine has acknowledged it; its row stays for a
replay. Uploads never wait for the engine: while it is unavailable, events stay queued in the
journal. The engine recognises a repetition by its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.domain.model import Delivery, Origin
from gateway.errors import EventEngineUnavailable
from gateway.events.protocols import Depth, NewEvent
from gateway.events.queue import JournalQueue
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.relay")

MAX_BATCH: Final = 256
"""Deliveries of one batch."""

MAX_BATCHES: Final = 2
"""Batches in flight: while one is being acknowledged the next one is claimed."""

CLAIM_TIMEOUT: Final = 30.0
DEPTH_INTERVAL: Final = 5.0
"""Seconds between two counts of what waits."""

MIN_DELAY: Final = 0.25
MAX_DELAY: Final = 5.0
"""Seconds between two batches while the engine takes nothing: the first and the longest delay."""

MIN_UNFIT_DELAY: Final = 60.0
MAX_UNFIT_DELAY: Final = 3600.0
"""Seconds until a delivery that is too large for the engine is tried again: first and at most."""


@dataclass(slots=True, frozen=True)
class OutgoingDelivery:
    """One delivery for a remote engine. `key` recognises a repetition."""

    event: NewEvent
    handler: str
    key: str
    origin: Origin | None = None


class RelayTarget(Protocol):
    """The remote engine."""

    async def wait_ready(self) -> None:
        """Wait until it is available."""

    async def send(self, deliveries: Sequence[OutgoingDelivery]) -> list[Exception | None]:
        """Publish all; return for each None where it is acknowledged, else the error."""


@dataclass(slots=True, frozen=True)
class RelayContext:
    """What a relay adds to deliveries, and what it reads from the journal.

    `holder` returns the `HOST:PORT` that events name, `scheme` is what is served there,
    `etags` finds the entity tags of uploads, `depth` what the journal still has.
    """

    holder: Callable[[], str]
    scheme: str
    etags: Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
    depth: Callable[[], Awaitable[Sequence[Depth]]]


class Relay:
    """Relays the deliveries of `source`. Lives on the server's loop."""

    def __init__(self, source: JournalQueue, target: RelayTarget, context: RelayContext) -> None:
        self._source = source
        self._target = target
        self._context = context
        self._slots = asyncio.Semaphore(MAX_BATCHES)
        self._sending: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._delay = 0.0
        self._oldest: float | None = None
        self.waiting = 0
        """Deliveries that are not relayed yet, some seconds ago."""

    @property
    def lag(self) -> float:
        """Age in seconds of the oldest event that is not relayed yet."""
        return 0.0 if self._oldest is None else max(0.0, time.time() - self._oldest)

    def start(self) -> None:
        """Begin to relay."""
        self._tasks = [asyncio.create_task(self._relay()), asyncio.create_task(self._count_waiting())]

    async def stop(self) -> None:
        """Relay no more; what was claimed and not acknowledged goes back to the queue."""
        for task in (*self._tasks, *self._sending):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._sending, return_exceptions=True)

    async def _relay(self) -> None:
        while True:
            await self._target.wait_ready()
            await self._slots.acquire()
            try:
                claimed = await self._source.claim_any(MAX_BATCH, CLAIM_TIMEOUT)
            except EventEngineUnavailable as error:
                self._slots.release()
                log.error(
                    "the journal cannot be read, retrying: %s", error, extra=event("journal.unavailable")
                )
                await asyncio.sleep(MAX_DELAY)
                continue
            except BaseException:
                self._slots.release()
                raise
            # No `await` until a task has the batch: a stop must find what was claimed.
            task = asyncio.create_task(self._send_batch(claimed))
            self._sending.add(task)
            task.add_done_callback(self._finish_batch)
            if self._delay:
                await asyncio.sleep(self._delay)

    def _finish_batch(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a batch could not be relayed", exc_info=error, extra=event("relay.failed"))

    async def _send_batch(self, claimed: list[Delivery]) -> None:
        if not claimed:
            return
        unsent = {id(delivery): delivery for delivery in claimed}
        try:
            errors = await self._target.send(await self._outgoing(claimed))
            relayed = [d for d, error in zip(claimed, errors, strict=True) if error is None]
            # Cancelled in between, they are requeued and sent again: their keys recognise them.
            await self._source.mark_relayed(relayed)
            for delivery in relayed:
                del unsent[id(delivery)]
            for delivery, error in zip(claimed, errors, strict=True):
                if isinstance(error, ValueError):
                    await self._delay_unfit(delivery, error)
                    del unsent[id(delivery)]
            self._adjust_delay(next((e for e in errors if isinstance(e, EventEngineUnavailable)), None))
        finally:
            if unsent:
                await self._requeue(list(unsent.values()))

    async def _delay_unfit(self, delivery: Delivery, error: ValueError) -> None:
        """Keep in the journal what the engine cannot take: not dead, as its handler has not run."""
        delay = min(MIN_UNFIT_DELAY * 2 ** min(delivery.attempt - 1, 16), MAX_UNFIT_DELAY)
        log.error(
            "event %s for %s cannot be relayed and waits in the journal: %s",
            delivery.event_id,
            delivery.handler,
            error,
            extra=event("delivery.unfit", event_id=delivery.event_id, handler=delivery.handler),
        )
        await self._source.retry(delivery, delay, str(error), 0.0)

    async def _requeue(self, deliveries: list[Delivery]) -> None:
        # Where the journal fails as well, the next start finds them running and makes them ready.
        with contextlib.suppress(EventEngineUnavailable):
            await self._source.requeue(deliveries)

    def _adjust_delay(self, error: EventEngineUnavailable | None) -> None:
        """Wait longer after each batch that the engine did not take."""
        if error is None:
            self._delay = 0.0
            return
        if not self._delay:
            unavailable = "NATS unavailable, events stay queued in the journal: %s"
            log.warning(unavailable, error, extra=event("engine.unavailable"))
        self._delay = min(max(self._delay * 2, MIN_DELAY), MAX_DELAY)

    async def _outgoing(self, claimed: Sequence[Delivery]) -> list[OutgoingDelivery]:
        uploads = list({d.upload_id for d in claimed if d.upload_id is not None})
        etags = await self._context.etags(uploads) if uploads else {}
        return [self._outgoing_delivery(delivery, etags) for delivery in claimed]

    def _outgoing_delivery(self, delivery: Delivery, etags: Mapping[str, str]) -> OutgoingDelivery:
        about_file = delivery.upload_id is not None
        new_event = NewEvent(
            id=delivery.event_id,
            type=delivery.event,
            handlers=(delivery.handler,),
            body=delivery.body,
            created=delivery.created,
            upload_id=delivery.upload_id,
            path=delivery.body.get("path"),
            holder=delivery.holder or (self._context.holder() if about_file else None),
        )
        key = f"{delivery.event_id}:{delivery.handler}:{delivery.round}"
        etag = etags.get(delivery.upload_id or "")
        origin = Origin(self._context.scheme, etag) if about_file else None
        return OutgoingDelivery(new_event, delivery.handler, key, origin)

    async def _count_waiting(self) -> None:
        """Count what waits, every `DEPTH_INTERVAL`."""
        while True:
            with contextlib.suppress(EventEngineUnavailable):
                depths = [row for row in await self._context.depth() if row.state != "dead"]
                self.waiting = sum(row.count for row in depths)
                self._oldest = min((row.oldest for row in depths), default=None)
                for handler in {row.handler for row in depths if row.state == "delayed"}:
                    while await self._source.limit_delays(handler, MAX_UNFIT_DELAY + 1):
                        pass  # delayed while the clock was ahead
            await asyncio.sleep(DEPTH_INTERVAL)
