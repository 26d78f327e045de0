"""Delivers the events of one queue to the handlers of one process.

One runner serves every engine that speaks `Queue`, in a gateway as in a worker. It lives on the server's
loop; handlers run elsewhere, behind `DeliveryDispatcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.domain import failpoints
from gateway.domain.model import Delivery, HandlerSpec
from gateway.errors import EventEngineUnavailable
from gateway.events.dispatch import DeliveryDispatcher
from gateway.events.handler_consumer import EngineBackoff, HandlerConsumer
from gateway.events.memory_queue import FirstRun
from gateway.events.protocols import Queue
from gateway.events.queue_returns import QueueReturns
from gateway.events.runs import RunMetrics, Runs
from gateway.events.settlement import POSTPONE_POLICY
from gateway.telemetry import logs

log = logging.getLogger("gateway.runner")

DELAYS_INTERVAL: Final = 60.0
"""Seconds between two looks for deliveries that wait too long: the clock was ahead when they failed."""


class Runner:
    """Delivers the events of one queue to the handlers of one process."""

    def __init__(self, queue: Queue, dispatcher: DeliveryDispatcher, metrics: RunMetrics) -> None:
        self._queue = queue
        self._backoff = EngineBackoff()
        self._loaded: frozenset[str] = frozenset()
        self._consumers: dict[str, HandlerConsumer] = {}
        self._retired: list[HandlerConsumer] = []
        self._periodic: list[asyncio.Task[None]] = []
        self._orphans: asyncio.Task[None] | None = None
        self._returns = QueueReturns(queue, self._backoff)
        self._runs = Runs(queue, dispatcher, metrics, self._returns, self._backoff)

    async def start(self, specs: Iterable[HandlerSpec]) -> None:
        """Begin to deliver to the handlers of `specs`."""
        if self._queue.memory is not None:
            self._queue.memory.attach(self)
        await self.refresh(specs)
        self._periodic.append(asyncio.create_task(self._limit_delays()))
        if self._queue.lease is not None:
            self._periodic.append(asyncio.create_task(self._keep_leases(self._queue.lease / 3)))

    async def refresh(self, specs: Iterable[HandlerSpec]) -> None:
        """Follow a reload: new handlers get a consumer, those that are gone get no more deliveries."""
        loaded = {spec.name: spec for spec in specs}
        self._loaded = frozenset(loaded)  # new ones get their consumer later
        if self._queue.memory is not None:
            # With one attempt, a crash would make dead what had not begun.
            self._queue.memory.accept([name for name, s in loaded.items() if s.retry.attempts > 1])
        gone = [self._consumers.pop(name) for name in list(self._consumers) if name not in loaded]
        self._retired = [consumer for consumer in self._retired if consumer.runs] + gone
        await asyncio.gather(*(consumer.stop_claiming() for consumer in gone))
        await self._returns.wait()
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
                self._consumers[name] = HandlerConsumer(self._queue, spec, self._runs, self._backoff)

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for runs, requeue the unfinished ones.

        A run that fails meanwhile goes back to the queue too: what it needs may be stopping as well.
        """
        self._returns.stopping = True
        if self._queue.memory is not None:
            self._queue.memory.detach()
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
            await self._returns.requeue(unfinished)
        await self._returns.wait()

    def receive(self, runs: Sequence[FirstRun]) -> None:
        """See `FirstRunReceiver`."""
        failpoints.hit("after hand-over")
        memory, undeliverable = self._queue.memory, []
        by_handler: dict[str, list[FirstRun]] = {}
        for run in runs:
            by_handler.setdefault(run.handler, []).append(run)
        for handler, own in by_handler.items():
            consumer = self._consumers.get(handler)
            if consumer is None or memory is None or memory.is_paused(handler):
                undeliverable += own
            else:
                consumer.receive(own)
        if undeliverable and memory is not None:
            memory.leave(undeliverable)
            self._returns.run(self._return_undeliverable([run.delivery for run in undeliverable]))

    def give_back(self, handler: str) -> None:
        """See `FirstRunReceiver`."""
        if (consumer := self._consumers.get(handler)) is not None:
            consumer.return_waiting()

    async def _return_undeliverable(self, deliveries: Sequence[Delivery]) -> None:
        """Return deliveries whose handler is paused; those whose handler was removed become dead."""
        await self._returns.requeue(deliveries)
        if any(delivery.handler not in self._loaded for delivery in deliveries):
            await self._dead_letter_some(list(self._loaded))

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
