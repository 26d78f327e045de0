"""Gets the deliveries of one handler, from any queue and from memory, and keeps its slots busy.

It claims only what it can start, and never polls: a claim waits in the engine. What comes from memory
meanwhile uses the same slots; the claim may then return more than can start at once, and that waits
here. What has waited too long goes back to the queue: a delivery that counts as running should run. A
slot is free when its run has ended; the outcome is written meanwhile, for a bounded number of runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from gateway.domain.model import Delivery, HandlerSpec
from gateway.errors import EventEngineUnavailable
from gateway.events.memory_queue import FirstRun
from gateway.events.protocols import Queue
from gateway.storage.waiting import cancel_and_wait
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.runner")

CLAIM_TIMEOUT: Final = 60.0
"""Seconds that a claim waits in the engine: the wall clock may have been set meanwhile."""

MAX_UNSETTLED: Final = 1000
"""Ended runs of a handler whose outcome is not written yet."""

MAX_WAIT: Final = 1.0
"""Seconds that a delivery waits here for a slot."""


class RunStarter(Protocol):
    """Runs what a consumer gets."""

    def begin(self, delivery: Delivery, consumer: HandlerConsumer) -> asyncio.Future[None]:
        """Begin a run; the future is done when it is settled, and cancels it."""

    def return_waiting(self, deliveries: Sequence[Delivery]) -> None:
        """Return to the queue what has not begun."""

    def slots(self, consumer: HandlerConsumer) -> int:
        """Return how many runs of the handler may be under way."""


class _WaitingDelivery(NamedTuple):
    """A running delivery that has not begun, since when (monotonic), and its place in memory."""

    delivery: Delivery
    since: float
    first_run: FirstRun | None = None


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
    """One handler's deliveries and runs. `runs` holds every one that has begun until it is settled."""

    def __init__(
        self, queue: Queue, spec: HandlerSpec, delivery_runs: RunStarter, backoff: EngineBackoff
    ) -> None:
        self.spec = spec
        self.runs: dict[asyncio.Future[None], Delivery] = {}
        self.busy = 0
        self.retired = False
        self._queue = queue
        self._delivery_runs = delivery_runs
        self._backoff = backoff
        self._waiting: deque[_WaitingDelivery] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._beginning = False
        self._changed = asyncio.Event()
        self._context = contextvars.copy_context()
        self._task = asyncio.create_task(self._claim_forever())

    def update_spec(self, spec: HandlerSpec) -> None:
        """Take over what a reload has changed."""
        fewer, self.spec = spec.concurrency < self.spec.concurrency, spec
        self._note_change()
        if fewer:  # the pending claim asks for more deliveries than there will be slots
            self._task.cancel()
            self._task = asyncio.create_task(self._claim_forever())

    def receive(self, runs: Iterable[FirstRun]) -> None:
        """Run deliveries that need no claim, those that wait already first."""
        now = time.monotonic()
        self._waiting.extend([_WaitingDelivery(run.delivery, now, run) for run in runs])
        self._begin_waiting()

    def release_slot(self) -> None:
        """Note that a run has ended; its outcome may still be unwritten."""
        self.busy -= 1
        self._note_change()

    def return_waiting(self, since: float = float("inf")) -> None:
        """Give back what has not begun and has waited since then (monotonic) or longer."""
        late: list[_WaitingDelivery] = []
        while self._waiting and self._waiting[0].since <= since:
            late.append(self._waiting.popleft())
        if late:
            self._leave_memory(late)
            self._delivery_runs.return_waiting([item.delivery for item in late])

    async def stop_claiming(self) -> None:
        """Claim no more. The engine takes back what a pending claim would have returned."""
        self.retired = True
        if self._timer is not None:
            self._timer.cancel()
        self.return_waiting()
        await cancel_and_wait(self._task)
        self.return_waiting()  # what a claim returned in spite of its cancellation

    async def _claim_forever(self) -> None:
        # A library may drop the cancellation of a claim: `cancel_and_wait`.
        while not self.retired and asyncio.current_task() is self._task:
            self._changed.clear()
            used = self.busy + len(self._waiting)
            free = min(self.spec.concurrency - used, MAX_UNSETTLED - len(self.runs))
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
        now = time.monotonic()
        self._waiting.extend([_WaitingDelivery(delivery, now) for delivery in claimed])
        self._begin_waiting()

    def _note_change(self) -> None:
        """Let a claim, or what waits, take the slots that are free; once for all of this turn."""
        self._changed.set()
        if self._waiting and not self._beginning:
            self._beginning = True
            asyncio.get_running_loop().call_soon(self._begin_waiting)

    def _begin_waiting(self) -> None:
        self._beginning = False
        slots = self._delivery_runs.slots(self)
        free = min(slots - self.busy, MAX_UNSETTLED - len(self.runs), len(self._waiting))
        begun = [self._waiting.popleft() for _ in range(free)]
        self._leave_memory(begun)
        for item in begun:
            self.busy += 1
            run = self._context.run(self._delivery_runs.begin, item.delivery, self)
            self.runs[run] = item.delivery
            run.add_done_callback(self._finish_run)
        if self._waiting and self._timer is None:
            self._start_timer()

    def _leave_memory(self, waited: list[_WaitingDelivery]) -> None:
        if self._queue.memory is not None:
            runs = [item.first_run for item in waited if item.first_run is not None]
            self._queue.memory.leave(runs)

    def _start_timer(self) -> None:
        delay = max(0.0, self._waiting[0].since + MAX_WAIT - time.monotonic())
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._return_late, context=self._context)

    def _return_late(self) -> None:
        self._timer = None
        latest = time.monotonic() - MAX_WAIT
        if self._waiting and self._waiting[0].since <= latest and self._queue.memory is not None:
            self._queue.memory.fall_behind(self.spec.name)
        self.return_waiting(latest)
        if self._waiting:
            self._start_timer()

    def _finish_run(self, run: asyncio.Future[None]) -> None:
        del self.runs[run]
        self._note_change()
        if not run.cancelled() and (error := run.exception()) is not None:
            log.error("a delivery could not be settled", exc_info=error, extra=event("delivery.stuck"))
