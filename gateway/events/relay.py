"""Takes what is ready out of the journal and hands it to a remote engine.

The rule: an event leaves the journal's queue only when the remote engine has acknowledged it, and
even then its row stays for a replay. Uploads never wait for it: while the engine is away, events
wait in the journal. A repetition is recognised there by its key.
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

log = logging.getLogger("gateway.relay")

BATCH: Final = 256
BATCHES: Final = 2
"""Batches on their way at once: while one is being acknowledged the next one is claimed."""

CLAIM_SECONDS: Final = 30.0
LOOK_EVERY: Final = 5.0
"""Seconds between two looks at how far behind we are."""

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0


@dataclass(slots=True, frozen=True)
class OutgoingDelivery:
    """One delivery to be handed over. `key` recognises a repetition."""

    event: NewEvent
    handler: str
    key: str
    origin: Origin | None = None


class RelaySource(Protocol):
    """The journal, as far as a relay needs it. All raise `EventEngineUnavailable`."""

    async def claim_any(self, limit: int, wait: float) -> list[Delivery]:
        """Take due deliveries of all handlers."""

    async def mark_relayed(self, deliveries: Sequence[Delivery]) -> None:
        """They were handed over."""

    async def requeue(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """They could not be handed over now."""

    async def dead_letter(self, delivery: Delivery, error: str, duration: float) -> None:
        """This one can never be handed over."""


class RelayTarget(Protocol):
    """The engine that takes them."""

    async def wait_ready(self) -> None:
        """Wait until it can be reached."""

    async def send(self, parcels: Sequence[OutgoingDelivery]) -> list[Exception | None]:
        """Publish all; say of each None where it is acknowledged, else why it is not."""


@dataclass(slots=True, frozen=True)
class RelayContext:
    """What others must know of us, and we of the journal.

    `holder` returns the `HOST:PORT` that events name, `scheme` is what is served there,
    `etags` finds the entity tags of uploads, `depth` what the journal still has.
    """

    holder: Callable[[], str]
    scheme: str
    etags: Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
    depth: Callable[[], Awaitable[Sequence[Depth]]]


class Relay:
    """Hands over what `source` has. Lives on the server's loop."""

    def __init__(self, source: RelaySource, remote: RelayTarget, here: RelayContext) -> None:
        self._source = source
        self._remote = remote
        self._here = here
        self._slots = asyncio.Semaphore(BATCHES)
        self._sending: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._pause = 0.0
        self._oldest: float | None = None
        self.waiting = 0
        """Deliveries that are not yet handed over, some seconds ago."""

    @property
    def lag(self) -> float:
        """Age in seconds of the oldest event that is not yet handed over."""
        return 0.0 if self._oldest is None else max(0.0, time.time() - self._oldest)

    def start(self) -> None:
        """Begin to hand over."""
        self._tasks = [asyncio.create_task(self._relay()), asyncio.create_task(self._look())]

    async def stop(self) -> None:
        """Hand over no more; what was claimed and not acknowledged goes back."""
        for task in (*self._tasks, *self._sending):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._sending, return_exceptions=True)

    async def _relay(self) -> None:
        while True:
            await self._remote.wait_ready()
            await self._slots.acquire()
            try:
                claimed = await self._source.claim_any(BATCH, CLAIM_SECONDS)
            except EventEngineUnavailable as fault:
                self._slots.release()
                log.error("the journal cannot be read, trying again: %s", fault)
                await asyncio.sleep(LONGEST_PAUSE)
                continue
            except BaseException:
                self._slots.release()
                raise
            # No `await` until a task has them: a stop must find what was claimed.
            task = asyncio.create_task(self._hand_over(claimed))
            self._sending.add(task)
            task.add_done_callback(self._handed_over)
            if self._pause:
                await asyncio.sleep(self._pause)

    def _handed_over(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._slots.release()
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a batch could not be handed over", exc_info=fault)

    async def _hand_over(self, claimed: list[Delivery]) -> None:
        if not claimed:
            return
        left = {id(delivery): delivery for delivery in claimed}
        try:
            outcomes = await self._remote.send(await self._packed(claimed))
            taken = [d for d, fault in zip(claimed, outcomes, strict=True) if fault is None]
            # Cancelled in the middle, it is handed back and sent again: its key recognises it.
            await self._source.mark_relayed(taken)
            for delivery in taken:
                del left[id(delivery)]
            for delivery, fault in zip(claimed, outcomes, strict=True):
                if isinstance(fault, ValueError):
                    log.error("%s for %s: %s", delivery.event_id, delivery.handler, fault)
                    await self._source.dead_letter(delivery, str(fault), 0.0)
                    del left[id(delivery)]
            self._mind(next((f for f in outcomes if isinstance(f, EventEngineUnavailable)), None))
        finally:
            if left:
                await self._give_back(list(left.values()))

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        # Where the journal fails as well, the next start finds them running and revives them.
        with contextlib.suppress(EventEngineUnavailable):
            await self._source.requeue(deliveries)

    def _mind(self, fault: EventEngineUnavailable | None) -> None:
        """Pause, longer and longer, while the engine takes nothing."""
        if fault is None:
            self._pause = 0.0
            return
        if not self._pause:
            log.warning("events wait in the journal: %s", fault)
        self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)

    async def _packed(self, claimed: Sequence[Delivery]) -> list[OutgoingDelivery]:
        uploads = list({d.upload_id for d in claimed if d.upload_id is not None})
        etags = await self._here.etags(uploads) if uploads else {}
        return [self._parcel(delivery, etags) for delivery in claimed]

    def _parcel(self, delivery: Delivery, etags: Mapping[str, str]) -> OutgoingDelivery:
        about_file = delivery.upload_id is not None
        event = NewEvent(
            id=delivery.event_id,
            type=delivery.event,
            handlers=(delivery.handler,),
            body=delivery.body,
            created=delivery.created,
            upload_id=delivery.upload_id,
            path=delivery.body.get("path"),
            holder=delivery.holder or (self._here.holder() if about_file else None),
        )
        key = f"{delivery.event_id}:{delivery.handler}:{delivery.round}"
        etag = etags.get(delivery.upload_id or "")
        origin = Origin(self._here.scheme, etag) if about_file else None
        return OutgoingDelivery(event, delivery.handler, key, origin)

    async def _look(self) -> None:
        """Keep an eye on how far behind we are."""
        while True:
            with contextlib.suppress(EventEngineUnavailable):
                depth = [one for one in await self._here.depth() if one.state != "dead"]
                self.waiting = sum(one.count for one in depth)
                self._oldest = min((one.oldest for one in depth), default=None)
            await asyncio.sleep(LOOK_EVERY)
