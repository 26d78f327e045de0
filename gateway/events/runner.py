"""Claims due deliveries, runs their handlers, settles the outcome.

Exists once, above any engine that speaks the protocol `Queue`, in a server as in a worker. It lives
on the server's loop; the handlers run elsewhere (`deliver`, which keeps their time-outs). May
import hooks, model, errors, points, logs and its own room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Literal

from gateway.domain import failpoints
from gateway.domain.model import Delivery, HandlerSpec, RetryPolicy
from gateway.errors import EventEngineUnavailable, HandlerFailed, HandlerGone, Postponed
from gateway.events.handler_consumer import EngineBackoff, HandlerConsumer
from gateway.events.protocols import Queue
from gateway.telemetry import logs

log = logging.getLogger("gateway.runner")

Outcome = Literal["done", "retry", "dead"]
Deliver = Callable[[Delivery, dict[str, Any]], Awaitable[None]]
Complete = Callable[[Delivery], dict[str, Any]]
Observe = Callable[[str, Outcome, float], None]
Bury = Callable[[Sequence[str]], Awaitable[int]]

MAX_ERROR: Final = 8000
"""Characters of an error, traceback included, that the engine keeps."""

POSTPONED: Final = RetryPolicy(backoff=1.0, max_backoff=30.0)
"""The pauses before what is postponed is tried again. There is no last one."""


def pause(policy: RetryPolicy, attempt: int) -> float:
    """Seconds to wait after failed run number `attempt`: doubling, bounded, half of it random."""
    longest = min(policy.backoff * 2.0 ** min(attempt - 1, 60), policy.max_backoff)
    return longest * (0.5 + random.random() / 2)  # noqa: S311 (spreads load, guards nothing)


class Runner:
    """Delivers events. `complete` turns a delivery into the event that a handler gets.

    `deliver` ends within the handler's time-out and raises `HandlerFailed`, `HandlerGone` or
    `Postponed`. `orphans`, where there is one, is told the names of all handlers and makes what waits
    for others dead. `observe` counts each run: handler, outcome, seconds.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        deliver: Deliver,
        complete: Complete,
        observe: Observe,
        orphans: Bury | None = None,
    ) -> None:
        self._queue = queue
        self._deliver = deliver
        self._complete = complete
        self._observe = observe
        self._orphans = orphans
        self._away = EngineBackoff()
        self._holders: dict[str | None, int] = {}
        self._feeders: dict[str, HandlerConsumer] = {}
        self._retired: list[HandlerConsumer] = []
        self._heart: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, specs: Iterable[HandlerSpec]) -> None:
        """Begin to deliver to the handlers of `specs`."""
        await self.refresh(specs)
        if self._queue.lease is not None:
            self._heart = asyncio.create_task(self._beat(self._queue.lease / 3))

    async def refresh(self, specs: Iterable[HandlerSpec]) -> None:
        """Follow a reload: new handlers get a feeder, those that are gone get no more deliveries."""
        wanted = {spec.name: spec for spec in specs}
        gone = [self._feeders.pop(name) for name in list(self._feeders) if name not in wanted]
        self._retired = [feeder for feeder in self._retired if feeder.runs] + gone
        await asyncio.gather(*(feeder.stop_claiming() for feeder in gone))
        await self._bury(list(wanted))
        for name, spec in wanted.items():
            if name in self._feeders:
                self._feeders[name].follow(spec)
            else:
                self._feeders[name] = HandlerConsumer(self._queue, spec, self._run, self._away)

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for runs, hand the unfinished ones back.

        A run that fails meanwhile is handed back too: what it needs may be stopping as well.
        """
        self._stopping = True
        feeders = [*self._feeders.values(), *self._retired]
        await asyncio.gather(*(feeder.stop_claiming() for feeder in feeders))
        runs = {run: delivery for feeder in feeders for run, delivery in feeder.runs.items()}
        if runs:
            await asyncio.wait(runs, timeout=grace)
        if self._heart is not None:
            self._heart.cancel()
        unfinished = [delivery for run, delivery in runs.items() if not run.done()]
        for run in runs:
            run.cancel()
        if unfinished:
            await self._hand_back(unfinished)

    async def _bury(self, handlers: list[str]) -> None:
        if self._orphans is None:
            return
        with contextlib.suppress(EventEngineUnavailable):
            if buried := await self._orphans(handlers):
                log.warning("%d deliveries wait dead: no plugin has their handler", buried)

    async def _hand_back(self, deliveries: list[Delivery], delay: float = 0.0) -> None:
        log.info("%d unfinished deliveries are handed back", len(deliveries))
        with contextlib.suppress(EventEngineUnavailable):
            await self._queue.hand_back(deliveries, delay)

    async def _beat(self, seconds: float) -> None:
        """Keep the leases of all that is not settled."""
        while True:
            await asyncio.sleep(seconds)
            feeders = [*self._feeders.values(), *self._retired]
            if claimed := [delivery for feeder in feeders for delivery in feeder.runs.values()]:
                try:
                    await self._queue.touch(claimed)
                except EventEngineUnavailable:
                    continue
                except Exception:
                    log.exception("the leases could not be kept")

    # -- one run

    async def _run(self, delivery: Delivery, feeder: HandlerConsumer) -> None:
        """Run one claimed delivery and settle it."""
        with logs.bind(
            upload_id=delivery.upload_id, event_id=delivery.event_id, attempt=delivery.attempt
        ):
            started = time.monotonic()
            try:
                outcome, error, delay = await self._attempt(delivery, feeder)
            except Postponed as fault:
                await self._postpone(delivery, feeder.spec, fault)
                return
            finally:
                feeder.slot_freed()
            duration = time.monotonic() - started
            if self._stopping and outcome != "done":
                await self._hand_back([delivery])
                return
            self._observe(feeder.spec.name, outcome, duration)
            await self._settle(delivery, outcome, duration, error or "", delay)

    async def _attempt(
        self, delivery: Delivery, feeder: HandlerConsumer
    ) -> tuple[Outcome, str | None, float]:
        spec = feeder.spec
        if delivery.attempt > spec.retry.attempts:
            return "dead", "every attempt was used up; the last one ended with the process", 0.0
        failpoints.hit("mid handler")
        try:
            await self._deliver(delivery, self._complete(delivery))
        except HandlerGone as fault:
            return "dead", str(fault), 0.0
        except HandlerFailed as fault:
            error = _kept("\n".join(filter(None, (str(fault), fault.traceback))))
        except Postponed:
            raise
        except Exception as fault:
            # Our own mistake; unsettled, the delivery would count as running until a new start.
            log.exception("a delivery to %s broke", spec.name)
            error = f"the gateway failed: {type(fault).__name__}"
        else:
            self._holders.pop(delivery.holder, None)
            return "done", None, 0.0
        if delivery.attempt >= spec.retry.attempts or (feeder.retired and not self._stopping):
            return "dead", error, 0.0
        return "retry", error, pause(spec.retry, delivery.attempt)

    async def _postpone(self, delivery: Delivery, spec: HandlerSpec, fault: Postponed) -> None:
        """Give it back for a while, unharmed: a node that restarts must not use up attempts."""
        visits = self._holders[delivery.holder] = self._holders.get(delivery.holder, 0) + 1
        delay = pause(POSTPONED, visits)
        log.warning("%s is tried again in %.1f s: %s", spec.name, delay, fault)
        await self._hand_back([delivery], delay)

    async def _settle(
        self, delivery: Delivery, outcome: Outcome, duration: float, error: str, delay: float
    ) -> None:
        """Write the outcome down, waiting for an engine that is away."""
        if outcome == "retry":
            log.warning("%s runs again in %.1f s", delivery.handler, delay)
        elif outcome == "dead":
            log.error("%s is given up; the delivery waits dead", delivery.handler)
        while True:
            try:
                if outcome == "done":
                    await self._queue.ack(delivery, duration)
                elif outcome == "retry":
                    await self._queue.retry(delivery, delay, error, duration)
                else:
                    await self._queue.dead(delivery, error, duration)
            except EventEngineUnavailable as fault:
                await self._away.rest(fault)
            else:
                return


def _kept(text: str) -> str:
    """Return what the engine keeps of an error: bounded, and text that a database can hold."""
    return text[:MAX_ERROR].encode("utf-8", "replace").decode()
