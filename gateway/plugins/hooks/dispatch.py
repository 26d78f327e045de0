"""Fires the events at the handlers of the plugins, from the server's side.

One rule: `uploading` may refuse or change and fails closed; `deliver` and `failed` cannot. Whatever
a handler does, the answer comes within its time-out and about a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from gateway.domain.event_bodies import downloading_event, upload_failed_event, uploading_event
from gateway.domain.model import (
    DOWNLOADING,
    UPLOAD_FAILED,
    UPLOADING,
    Delivery,
    Download,
    HandlerSpec,
    Upload,
)
from gateway.errors import HandlerFailed, HandlerGone, Postponed, Refusal, Terminated
from gateway.plugins import Handler, Plugins
from gateway.plugins.hooks.report import HandlerRun, Reporter
from gateway.plugins.models import DELIVERED
from gateway.plugins.scripting import (
    Changes,
    Event,
    ExecutorLost,
    Handle,
    InvalidResult,
    ScriptExecutor,
    Served,
    never_waits,
    read_changes,
    read_served,
)
from gateway.telemetry import logs

FAILED_IN_FLIGHT: Final = 100

T = TypeVar("T")
log = logging.getLogger("gateway.hooks")


class Hooks:
    """Calls handlers in two lanes: admission (`OnFileUploading`) and work (the rest)."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._reporter = Reporter(plugins.mask)
        closers = (plugins.services.callout.close, *plugins.services.closers)
        self._admission = ScriptExecutor("admission", closers)
        self._work = ScriptExecutor("work", closers)
        self._failing: set[asyncio.Task[None]] = set()
        self._delivering: dict[tuple[str, str], Handle] = {}

    async def start(self) -> None:
        """Start the lanes."""
        self._admission.start()
        self._work.start()

    async def close(self, grace: float) -> None:
        """Let runs in flight end for `grace` seconds, then end the lanes."""
        until = time.monotonic() + grace
        if self._failing:
            await asyncio.wait(self._failing, timeout=grace)
        rest = max(0.0, until - time.monotonic())
        await asyncio.gather(self._admission.close(rest), self._work.close(rest))
        if self._failing:  # without a lane they end at once
            await asyncio.wait(self._failing, timeout=1)

    @property
    def alive(self) -> bool:
        """Whether both lanes can run handlers; readiness depends on it."""
        return self._admission.alive and self._work.alive

    async def work(self, make: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        """Run a script of another room in the lane of work; raises as `Lane.call` does."""
        return await self._work.call(make, seconds)

    def handles(self, event: str) -> bool:
        """Whether there is any handler of `event`."""
        return bool(self._plugins.current.handlers[event])

    def replaces_authorization(self, event: str = UPLOADING) -> bool:
        """Whether some handler of `event` decides instead of the default authorization."""
        handlers = self._plugins.current.handlers[event]
        return any(not handler.keeps_authorization for handler in handlers)

    async def uploading(self, upload: Upload) -> None:
        """Run the `OnFileUploading` handlers in name order and write their changes to `upload`.

        Raises `Terminated` for the first `terminate(code >= 400)`, `Refusal("hook_failed")` for a
        handler that failed, `Refusal("overloaded")`. The caller checks the new path.
        """
        handlers = self._plugins.current.handlers[UPLOADING]
        if not handlers:
            return
        with logs.bind(upload_id=upload.id):
            changes = await self._decide(handlers, Event(uploading_event(upload)), read_changes)
        if changes is not None:
            _apply(changes, upload)

    async def downloading(self, download: Download) -> Served | None:
        """Run the `OnFileDownloading` handlers likewise; None where there are none. Raises alike."""
        handlers = self._plugins.current.handlers[DOWNLOADING]
        if not handlers:
            return None
        return await self._decide(handlers, Event(downloading_event(download)), read_served)

    async def _decide(
        self, handlers: Sequence[Handler], event: Event, read: Callable[[Event], T]
    ) -> T | None:
        """Run handlers one after the other on what is left of an event; return the last changes."""
        changes = None
        with logs.bind(event_id=event["id"]):
            for handler in handlers:
                # The first one's is nobody else's, and nobody else's after it should it fail.
                alone = handler is handlers[0] and handler.on_error != "allow"
                given = event if alone else event.copy()
                decided = await self._admit(handler, given, read)
                if decided is not None:
                    event, changes = given, decided
        return changes

    def specs(self, *events: str) -> tuple[HandlerSpec, ...]:
        """Return what others must know of the newest handlers of `events`; of all journalled ones."""
        handlers = self._plugins.current.handlers
        return tuple(handler.spec for event in events or DELIVERED for handler in handlers[event])

    async def deliver(self, delivery: Delivery, event: dict[str, Any]) -> None:
        """Run one handler of a journalled event on the complete event, `attempt` included.

        Raises `HandlerFailed` where it has to run again, `HandlerGone` where there is none,
        `Postponed` where no handler is to blame.
        """
        handler = self._plugins.current.handler(delivery.event, delivery.handler)
        if handler is None:
            raise HandlerGone(f"there is no handler {delivery.handler} of {delivery.event} any more")
        with logs.bind(upload_id=delivery.upload_id, event_id=delivery.event_id):
            run = await self._run_told(handler, Event(event), delivery.event_id)
            message = self._reporter.message(run)
            self._reporter.report(run, message or "done")
        if isinstance(run.error, Postponed):
            raise run.error
        if isinstance(run.error, ExecutorLost) and self._work.lost:
            raise Postponed("no lane is left to run it in: restart this process") from run.error
        if message is not None:
            raise HandlerFailed(message, self._reporter.traceback(run)) from run.error

    def progress(self, event_id: str, handler: str) -> dict[str, float] | None:
        """Return the `done` and `total` that a running delivery told last, None if it did not."""
        handle = self._delivering.get((event_id, handler))
        if handle is None or handle.reported is None:
            return None
        done, total = handle.reported
        return {"done": done, "total": total}

    def failed(self, upload: Upload, reason: str, received: int) -> None:
        """Tell the `OnFileUploadFailed` handlers, not waiting: `reason` is a code, `received` bytes."""
        handlers = self._plugins.current.handlers[UPLOAD_FAILED]
        if not handlers:
            return
        if len(self._failing) >= FAILED_IN_FLIGHT:
            log.warning("too many failed uploads at once: no %s for upload %s", UPLOAD_FAILED, upload.id)
            return
        task = asyncio.create_task(
            self._tell(handlers, Event(upload_failed_event(upload, reason, received)))
        )
        self._failing.add(task)
        task.add_done_callback(self._failing.discard)

    async def _tell(self, handlers: tuple[Handler, ...], event: Event) -> None:
        with logs.bind(upload_id=event["upload_id"], event_id=event["id"]):
            for handler in handlers:
                run = await self._run(self._work, handler, event.copy(), Handle())
                self._reporter.report(run, self._reporter.message(run) or "done")

    async def _admit(self, handler: Handler, event: Event, read: Callable[[Event], T]) -> T | None:
        """Run one handler on an event; return its changes, or None where its failure is allowed."""
        changes = None
        run = await self._run(self._admission, handler, event, Handle())
        verdict, junk = run.handle.verdict, run.handle.junk
        if verdict is not None and run.refused:
            self._reporter.report(run, f"refused {verdict.code}")
            raise Terminated(verdict.code, verdict.body, verdict.content_type)
        if isinstance(run.error, Refusal):
            self._reporter.report(run, run.error.message)
            raise run.error
        if junk is None and run.error is None:
            try:
                changes = read(event)
            except InvalidResult as found:
                junk = found
        if junk is not None:
            self._reporter.report(run, f"left junk: {junk}")
            raise _hook_failed(handler)
        if run.error is None:
            self._reporter.report(run, "accepted")
            return changes
        allowed = handler.on_error == "allow"
        self._reporter.report(
            run, f"{self._reporter.message(run)}{' (allowed by on_error)' if allowed else ''}"
        )
        if not allowed:
            raise _hook_failed(handler)
        return None

    async def _run_told(self, handler: Handler, event: Event, event_id: str) -> HandlerRun:
        """Run a delivery, whose progress can be asked for meanwhile."""
        key, handle = (event_id, handler.name), Handle()
        self._delivering[key] = handle
        try:
            return await self._run(self._work, handler, event, handle)
        finally:
            if self._delivering.get(key) is handle:
                del self._delivering[key]

    async def _run(
        self, lane: ScriptExecutor, handler: Handler, event: Event, handle: Handle
    ) -> HandlerRun:
        error, started = None, time.monotonic()
        try:
            waits = not never_waits(handler.function)
            await lane.call(lambda: handler.function(event, handle), handler.timeout, waits=waits)
        except Exception as raised:
            error = raised
        return HandlerRun(handler, handle, error, (time.monotonic() - started) * 1000)


def _hook_failed(handler: Handler) -> Refusal:
    return Refusal("hook_failed", f"the handler {handler.name} could not decide; try again later")


def _apply(changes: Changes, upload: Upload) -> None:
    upload.path = changes.path
    if "max_bytes" in changes.asked:
        upload.max_bytes = changes.max_bytes
    if "on_conflict" in changes.asked:
        upload.on_conflict = changes.on_conflict
