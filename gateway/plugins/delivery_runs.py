"""Runs handlers of journalled events, and knows which of them run and how far they are."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gateway.domain.held import Decision, HandlerRefusal
from gateway.domain.model import RECEIVED, Delivery
from gateway.errors import HandlerFailed, Postponed, Refusal
from gateway.plugins import Handler
from gateway.plugins.handler_runs import HandlerRun, log
from gateway.plugins.handler_spans import begin_delivery, cancel_span, end_span, run_inside
from gateway.plugins.scripting.calls import ScriptCall
from gateway.plugins.scripting.decision import Handle, InvalidResult, read_received
from gateway.plugins.scripting.executor import ExecutorLost, ScriptExecutor
from gateway.plugins.scripting.live_work import LiveWork, wait_for_live_work
from gateway.plugins.scripting.values import Event
from gateway.plugins.webhooks.sending import WebhookFailed
from gateway.telemetry import logs

MAX_BURST: Final = 64
"""Runs of a handler that never awaits which may cross to its thread together: they cannot overlap."""

BURST_TIME: Final = 0.02
"""Seconds that such runs may take together: all other scripts of that thread wait meanwhile."""


class DeliveryOutcome(NamedTuple):
    """How a run of a delivery ended; `error` is None if it succeeded, else see `Hooks.submit_delivery`.

    `result` is what the handler left for the client, also where it failed. `decision` is that of a
    handler of OnFileReceived that did not fail.
    """

    error: Exception | None = None
    result: dict[str, Any] | None = None
    decision: Decision | None = None


Done = Callable[[DeliveryOutcome], None]


class DeliveryRuns:
    """Runs deliveries in `executor`. `mask` hides secrets in log lines and stored messages."""

    def __init__(self, executor: ScriptExecutor, mask: Callable[[str], str]) -> None:
        self.executor = executor
        self.mask = mask
        self.running: dict[tuple[str, str], Handle] = {}
        """The handles of those that run, by event and handler."""
        self.waits: set[asyncio.Task[None]] = set()
        """Waits for what failed runs have left running."""
        self._seconds: dict[str, float] = {}

    def submit(
        self, handler: Handler, delivery: Delivery, event: dict[str, Any], done: Done
    ) -> DeliveryRun:
        """Run a handler on a complete event, then call `done` as `Hooks.submit_delivery` says."""
        run = DeliveryRun(self, handler, delivery, done)
        # What a script changes must not change the body, with which it is compared.
        run.start(Event(event).copy() if handler.event == RECEIVED else Event(event))
        return run

    def slots(self, handler: Handler) -> int:
        """Return how many runs of a handler may be under way: more than its `concurrency` where they
        never overlap and are short."""
        if handler.suspends or handler.name not in self._seconds:
            return handler.concurrency
        burst = BURST_TIME / max(self._seconds[handler.name], BURST_TIME / MAX_BURST)
        return max(handler.concurrency, int(burst))

    def note_seconds(self, handler: str, seconds: float) -> None:
        """Take a run that never awaited into the mean of the last ones."""
        mean = self._seconds.get(handler, seconds)
        self._seconds[handler] = mean + (seconds - mean) / 8

    def progress(self, event_id: str, handler: str) -> dict[str, float] | None:
        """Return the latest `done` and `total` of a running delivery, None if it reported none."""
        handle = self.running.get((event_id, handler))
        if handle is None or handle.latest_progress is None:
            return None
        done, total = handle.latest_progress
        return {"done": done, "total": total}


class DeliveryRun:
    """One run of a handler of a journalled event."""

    __slots__ = (
        "_call",
        "_context",
        "_decision",
        "_delivery",
        "_done",
        "_event",
        "_handle",
        "_handler",
        "_key",
        "_live",
        "_runs",
        "_span",
        "_started",
        "_wait",
    )

    def __init__(self, runs: DeliveryRuns, handler: Handler, delivery: Delivery, done: Done) -> None:
        self._runs = runs
        self._handler = handler
        self._delivery = delivery
        self._event: Event | None = None
        self._decision: Decision | None = None
        self._key = (delivery.event_id, handler.name)
        self._done: Done | None = done
        self._handle = Handle()
        self._handle.created = delivery.created or None
        self._live: LiveWork | None = set() if handler.suspends else None
        self._span = span = begin_delivery(handler, delivery)
        self._context = run_inside(
            span,
            logs.context_with(
                upload_id=delivery.upload_id, event_id=delivery.event_id, **span.log_fields
            ),
        )
        self._started = time.monotonic()
        self._call: ScriptCall | None = None
        self._wait: asyncio.Task[None] | None = None

    def start(self, event: Event) -> None:
        """Run the handler; without an executor the result is given before this returns."""
        self._runs.running[self._key] = self._handle
        self._event = event
        handler = self._handler
        try:
            self._call = self._runs.executor.submit(
                functools.partial(handler.function, event, self._handle),
                handler.timeout,
                self._take_result,
                context=self._context.copy(),
                suspends=handler.suspends,
                live=self._live,
            )
        except (ExecutorLost, Refusal) as error:
            self._take_result(None, error)

    def cancel(self) -> None:
        """Cancel the handler or the wait for what it left, and do not call `done`."""
        self._done = None
        self._forget()
        if self._call is not None:
            self._call.cancel()
        if self._wait is not None:
            self._wait.cancel()
        else:
            cancel_span(self._span)

    def _forget(self) -> None:
        if self._runs.running.get(self._key) is self._handle:
            del self._runs.running[self._key]

    def _take_result(self, _: object, error: Exception | None) -> None:
        self._forget()
        call = self._call
        if call is not None and call.begun and not self._handler.suspends:
            seconds = call.seconds or time.monotonic() - call.begun  # it hangs
            self._runs.note_seconds(self._handler.name, seconds)
        if self._handler.event == RECEIVED:
            self._decide(error)
        succeeded = self._decision is not None or (
            error is None and self._handle.invalid is None and self._handle.refusal is None
        )
        if succeeded and not self._span.recorded and not log.isEnabledFor(logging.INFO):
            self._finish(None)
            return
        milliseconds = (time.monotonic() - self._started) * 1000
        run = HandlerRun(self._handler, self._handle, error, milliseconds, self._runs.mask)
        try:
            failure = self._context.run(self._take_outcome, run)
        except Exception as raised:
            failure = raised
        self._end_span(run, failure)
        if failure is not None and self._live:
            self._wait_until_ended(failure, self._live)
        else:
            self._finish(failure)

    def _end_span(self, run: HandlerRun, failure: Exception | None) -> None:
        if isinstance(failure, Postponed):
            outcome = "postponed"
        elif failure is not None:
            outcome = "failed"
        else:
            outcome = "done" if run.handle.refusal is None else "refused"
        end_span(self._span, run, outcome)

    def _take_outcome(self, run: HandlerRun) -> Exception | None:
        """Log the outcome of a run; return why it has to run again, None if it has succeeded."""
        if self._decision is not None and self._decision.refusal is not None:
            run.log_outcome(f"refused {self._decision.refusal.status}")
            return None
        message = run.failure_message()
        run.log_outcome(message or "done")
        if isinstance(run.error, Postponed):
            return run.error
        failure: Exception
        lost = isinstance(run.error, ExecutorLost)
        if lost and self._runs.executor.lost:
            failure = Postponed("no script executor is left to run it: restart this process")
        elif lost and (self._call is None or not self._call.begun):
            failure = Postponed(f"it had not begun: {run.error}")
        elif message is None:
            return None
        else:
            failure = _failed(run, message)
        failure.__cause__ = run.error
        return failure

    def _wait_until_ended(self, failure: Exception, live: LiveWork) -> None:
        wait = self._wait_for(failure, live)
        self._wait = asyncio.get_running_loop().create_task(wait, context=self._context)
        self._runs.waits.add(self._wait)
        self._wait.add_done_callback(self._runs.waits.discard)

    async def _wait_for(self, failure: Exception, live: LiveWork) -> None:
        """Wait for what a failed run has left running: its next run would overlap it.

        At most as long as the run itself could take: a thread that hangs must not stop the handler for
        ever.
        """
        handler = self._handler
        if not await wait_for_live_work(live, handler.timeout):
            log.warning(
                "%s still runs %g s after it failed: its next run may overlap it",
                handler.name,
                handler.timeout,
                extra=logs.event("delivery.overlapping", handler=handler.name),
            )
        self._finish(failure)

    def _decide(self, error: Exception | None) -> None:
        """Read what a handler of OnFileReceived decided; a refusal counts, whatever came after it."""
        handle, event = self._handle, self._event
        if (refusal := handle.refusal) is not None:
            refused = HandlerRefusal(refusal.code, refusal.body, refusal.content_type)
            self._decision = Decision(refused, result=handle.latest_result)
            return
        if error is not None or handle.invalid is not None or event is None:
            return
        try:
            changes = read_received(event)
        except InvalidResult as invalid:
            handle.invalid = invalid
            return
        body = self._delivery.body
        self._decision = Decision(
            path=None if changes.path == body.get("path") else changes.path,
            on_conflict=None if changes.on_conflict == body.get("on_conflict") else changes.on_conflict,
            metadata=None if changes.metadata == body.get("metadata") else changes.metadata,
            result=handle.latest_result,
        )

    def _finish(self, error: Exception | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(DeliveryOutcome(error, self._handle.latest_result, self._decision))


def _failed(run: HandlerRun, message: str) -> HandlerFailed:
    error, traceback = run.error, run.traceback()
    if isinstance(error, WebhookFailed):
        return HandlerFailed(message, traceback, retry_after=error.retry_after, final=error.final)
    return HandlerFailed(message, traceback)
