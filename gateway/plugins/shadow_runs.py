"""Runs shadow handlers beside a decision that counts, and compares theirs with it.

They run in an executor of their own on copies of the event, so that they delay no other handler. What
they decide, and whether they fail, changes nothing. A run that could not be made is skipped.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.domain.model import FileRequest, Upload
from gateway.errors import Refusal, Superseded
from gateway.plugins import Plugins
from gateway.plugins.admission_chain import AdmissionChain
from gateway.plugins.admitting_events import ADMITTING_EVENTS, ReadChanges, default_changes
from gateway.plugins.handler import Handler
from gateway.plugins.handler_runs import HandlerRun
from gateway.plugins.held_trials import HeldTrials
from gateway.plugins.scripting.calls import Done, ScriptCall, result_of
from gateway.plugins.scripting.decision import Handle, InvalidResult
from gateway.plugins.scripting.executor import ExecutorLost, ScriptExecutor
from gateway.plugins.scripting.executor_thread import Closer
from gateway.plugins.scripting.values import Event
from gateway.plugins.shadow_verdicts import ShadowVerdict, changes_of, real_verdict
from gateway.telemetry import logs

MAX_SHADOWS: Final = 100
"""Runs of shadows that may be under way; further ones are skipped."""

log = logging.getLogger("gateway.shadow")


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Log a defect of the gateway here: no request fails because of a shadow."""
    try:
        yield
    except Exception:
        log.exception("shadows could not be run", extra=logs.event("shadow.broken"))


class ShadowCounts(Protocol):
    """Counts what became of the runs of shadows."""

    def record_shadow(self, handler: str, outcome: str) -> None:
        """Count a run: `differed`, `agreed` or `skipped`."""


@dataclass(slots=True, eq=False)
class Trial:
    """The shadows of one decision. `settle` it once with what was decided, or `abandon` it."""

    runs: Shadows
    before: Event
    read: ReadChanges
    context: contextvars.Context
    real: ShadowVerdict | None = None
    abandoned: bool = False
    decided: list[tuple[HandlerRun, ShadowVerdict]] = field(default_factory=list)

    def settle(self, changes: Any, error: Exception | None) -> None:
        """Compare the shadows with what was decided, now or as soon as they have ended."""
        with reported():
            self.real = real_verdict(self.before, changes, error)
            if self.real is None:
                self.abandon()
                return
            for run, verdict in self.decided:
                self.runs.compare(self, run, verdict, self.real)
            self.decided.clear()

    def abandon(self) -> None:
        """Compare nothing: there was no decision."""
        self.abandoned = True
        self.decided.clear()

    def take(self, run: HandlerRun, verdict: ShadowVerdict) -> None:
        """Take the decision of a shadow."""
        if self.abandoned:
            return
        if self.real is None:
            self.decided.append((run, verdict))
        else:
            self.runs.compare(self, run, verdict, self.real)


