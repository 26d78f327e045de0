"""Claims the deliveries of one handler from any queue and keeps its slots busy.

It claims only what it can start, and never polls: a claim waits in the engine. A slot is free when its
run has ended; the outcome is written meanwhile, for a bounded number of runs.
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
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.runner")

CLAIM_TIMEOUT: Final = 60.0
"""Seconds that a claim waits in the engine: the wall clock may have been set meanwhile."""

MAX_UNSETTLED: Final = 1000
"""Ended runs of a handler whose outcome is not written yet."""

Run = Callable[[Delivery, "HandlerConsumer"], Coroutine[None, None, None]]


class EngineBackoff:
    """Growing delays while the event engine is unavailable, shared by all that wait.

    Logs once when it becomes unavailable and once when it answers again.
    """

    MIN_DELAY = 0.5
    MAX_DELAY = 15.0
    """Seconds of the first and of the longest delay."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._until = 0.0

    async def wait(self, error: EventEngineUnavailable) -> None:
        """Sleep until the next attempt is due."""
        now = asyncio.get_running_loop().time()
        if not self._delay:
            log.error("the event engine is unavailable, retrying: %s", error, extra=event("engine.lost"))
        if now >= self._until:
            self._delay = min(max(self._delay * 2, self.MIN_DELAY), self.MAX_DELAY)
            self._until = now + self._delay
        await asyncio.sleep(self._until - now)

    def reset(self) -> None:
        """Note that the engine answered."""
        if self._delay:
            self._delay = self._until = 0.0
            log.info("the event engine is available again", extra=event("engine.recovered"))


class HandlerConsumer:
    """One handler's claims and runs. `runs` holds every claimed delivery until it is settled."""

    def __init__(self, queue: Queue, spec: HandlerSpec, run: Run, backoff: EngineBackoff) -> None:
        self.spec = spec
        self.runs: dict[asyncio.Task[None], Delivery] = {}
        self.busy = 0
        self.retired = False
        self._queue = queue
        self._run = run
        self._backoff = backoff
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._claim_forever())

    def update_spec(self, spec: HandlerSpec) -> None:
        """Take over what a reload has changed."""
        fewer, self.spec = spec.concurrency < self.spec.concurrency, spec
        self._changed.set()
        if fewer:  # the pending claim asks for more deliveries than there will be slots
            self._task.cancel()
            self._task = asyncio.create_task(self._claim_forever())

    def release_slot(self) -> None:
        """Note that a run has ended; its outcome may still be unwritten."""
        self.busy -= 1
        self._changed.set()

    async def stop_claiming(self) -> None:
        """Claim no more. The engine takes back what a pending claim would have returned."""
        self.retired = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _claim_forever(self) -> None:
        while True:
            self._changed.clear()
            free = min(self.spec.concurrency - self.busy, MAX_UNSETTLED - len(self.runs))
            if free > 0:
                await self._claim(free)
            else:
                await self._changed.wait()

    async def _claim(self, free: int) -> None:
        try:
            claimed = await self._queue.claim(self.spec.name, free, CLAIM_TIMEOUT)
        except EventEngineUnavailable as error:
            await self._backoff.wait(error)
            return
        except Exception as error:
            # A defect of the gateway; a consumer that ended would leave its handler without deliveries.
            handler = self.spec.name
            log.exception("a claim for %s failed", handler, extra=event("claim.failed", handler=handler))
            await self._backoff.wait(EventEngineUnavailable(str(error)))
            return
        self._backoff.reset()
        # No `await` from here on: what is claimed must be in `runs` when the task is cancelled.
        for delivery in claimed:
            self.busy += 1
            run = asyncio.create_task(self._run(delivery, self))
            self.runs[run] = delivery
            run.add_done_callback(self._finish_run)

    def _finish_run(self, run: asyncio.Task[None]) -> None:
        del self.runs[run]
        self._changed.set()
        if not run.cancelled() and (error := run.exception()) is not None:
            log.error("a delivery could not be settled", exc_info=error, extra=event("delivery.stuck"))
