"""The handlers that decide about one upload or one download, one after the other, without a task.

Each gets the event as the last one left it. They fail closed: a handler that decides nothing valid ends
the chain with a refusal.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from gateway.domain.model import RECEIVED
from gateway.errors import Refusal, Terminated
from gateway.plugins import Handler
from gateway.plugins.handler_runs import HandlerRun, log
from gateway.plugins.handler_spans import begin_decision, cancel_span, end_span, run_inside
from gateway.plugins.scripting.calls import ScriptCall
from gateway.plugins.scripting.decision import Handle, InvalidResult
from gateway.plugins.scripting.executor import ExecutorLost, ScriptExecutor
from gateway.plugins.scripting.values import Event
from gateway.telemetry.tracing import NO_SPAN

T = TypeVar("T")


class AdmissionChain(Generic[T]):
    """One run of all handlers of an event. All methods belong to the server's loop.

    `read` takes the changes out of an event after its handler and raises `InvalidResult`; `mask` hides
    secrets in log lines. `results` are what the handlers left for the client, by their names. Those of
    `undecided` have failed, and are to decide later.
    """

    __slots__ = (
        "_call",
        "_changes",
        "_context",
        "_done",
        "_event",
        "_executor",
        "_handle",
        "_handlers",
        "_mask",
        "_next",
        "_own_event",
        "_read",
        "_span",
        "_started",
        "results",
        "undecided",
    )

    def __init__(
        self,
        executor: ScriptExecutor,
        handlers: Sequence[Handler],
        event: Event,
        read: Callable[[Event], T],
        mask: Callable[[str], str],
    ) -> None:
        self._executor = executor
        self._handlers = handlers
        self._event = event
        self._read = read
        self._mask = mask
        self._next = 0
        self.results: dict[str, dict[str, Any]] = {}
        self.undecided: list[str] = []
        self._changes: T | None = None
        self._done: Callable[[T | None, Exception | None], None] | None = None
        self._call: ScriptCall | None = None
        # Of the handler that runs:
        self._handle = Handle()
        self._own_event = event
        self._span = NO_SPAN
        self._started = 0.0

    def start(
        self, done: Callable[[T | None, Exception | None], None], context: contextvars.Context
    ) -> None:
        """Run the handlers in copies of `context` and call `done(changes, error)` once, in none.

        The changes are those of the last handler that did not fail, None if all of them did and may.
        The error is `Terminated` for the first `terminate(code >= 400)`, `Refusal("hook_failed")` for
        a handler that failed, `Refusal("overloaded")`. Without an executor `done` is called before
        this returns.
        """
        self._done = done
        self._context = context
        try:
            if self._start_next():
                return
        except Exception as error:
            self._finish(None, error)
        else:
            self._finish(self._changes, None)

    def cancel(self) -> None:
        """Cancel the handler that runs, start no other one, and do not call `done`."""
        self._done = None
        if self._call is not None:
            self._call.cancel()
        cancel_span(self._span)

    def _start_next(self) -> bool:
        """Start the next handler that can be started; return False if none is left."""
        while self._next < len(self._handlers):
            handler = self._handlers[self._next]
            # No copy for the first handler if its failure ends the chain: no other one sees it.
            sole_reader = self._next == 0 and handler.on_error == "deny"
            self._own_event = event = self._event if sole_reader else self._event.copy()
            self._handle = handle = Handle()
            self._started = time.monotonic()
            self._span = begin_decision(handler, self._context)
            self._next += 1
            try:
                self._call = self._executor.submit(
                    functools.partial(handler.function, event, handle),
                    handler.timeout,
                    self._take_result,
                    context=run_inside(self._span, self._context),
                    suspends=handler.suspends,
                )
            except (ExecutorLost, Refusal) as error:
                self._take_decision(error)
            else:
                return True
        return False

    def _take_result(self, _: object, error: Exception | None) -> None:
        try:
            self._take_decision(error)
            if self._start_next():
                return
        except Exception as refusal:
            self._finish(None, refusal)
        else:
            self._finish(self._changes, None)

    def _finish(self, changes: T | None, error: Exception | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(changes, error)

    def _take_decision(self, error: Exception | None) -> None:
        """Keep what the handler changed, unless its failure is allowed. Raises what refuses."""
        handle = self._handle
        if handle.refusal is not None:
            self._keep_result()
        if error is None and handle.refusal is None and handle.invalid is None:
            try:
                changes = self._read(self._own_event)
            except InvalidResult as invalid:
                handle.invalid = invalid
            else:
                self._event, self._changes = self._own_event, changes
                self._keep_result()
                if log.isEnabledFor(logging.INFO):
                    self._context.run(self._run(None).log_outcome, "accepted")
                if self._span.recorded:
                    end_span(self._span, self._run(None), "accepted")
                return
        run = self._run(error)
        end_span(self._span, run, "failed" if handle.refusal is None else "refused")
        self._context.run(_take_failure, run)
        if run.handler.on_error == "hold":
            self.undecided.append(run.handler.name)

    def _keep_result(self) -> None:
        if self._handle.latest_result is not None:
            self.results[self._handlers[self._next - 1].name] = self._handle.latest_result

    def _run(self, error: Exception | None) -> HandlerRun:
        milliseconds = (time.monotonic() - self._started) * 1000
        handler = self._handlers[self._next - 1]
        return HandlerRun(handler, self._handle, error, milliseconds, self._mask)


def _take_failure(run: HandlerRun) -> None:
    """Log a run that refuses or failed, and raise what refuses the request, unless it may fail."""
    handler, handle = run.handler, run.handle
    if (refusal := handle.refusal) is not None:
        run.log_outcome(f"refused {refusal.code}")
        terminated = Terminated(refusal.code, refusal.body, refusal.content_type)
        terminated.rejected_by = handler.name if handler.event == RECEIVED else None
        raise terminated
    if isinstance(run.error, Refusal):
        run.log_outcome(run.error.message)
        raise run.error
    if handle.invalid is not None:
        run.log_outcome(f"invalid result: {handle.invalid}")
        raise _hook_failed(handler)
    run.log_outcome(f"{run.failure_message()}{_CONSEQUENCES[handler.on_error]}")
    if handler.on_error == "deny":
        raise _hook_failed(handler)


_CONSEQUENCES: Final = {"deny": "", "allow": " (allowed by on_error)", "hold": " (held by on_error)"}


def _hook_failed(handler: Handler) -> Refusal:
    return Refusal("hook_failed", f"the handler {handler.name} could not decide; try again later")
