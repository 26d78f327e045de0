"""Runs deliveries and settles what became of them.

A run whose event is complete at once needs no task of its own unless it fails. Slots are free when the
run has ended; the outcome is written meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.domain import failpoints
from gateway.domain.model import Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events.dispatch import DeliveryDispatcher, RunResult
from gateway.events.handler_consumer import EngineBackoff, HandlerConsumer
from gateway.events.protocols import Queue
from gateway.events.queue_returns import QueueReturns
from gateway.events.settlement import (
    POSTPONE_POLICY,
    USED_UP,
    Settlement,
    broken_run,
    retry_delay,
    settlement_of,
)
from gateway.telemetry import logs

log = logging.getLogger("gateway.runner")


class RunMetrics(Protocol):
    """Counts runs."""

    def record_run(self, handler: str, outcome: str, seconds: float) -> None:
        """Count a run that is settled as done, retry or dead."""


@dataclass(slots=True, eq=False)
class _Run:
    """One run: `ended` is done when it is settled, `context` has the fields of its log lines."""

    delivery: Delivery
    consumer: HandlerConsumer
    ended: asyncio.Future[None]
    context: contextvars.Context
    started: float


class Runs:
    """Runs the deliveries of all handlers. After `returns.stopping` no run is settled as failed."""

    def __init__(
        self,
        queue: Queue,
        dispatcher: DeliveryDispatcher,
        metrics: RunMetrics,
        returns: QueueReturns,
        backoff: EngineBackoff,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._returns = returns
        self._backoff = backoff
        self._postponed: dict[str | None, int] = {}

    def begin(self, delivery: Delivery, consumer: HandlerConsumer) -> asyncio.Future[None]:
        """Begin a run in a context of its own; what is returned is done when the run is settled.

        Cancelled, it cancels the handler.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        context = logs.context_with(
            upload_id=delivery.upload_id, event_id=delivery.event_id, attempt=delivery.attempt
        )
        run = _Run(delivery, consumer, ended, context, time.monotonic())
        if delivery.attempt > consumer.spec.retry.attempts:
            self._take_result(run, USED_UP)
            return ended
        failpoints.hit("mid handler")
        try:
            submitted = context.run(self._dispatcher.submit, delivery, partial(self._take_result, run))
        except Exception as error:
            self._take_result(run, context.run(broken_run, delivery.handler, error))
            return ended
        if submitted is None:
            return asyncio.get_running_loop().create_task(self._run(run), context=context)
        ended.add_done_callback(lambda future: submitted.cancel() if future.cancelled() else None)
        return ended

    def return_waiting(self, deliveries: Sequence[Delivery]) -> None:
        """Return deliveries to the queue that have not begun."""
        self._returns.requeue_soon(deliveries)

    def slots(self, consumer: HandlerConsumer) -> int:
        """Return how many runs of a handler may be under way."""
        return self._dispatcher.slots(consumer.spec)

    async def _run(self, run: _Run) -> None:
        """Run one delivery and settle it."""
        try:
            result = await self._dispatcher.run(run.delivery)
        except Exception as error:
            result = broken_run(run.delivery.handler, error)
        finally:
            run.consumer.release_slot()
        await self._conclude(run, result, time.monotonic() - run.started)

    def _take_result(self, run: _Run, result: RunResult) -> None:
        """Settle a run that was not awaited; a task is needed where it did not succeed."""
        run.consumer.release_slot()
        seconds = time.monotonic() - run.started
        if run.ended.done():
            return
        if result.status != "succeeded":
            self._in_task(run, self._conclude(run, result, seconds))
            return
        self._postponed.pop(run.delivery.holder, None)
        self._metrics.record_run(run.consumer.spec.name, "done", seconds)
        failpoints.hit("before settlement")
        try:
            ack = asyncio.ensure_future(self._queue.ack(run.delivery, seconds, result.result))
        except Exception as error:
            run.ended.set_exception(error)
            return
        settlement = Settlement("done", result=result.result)
        ack.add_done_callback(partial(self._take_ack, run, settlement, seconds))

    def _take_ack(
        self, run: _Run, settlement: Settlement, seconds: float, ack: asyncio.Future[None]
    ) -> None:
        error = ack.exception()
        if error is None:
            failpoints.hit("after settlement")
            if not run.ended.done():
                run.ended.set_result(None)
        elif not run.ended.done():
            self._in_task(run, self._settle(run.delivery, settlement, seconds))

    def _in_task(self, run: _Run, work: Coroutine[None, None, None]) -> None:
        """Let the run end with `work`, and `work` with the run."""
        task = asyncio.get_running_loop().create_task(work, context=run.context)
        task.add_done_callback(partial(_end, run.ended))
        run.ended.add_done_callback(lambda ended: task.cancel() if ended.cancelled() else None)

    async def _conclude(self, run: _Run, result: RunResult, seconds: float) -> None:
        """Settle a run that has ended."""
        delivery, consumer = run.delivery, run.consumer
        if result.status == "postponed":
            await self._postpone(delivery, result)
            return
        if result.status == "succeeded":
            self._postponed.pop(delivery.holder, None)
        stopping = self._returns.stopping
        abandoned = consumer.retired and not stopping
        settlement = settlement_of(delivery, consumer.spec.retry, result, abandoned=abandoned)
        if stopping and settlement.outcome != "done":
            await self._returns.requeue([delivery])
            return
        self._metrics.record_run(consumer.spec.name, settlement.outcome, seconds)
        await self._settle(delivery, settlement, seconds)

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
        await self._returns.requeue([delivery], delay)

    async def _settle(self, delivery: Delivery, settlement: Settlement, seconds: float) -> None:
        """Write the settlement down, waiting while the engine is unavailable."""
        (outcome, error, delay, result), handler = settlement, delivery.handler
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
                    await self._queue.ack(delivery, seconds, result)
                elif outcome == "retry":
                    await self._queue.retry(delivery, delay, error, seconds, result)
                else:
                    await self._queue.dead_letter(delivery, error, seconds, result)
            except EventEngineUnavailable as unavailable:
                await self._backoff.wait(unavailable)
            else:
                return


def _end(ended: asyncio.Future[None], task: asyncio.Task[None]) -> None:
    """Pass on how the task of a run has ended."""
    if ended.done():
        return
    if task.cancelled():
        ended.cancel()
    elif (error := task.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(None)
