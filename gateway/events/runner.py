"""Events room, runner: claims due deliveries, runs their handlers, settles the outcome.

One feeder task per handler, with as many runs at once as the handler has slots: it claims only
what it can start, sleeps until it is woken or something falls due, and never polls. Lives on
the server's loop; the handlers themselves run in a script lane. May import hooks, model, errors
and its own room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from gateway import logs
from gateway.events.ledger import Ledger
from gateway.events.queue import Outcome, Queue
from gateway.hooks import HandlerFailed, HandlerGone
from gateway.model import Delivery, HandlerSpec, RetryPolicy
from gateway.points import reach

log = logging.getLogger("gateway.runner")

Deliver = Callable[[Delivery, dict[str, Any]], Awaitable[None]]
Complete = Callable[[Delivery], dict[str, Any]]
Observe = Callable[[str, Outcome, float], None]

LONGEST_SLEEP: Final = 60.0
"""Seconds after which a feeder looks again in any case: a wall clock may have been set."""

JOURNAL_PAUSE: Final = 1.0
"""Seconds between attempts to reach a journal that cannot be written."""

PRUNE_EVERY: Final = 600.0

MAX_ERROR: Final = 8000
"""Characters of an error, traceback included, that the journal keeps."""


def pause(policy: RetryPolicy, attempt: int) -> float:
    """Seconds to wait after failed run number `attempt`: doubling, bounded, half of it random."""
    longest = min(policy.backoff * 2.0 ** min(attempt - 1, 60), policy.max_backoff)
    return longest * (0.5 + random.random() / 2)  # noqa: S311 (spreads load, guards nothing)


class Runner:
    """Delivers events. `complete` turns a delivery into the event that a handler gets."""

    def __init__(
        self,
        queue: Queue,
        ledger: Ledger,
        *,
        deliver: Deliver,
        complete: Complete,
        observe: Observe,
        retention: float,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._deliver = deliver
        self._complete = complete
        self._observe = observe
        self._retention = retention
        self._feeders: dict[str, _Feeder] = {}
        self._retired: list[_Feeder] = []
        self._janitor: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, specs: Iterable[HandlerSpec]) -> None:
        """Begin to deliver to the handlers of `specs`."""
        await self.refresh(specs)
        self._janitor = asyncio.create_task(self._prune())

    async def refresh(self, specs: Iterable[HandlerSpec]) -> None:
        """Follow a reload: new handlers get a feeder, deliveries of handlers that are gone die."""
        wanted = {spec.name: spec for spec in specs}
        gone = [self._feeders.pop(name) for name in list(self._feeders) if name not in wanted]
        self._retired = [feeder for feeder in self._retired if feeder.runs] + gone
        await asyncio.gather(*(feeder.stop_claiming() for feeder in gone))
        with contextlib.suppress(sqlite3.Error):
            buried = await asyncio.wrap_future(self._queue.bury_orphans(list(wanted)))
            if buried:
                log.warning("%d deliveries wait dead: no plugin has their handler", buried)
        for name, spec in wanted.items():
            if name in self._feeders:
                self._feeders[name].spec = spec
                self._feeders[name].wake()
            else:
                self._feeders[name] = _Feeder(self, spec)

    def wake(self) -> None:
        """Look for new deliveries now. Call on the server's loop."""
        for feeder in self._feeders.values():
            feeder.wake()

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for runs, hand the unfinished ones back.

        A run that fails meanwhile is handed back too: what it needs may be stopping as well.
        """
        self._stopping = True
        if self._janitor is not None:
            self._janitor.cancel()
        feeders = [*self._feeders.values(), *self._retired]
        await asyncio.gather(*(feeder.stop_claiming() for feeder in feeders))
        runs = [run for feeder in feeders for run in feeder.runs]
        if runs:
            await asyncio.wait(runs, timeout=grace)
        unfinished = [d for feeder in feeders for run, d in feeder.runs.items() if not run.done()]
        for run in runs:
            run.cancel()
        if unfinished:
            await self._hand_back(unfinished)

    async def _hand_back(self, deliveries: list[Delivery]) -> None:
        log.info("%d unfinished deliveries are handed back", len(deliveries))
        with contextlib.suppress(sqlite3.Error):
            await asyncio.wrap_future(self._queue.hand_back(deliveries))

    async def _prune(self) -> None:
        while True:
            with contextlib.suppress(sqlite3.Error):
                before = time.time() - self._retention
                while await asyncio.wrap_future(self._ledger.prune(before)):
                    pass
            await asyncio.sleep(PRUNE_EVERY)

    # -- one run

    async def run(self, delivery: Delivery, spec: HandlerSpec) -> None:
        """Run one claimed delivery and settle it."""
        with logs.bind(
            upload_id=delivery.upload_id, event_id=delivery.event_id, attempt=delivery.attempt
        ):
            started = time.monotonic()
            outcome, error, delay = await self._attempt(delivery, spec)
            duration = time.monotonic() - started
            if self._stopping and outcome != "done":
                await self._hand_back([delivery])
                return
            self._observe(spec.name, outcome, duration)
            if outcome == "retry":
                log.warning("%s runs again in %.1f s", spec.name, delay)
            elif outcome == "dead":
                log.error("%s is given up; the delivery waits dead", spec.name)
            await self._settle(delivery, outcome, duration, error, delay)

    async def _attempt(self, delivery: Delivery, spec: HandlerSpec) -> tuple[Outcome, str | None, float]:
        if delivery.attempt > spec.retry.attempts:
            return "dead", "every attempt was used up; the last one ended with the process", 0.0
        reach("mid handler")
        try:
            await self._deliver(delivery, self._complete(delivery))
        except HandlerGone as fault:
            return "dead", str(fault), 0.0
        except HandlerFailed as fault:
            error = _kept("\n".join(filter(None, (str(fault), fault.traceback))))
        except Exception as fault:
            # Our own mistake; unsettled, the delivery would count as running until a new start.
            log.exception("a delivery to %s broke", spec.name)
            error = f"the gateway failed: {type(fault).__name__}"
        else:
            return "done", None, 0.0
        if delivery.attempt >= spec.retry.attempts or spec.name not in self._feeders:
            return "dead", error, 0.0
        return "retry", error, pause(spec.retry, delivery.attempt)

    async def _settle(
        self, delivery: Delivery, outcome: Outcome, duration: float, error: str | None, delay: float
    ) -> None:
        """Write the outcome down, waiting for a journal that cannot be written now."""
        while True:
            try:
                future = self._queue.settle(delivery, outcome, duration, error, delay)
                await asyncio.wrap_future(future)
            except sqlite3.Error as fault:
                log.error("the outcome cannot be journalled, trying again: %s", fault)
                await asyncio.sleep(JOURNAL_PAUSE)
            else:
                return


def _kept(text: str) -> str:
    """Return what the journal keeps of an error: bounded, and text that a database can hold."""
    return text[:MAX_ERROR].encode("utf-8", "replace").decode()


class _Feeder:
    """Keeps one handler's slots busy."""

    def __init__(self, runner: Runner, spec: HandlerSpec) -> None:
        self.spec = spec
        self.runs: dict[asyncio.Task[None], Delivery] = {}
        self._runner = runner
        self._woken = asyncio.Event()
        self._claiming = True
        self._task = asyncio.create_task(self._feed())

    def wake(self) -> None:
        self._woken.set()

    async def stop_claiming(self) -> None:
        """End the feeding, but not in the middle of a claim: what is claimed must be in `runs`."""
        self._claiming = False
        self._woken.set()
        await self._task

    async def _feed(self) -> None:
        while self._claiming:
            self._woken.clear()
            free = self.spec.concurrency - len(self.runs)
            sleep = LONGEST_SLEEP
            if free > 0:
                try:
                    sleep = await self._claim(free)
                except sqlite3.Error as fault:
                    log.error("deliveries cannot be claimed, trying again: %s", fault)
                    sleep = JOURNAL_PAUSE
            # Woken during the claim, by new work or by the end, it does not wait.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(sleep):
                    await self._woken.wait()

    async def _claim(self, free: int) -> float:
        """Start up to `free` runs; return how long there will be nothing more to start."""
        claim = await asyncio.wrap_future(self._runner._queue.claim(self.spec.name, free))
        for delivery in claim.deliveries:
            run = asyncio.create_task(self._runner.run(delivery, self.spec))
            self.runs[run] = delivery
            run.add_done_callback(self._ended)
        if claim.next_due is None:
            return LONGEST_SLEEP
        return min(max(claim.next_due - time.time(), 0.0), LONGEST_SLEEP)

    def _ended(self, run: asyncio.Task[None]) -> None:
        del self.runs[run]
        if not run.cancelled() and (fault := run.exception()) is not None:
            log.error("a delivery could not be settled", exc_info=fault)
        self._woken.set()
