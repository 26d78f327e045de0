"""Claims due deliveries, runs their handlers and settles what became of them.

One runner serves every engine that speaks `Queue`, in a gateway as in a worker. It lives on the server's
loop; handlers run elsewhere, behind `DeliveryDispatcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, Protocol

from gateway.domain import failpoints
from gateway.domain.model import Delivery, HandlerSpec, RetryPolicy
from gateway.errors import EventEngineUnavailable
from gateway.events.handler_consumer import EngineBackoff, HandlerConsumer
from gateway.events.protocols import DeliveryDispatcher, Queue, RunResult
from gateway.telemetry import logs

log = logging.getLogger("gateway.runner")

MAX_ERROR_LENGTH: Final = 8000
"""Characters of an error, traceback included, that the engine keeps."""

POSTPONE_POLICY: Final = RetryPolicy(backoff=1.0, max_backoff=30.0)
"""The delays of a postponed delivery. It has no last attempt."""


DELAYS_INTERVAL: Final = 60.0
"""Seconds between two looks for deliveries that wait too long: the clock was ahead when they failed."""


class RunMetrics(Protocol):
    """Counts runs."""

    def record_run(self, handler: str, outcome: str, seconds: float) -> None:
        """Count a run that is settled as done, retry or dead."""


class _Settlement(NamedTuple):
    """What is written of a run: `delay` seconds until a retry is due."""

    outcome: Literal["done", "retry", "dead"]
    error: str = ""
    delay: float = 0.0


_USED_UP: Final = RunResult("failed", "every attempt was used up; the last one ended with the process")


def retry_delay(policy: RetryPolicy, attempt: int) -> float:
    """Return the seconds to wait after the failed `attempt`: doubling, bounded, half of it random."""
    longest = min(policy.backoff * 2.0 ** min(attempt - 1, 60), policy.max_backoff)
    return longest * (0.5 + random.random() / 2)  # noqa: S311 (spreads load, guards nothing)


class Runner:
    """Delivers the events of one queue to the handlers of one process."""

    def __init__(self, queue: Queue, dispatcher: DeliveryDispatcher, metrics: RunMetrics) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._backoff = EngineBackoff()
        self._postponed: dict[str | None, int] = {}
        self._consumers: dict[str, HandlerConsumer] = {}
        self._retired: list[HandlerConsumer] = []
        self._periodic: list[asyncio.Task[None]] = []
        self._orphans: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, specs: Iterable[HandlerSpec]) -> None:
        """Begin to deliver to the handlers of `specs`."""
        await self.refresh(specs)
        self._periodic.append(asyncio.create_task(self._limit_delays()))
        if self._queue.lease is not None:
            self._periodic.append(asyncio.create_task(self._keep_leases(self._queue.lease / 3)))

    async def refresh(self, specs: Iterable[HandlerSpec]) -> None:
        """Follow a reload: new handlers get a consumer, those that are gone get no more deliveries."""
        loaded = {spec.name: spec for spec in specs}
        gone = [self._consumers.pop(name) for name in list(self._consumers) if name not in loaded]
        self._retired = [consumer for consumer in self._retired if consumer.runs] + gone
        await asyncio.gather(*(consumer.stop_claiming() for consumer in gone))
        if self._orphans is not None:
            self._orphans.cancel()
        handlers = list(loaded)
        if count := await self._dead_letter_some(handlers):
            # There may be a million more; nobody waits for that.
            self._orphans = asyncio.create_task(self._dead_letter_orphans(handlers, count))
        for name, spec in loaded.items():
            if name in self._consumers:
                self._consumers[name].update_spec(spec)
            else:
                self._consumers[name] = HandlerConsumer(self._queue, spec, self._run, self._backoff)

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for runs, requeue the unfinished ones.

        A run that fails meanwhile goes back to the queue too: what it needs may be stopping as well.
        """
        self._stopping = True
        if self._orphans is not None:
            self._orphans.cancel()
        consumers = [*self._consumers.values(), *self._retired]
        await asyncio.gather(*(consumer.stop_claiming() for consumer in consumers))
        runs = {run: delivery for consumer in consumers for run, delivery in consumer.runs.items()}
        if runs:
            await asyncio.wait(runs, timeout=grace)
        for task in self._periodic:
            task.cancel()
        unfinished = [delivery for run, delivery in runs.items() if not run.done()]
        for run in runs:
            run.cancel()
        if unfinished:
            await self._requeue(unfinished)

    async def _dead_letter_orphans(self, handlers: list[str], count: int) -> None:
        """Go on until none is left; `count` are dead already."""
        try:
            while more := await self._dead_letter_some(handlers):
                count += more
        finally:
            orphaned = "%d deliveries are dead: no plugin has their handler"
            log.warning(orphaned, count, extra=logs.event("delivery.orphaned", count=count))

    async def _dead_letter_some(self, handlers: list[str]) -> int:
        try:
            return await self._queue.dead_letter_orphans(handlers)
        except EventEngineUnavailable:
            return 0  # the next start or reload finds them

    async def _requeue(self, deliveries: list[Delivery], delay: float = 0.0) -> None:
        count = len(deliveries)
        returned = "%d unfinished deliveries go back to the queue"
        log.info(returned, count, extra=logs.event("delivery.returned", count=count, delay=delay))
        with contextlib.suppress(EventEngineUnavailable):
            await self._queue.requeue(deliveries, delay)

    async def _limit_delays(self) -> None:
        """Let no delivery wait longer than its handler's longest back-off, wherever the clock was."""
        while True:
            for consumer in list(self._consumers.values()):
                spec = consumer.spec
                longest = max(spec.retry.max_backoff, POSTPONE_POLICY.max_backoff)
                with contextlib.suppress(EventEngineUnavailable):
                    while await self._queue.limit_delays(spec.name, longest + 1):
                        pass
            await asyncio.sleep(DELAYS_INTERVAL)

    async def _keep_leases(self, interval: float) -> None:
        """Renew the leases of all that is not settled, every `interval` seconds."""
        while True:
            await asyncio.sleep(interval)
            consumers = [*self._consumers.values(), *self._retired]
            if claimed := [delivery for consumer in consumers for delivery in consumer.runs.values()]:
                try:
                    await self._queue.extend_leases(claimed)
                except EventEngineUnavailable:
                    continue
                except Exception:
                    failed = "the leases of running deliveries could not be renewed"
                    log.exception(failed, extra=logs.event("lease.failed"))

    # -- one run

    async def _run(self, delivery: Delivery, consumer: HandlerConsumer) -> None:
        """Run one claimed delivery and settle it."""
        with logs.bind(
            upload_id=delivery.upload_id, event_id=delivery.event_id, attempt=delivery.attempt
        ):
            started = time.monotonic()
            try:
                result = await self._dispatch(delivery, consumer.spec)
            finally:
                consumer.release_slot()
            duration = time.monotonic() - started
            if result.status == "postponed":
                await self._postpone(delivery, result)
                return
            settlement = self._settlement(delivery, consumer, result)
            if self._stopping and settlement.outcome != "done":
                await self._requeue([delivery])
                return
            self._metrics.record_run(consumer.spec.name, settlement.outcome, duration)
            await self._settle(delivery, settlement, duration)

    async def _dispatch(self, delivery: Delivery, spec: HandlerSpec) -> RunResult:
        if delivery.attempt > spec.retry.attempts:
            return _USED_UP
        failpoints.hit("mid handler")
        try:
            return await self._dispatcher.run(delivery)
        except Exception as error:
            # A defect of the gateway; unsettled, the delivery would count as running until a restart.
            name = spec.name
            log.exception(
                "the gateway failed to run %s", name, extra=logs.event("delivery.broken", handler=name)
            )
            return RunResult("failed", f"the gateway failed: {type(error).__name__}")

    def _settlement(
        self, delivery: Delivery, consumer: HandlerConsumer, result: RunResult
    ) -> _Settlement:
        policy = consumer.spec.retry
        if result.status == "succeeded":
            self._postponed.pop(delivery.holder, None)
            return _Settlement("done")
        error = _storable(result.error)
        abandoned = consumer.retired and not self._stopping
        if result.status == "gone" or delivery.attempt >= policy.attempts or abandoned:
            return _Settlement("dead", error)
        return _Settlement("retry", error, retry_delay(policy, delivery.attempt))

    async def _postpone(self, delivery: Delivery, result: RunResult) -> None:
        """Requeue a delivery unharmed, for later: a node that restarts must not use up attempts."""
        count = self._postponed[delivery.holder] = self._postponed.get(delivery.holder, 0) + 1
        delay = retry_delay(POSTPONE_POLICY, count)
        handler = delivery.handler
        log.warning(
            "%s is postponed for %.1f s: %s",
            handler,
            delay,
            result.error,
            extra=logs.event("delivery.postponed", handler=handler, delay=delay),
        )
        await self._requeue([delivery], delay)

    async def _settle(self, delivery: Delivery, settlement: _Settlement, duration: float) -> None:
        """Write the settlement down, waiting while the engine is unavailable."""
        (outcome, error, delay), handler = settlement, delivery.handler
        if outcome == "retry":
            log.warning(
                "%s runs again in %.1f s",
                handler,
                delay,
                extra=logs.event("delivery.failed", handler=handler, delay=delay),
            )
        elif outcome == "dead":
            dead = "%s gave up on a delivery, which is dead now"
            log.error(dead, handler, extra=logs.event("delivery.dead", handler=handler))
        while True:
            try:
                if outcome == "done":
                    await self._queue.ack(delivery, duration)
                elif outcome == "retry":
                    await self._queue.retry(delivery, delay, error, duration)
                else:
                    await self._queue.dead_letter(delivery, error, duration)
            except EventEngineUnavailable as unavailable:
                await self._backoff.wait(unavailable)
            else:
                return


def _storable(text: str) -> str:
    """Return what the engine keeps of an error: bounded, and text that a database accepts."""
    return text[:MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