class Shadows:
    """Runs shadows. All methods belong to the server's loop. `counts` may be set after the start."""

    def __init__(self, plugins: Plugins, closers: Sequence[Closer]) -> None:
        self.counts: ShadowCounts | None = None
        self.held = HeldTrials()
        self._plugins = plugins
        self._executor = ScriptExecutor("shadow", closers, MAX_SHADOWS)
        self._mask = plugins.mask

    async def close(self, grace: float) -> None:
        """Let runs in flight end for `grace` seconds, then stop the executor."""
        await self._executor.close(grace)

    def exist(self, event: str) -> bool:
        """Tell whether there is any shadow of `event`."""
        return bool(self._plugins.current.shadows[event])

    def of(self, event: str, path: str) -> Sequence[Handler]:
        """Return the shadows of `event` that subscribe to the file at `path`."""
        return [shadow for shadow in self._plugins.current.shadows[event] if shadow.matches(path)]

    def beside_default(
        self, name: str, subject: Upload | FileRequest, refusal: Refusal | None = None
    ) -> None:
        """Let the shadows of an event run where no handler decided, but the default authorization."""
        if self.exist(name):
            with reported():
                self._beside_default(name, subject, refusal)

    def _beside_default(self, name: str, subject: Upload | FileRequest, refusal: Refusal | None) -> None:
        make_event, read = ADMITTING_EVENTS[name]
        event = Event(make_event(subject))
        fields = {"upload_id": subject.id} if isinstance(subject, Upload) else {}
        context = logs.context_with(event_id=event["id"], **fields)
        trial = self.beside(name, event, read, context, refused=refusal is not None)
        if trial is not None:
            trial.settle(default_changes(subject), refusal)

    def beside(
        self,
        name: str,
        event: Event,
        read: ReadChanges,
        context: contextvars.Context,
        *,
        refused: bool = False,
    ) -> Trial | None:
        """Run the shadows of an event beside its decision; None without any.

        Where the default authorization has `refused`, those that keep it would not have been asked.
        """
        trial = None
        with reported():
            shadows = self.of(name, event["path"])
            if refused:
                shadows = [shadow for shadow in shadows if not shadow.keeps_authorization]
            if shadows:
                trial = self.begin(shadows, event, read, context)
        return trial

    def begin(
        self,
        shadows: Sequence[Handler],
        event: Event,
        read: ReadChanges,
        context: contextvars.Context,
        ended: Callable[[], None] | None = None,
    ) -> Trial:
        """Run `shadows` on copies of `event`, and call `ended` once all have ended.

        `event` is copied before this returns: a handler may change it then.
        """
        trial = Trial(self, event.copy(), read, context)
        left = len(shadows)

        def end() -> None:
            nonlocal left
            left -= 1
            if left == 0 and ended is not None:
                ended()

        for handler in shadows:
            self._submit(trial, handler, end)
        return trial

    def _submit(self, trial: Trial, handler: Handler, end: Callable[[], None]) -> None:
        event, handle = trial.before.copy(), Handle()
        calls: list[ScriptCall] = []

        def take(_: object, error: Exception | None) -> None:
            started = calls[0].started_at
            try:
                self._take(trial, HandlerRun(handler, handle, error, _since(started), self._mask), event)
            finally:
                end()

        try:
            calls.append(
                self._executor.submit(
                    functools.partial(handler.function, event, handle),
                    handler.timeout,
                    take,
                    context=trial.context.copy(),
                    suspends=handler.suspends,
                )
            )
        except (ExecutorLost, Refusal):
            self._count(handler, "skipped")
            end()

    def _take(self, trial: Trial, run: HandlerRun, event: Event) -> None:
        verdict = self._verdict(trial, run, event)
        if verdict is None:
            self._count(run.handler, "skipped")
        else:
            trial.take(run, verdict)

    def _verdict(self, trial: Trial, run: HandlerRun, event: Event) -> ShadowVerdict | None:
        """Return what a shadow decided, None where it could not run to its end."""
        handle, error = run.handle, run.error
        if handle.refusal is not None:
            return ShadowVerdict("refused", handle.refusal.code)
        if handle.invalid is None and isinstance(error, ExecutorLost | Superseded):
            return None
        if handle.invalid is None and error is None:
            try:
                return ShadowVerdict("accepted", changes=changes_of(trial.before, trial.read(event)))
            except InvalidResult as invalid:
                handle.invalid = invalid
        reason = "\n".join(filter(None, (run.failure_message(), run.traceback().rstrip())))
        return ShadowVerdict("failed", reason=reason)

    def compare(self, trial: Trial, run: HandlerRun, shadow: ShadowVerdict, real: ShadowVerdict) -> None:
        """Count whether a shadow decided as the real handlers did, and log where it did not."""
        if shadow.agrees(real):
            self._count(run.handler, "agreed")
            return
        self._count(run.handler, "differed")
        trial.context.run(self._log_difference, run, shadow, real)

    def _log_difference(self, run: HandlerRun, shadow: ShadowVerdict, real: ShadowVerdict) -> None:
        log.info(
            "shadow %s would have decided otherwise: %s; what counts: %s",
            run.handler.name,
            self._mask(str(shadow)),
            self._mask(str(real)),
            extra=logs.event(
                "shadow.differed",
                handler=run.handler.name,
                event_type=run.handler.event,
                shadow=self._mask(str(shadow)),
                real=self._mask(str(real)),
                ms=round(run.milliseconds, 1),
            ),
        )

    def _count(self, handler: Handler, outcome: str) -> None:
        if self.counts is not None:
            self.counts.record_shadow(handler.name, outcome)


def _since(started: float) -> float:
    return (time.monotonic() - started) * 1000


@contextlib.contextmanager
def compared(trial: Trial | None) -> Iterator[None]:
    """Compare the shadows with what is raised inside; what is accepted has to be told to `trial`."""
    try:
        yield
    except Exception as error:
        if trial is not None:
            trial.settle(None, error)
        raise
    except BaseException:
        if trial is not None:
            trial.abandon()
        raise


async def settled(trial: Trial | None, submit: Callable[[Done], AdmissionChain[Any]]) -> Any:
    """Return what handlers decided, which is what the shadows of `trial` are compared with."""
    with compared(trial):
        changes = await result_of(submit)
    if trial is not None:
        trial.settle(changes, None)
    return changes
