"""Keeps the slots of one handler busy, above any queue.

The rule: it claims only what it can start, and never polls: a claim waits in the engine. A slot is
free when its run has ended; that the outcome is written down meanwhile holds up nobody, within
bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from gateway.domain.model import Delivery, HandlerSpec
from gateway.errors import EventEngineUnavailable
from gateway.events.protocols import Queue

log = logging.getLogger("gateway.runner")

LONGEST_CLAIM: Final = 60.0
"""Seconds that a claim waits in the engine: a wall clock may have been set meanwhile."""

UNSETTLED: Final = 1000
"""Ended runs of a handler whose outcome is not yet written down, at the most."""

Run = Callable[[Delivery, "HandlerConsumer"], Coroutine[None, None, None]]


class EngineBackoff:
    """An engine that is away: said once, asked again after growing pauses, said when it is back."""

    FIRST = 0.5
    LONGEST = 15.0
    """Seconds of the first and the longest pause, which all who wait share."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._until = 0.0

    async def rest(self, fault: EventEngineUnavailable) -> None:
        """Wait before the next attempt."""
        now = asyncio.get_running_loop().time()
        if not self._pause:
            log.error("the engine of events is away, trying again: %s", fault)
        if now >= self._until:
            self._pause = min(max(self._pause * 2, self.FIRST), self.LONGEST)
            self._until = now + self._pause
        await asyncio.sleep(self._until - now)

    def back(self) -> None:
        """It answered."""
        if self._pause:
            self._pause = self._until = 0.0
            log.info("the engine of events is back")


class HandlerConsumer:
    """One handler's claims and runs. `runs` has every claimed delivery until it is settled."""

    def __init__(self, queue: Queue, spec: HandlerSpec, run: Run, away: EngineBackoff) -> None:
        self.spec = spec
        self.runs: dict[asyncio.Task[None], Delivery] = {}
        self.busy = 0
        self.retired = False
        self._queue = queue
        self._run = run
        self._away = away
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._feed())

    def follow(self, spec: HandlerSpec) -> None:
        """Take over what a reload has changed."""
        fewer, self.spec = spec.concurrency < self.spec.concurrency, spec
        self._changed.set()
        if fewer:  # the claim on its way asks for more than there will be slots
            self._task.cancel()
            self._task = asyncio.create_task(self._feed())

    def slot_freed(self) -> None:
        """A run has ended; its outcome may still be on its way."""
        self.busy -= 1
        self._changed.set()

    async def stop_claiming(self) -> None:
        """End the feeding. The engine takes back what a claim on its way would have brought."""
        self.retired = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _feed(self) -> None:
        while True:
            self._changed.clear()
            free = min(self.spec.concurrency - self.busy, UNSETTLED - len(self.runs))
            if free > 0:
                await self._claim(free)
            else:
                await self._changed.wait()

    async def _claim(self, free: int) -> None:
        try:
            claimed = await self._queue.claim(self.spec.name, free, LONGEST_CLAIM)
        except EventEngineUnavailable as fault:
            await self._away.rest(fault)
            return
        except Exception as fault:
            # Our own mistake; a feeder that ended would leave its handler without deliveries.
            log.exception("a claim for %s broke", self.spec.name)
            await self._away.rest(EventEngineUnavailable(str(fault)))
            return
        self._away.back()
        # No `await` from here on: what is claimed must be in `runs` when the end comes.
        for delivery in claimed:
            self.busy += 1
            run = asyncio.create_task(self._run(delivery, self))
            self.runs[run] = delivery
            run.add_done_callback(self._ended)

    def _ended(self, run: asyncio.Task[None]) -> None:
        del self.runs[run]
        self._changed.set()
        if not run.cancelled() and (fault := run.exception()) is not None:
            log.error("a delivery could not be settled", exc_info=fault)
