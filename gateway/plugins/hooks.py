"""Runs the handlers of the plugins for the server.

Handlers that admit an upload or a download may refuse or change it, and fail closed. Whatever a
handler does, its result is here within its time-out and about a second; for a delivery that has left
a thread running, within twice its time-out.
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
from gateway.plugins.handler_runs import HandlerRun
from gateway.plugins.models import DELIVERED
from gateway.plugins.scripting.calls import never_suspends
from gateway.plugins.scripting.decision import (
    Changes,
    Handle,
    InvalidResult,
    Served,
    read_changes,
    read_served,
)
from gateway.plugins.scripting.executor import ExecutorLost, ScriptExecutor
from gateway.plugins.scripting.live_work import LiveWork, wait_for_live_work
from gateway.plugins.scripting.values import Event
from gateway.telemetry import logs

MAX_FAILED_UPLOADS: Final = 100
"""Failed uploads whose handlers may run at the same time; further ones are not notified."""

T = TypeVar("T")
log = logging.getLogger("gateway.hooks")


class Hooks:
    """Calls handlers in two executors: `admission` for those that decide, `work` for the rest."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        closers = (plugins.services.callout.close, *plugins.services.closers)
        self._admission = ScriptExecutor("admission", closers)
        self._work = ScriptExecutor("work", closers)
        self._failed_tasks: set[asyncio.Task[None]] = set()
        self._running_deliveries: dict[tuple[str, str], Handle] = {}

    async def start(self) -> None:
        """Start both executors."""
        self._admission.start()
        self._work.start()

    async def close(self, grace: float) -> None:
        """Let runs in flight end for `grace` seconds, then stop the executors."""
        deadline = time.monotonic() + grace
        if self._failed_tasks:
            await asyncio.wait(self._failed_tasks, timeout=grace)
        remaining = max(0.0, deadline - time.monotonic())
        await asyncio.gather(self._admission.close(remaining), self._work.close(remaining))
        if self._failed_tasks:  # without an executor they end at once
            await asyncio.wait(self._failed_tasks, timeout=1)

    @property
    def alive(self) -> bool:
        """Whether both executors can run handlers; readiness depends on it."""
        return self._admission.alive and self._work.alive

    async def run_script(self, function: Callable[[], Awaitable[Any]], timeout: float) -> Any:  # noqa: ASYNC109
        """Run the script of a route in the `work` executor. Raises as `ScriptExecutor.call_script`."""
        return await self._work.call_script(function, timeout)

    def has_handlers(self, event: str) -> bool:
        """Whether there is any handler of `event`."""
        return bool(self._plugins.current.handlers[event])

    def replaces_authorization(self, event: str = UPLOADING) -> bool:
        """Whether some handler of `event` decides instead of the default authorization."""
        handlers = self._plugins.current.handlers[event]
        return any(not handler.keeps_authorization for handler in handlers)

    async def admit_upload(self, upload: Upload) -> None:
        """Run the `OnFileUploading` handlers in name order and write their changes to `upload`.

        Raises `Terminated` for the first `terminate(code >= 400)`, `Refusal("hook_failed")` for a
        handler that failed, `Refusal("overloaded")`. The caller checks the new path.
        """
        handlers = self._plugins.current.handlers[UPLOADING]
        if not handlers:
            return
        with logs.bind(upload_id=upload.id):
            changes = await self._run_chain(handlers, Event(uploading_event(upload)), read_changes)
        if changes is not None:
            _apply(changes, upload)

    async def admit_download(self, download: Download) -> Served | None:
        """Run the `OnFileDownloading` handlers; None without any. Raises as `admit_upload`."""
        handlers = self._plugins.current.handlers[DOWNLOADING]
        if not handlers:
            return None
        return await self._run_chain(handlers, Event(downloading_event(download)), read_served)

    async def _run_chain(
        self, handlers: Sequence[Handler], event: Event, read: Callable[[Event], T]
    ) -> T | None:
        """Run handlers one after the other, each on the event as the last one left it."""
        changes = None
        with logs.bind(event_id=event["id"]):
            for handler in handlers:
                # No copy for the first handler if its failure ends the chain: no other one sees it.
                sole_reader = handler is handlers[0] and handler.on_error != "allow"
                own_event = event if sole_reader else event.copy()
                own_changes = await self._admit(handler, own_event, read)
                if own_changes is not None:
                    event, changes = own_event, own_changes
        return changes

    def handler_specs(self, *events: str) -> tuple[HandlerSpec, ...]:
        """Return the specs of the handlers of `events`, by default of all journalled events."""
        handlers = self._plugins.current.handlers
        return tuple(handler.spec for event in events or DELIVERED for handler in handlers[event])

    async def run_delivery(self, delivery: Delivery, event: dict[str, Any]) -> None:
        """Run one handler of a journalled event on the complete event, `attempt` included.

        Raises `HandlerFailed` if it has to run again, `HandlerGone` if there is no such handler,
        `Postponed` if the handler did not fail.
        """
        handler = self._plugins.current.handler(delivery.event, delivery.handler)
        if handler is None:
            raise HandlerGone(f"there is no handler {delivery.handler} of {delivery.event} any more")
        live: LiveWork = set()
        with logs.bind(upload_id=delivery.upload_id, event_id=delivery.event_id):
            run = await self._run_with_progress(handler, Event(event), delivery.event_id, live)
            message = run.failure_message()
            run.log_outcome(message or "done")
            if message is not None:
                await _wait_until_ended(handler, live)
        if isinstance(run.error, Postponed):
            raise run.error
        if isinstance(run.error, ExecutorLost) and self._work.lost:
            raise Postponed("no script executor is left to run it: restart this process") from run.error
        if message is not None:
            raise HandlerFailed(message, run.traceback()) from run.error

    def delivery_progress(self, event_id: str, handler: str) -> dict[str, float] | None:
        """Return the latest `done` and `total` of a running delivery, None if it reported none."""
        handle = self._running_deliveries.get((event_id, handler))
        if handle is None or handle.latest_progress is None:
            return None
        done, total = handle.latest_progress
        return {"done": done, "total": total}

    def notify_upload_failed(self, upload: Upload, reason: str, received: int) -> None:
        """Run the `OnFileUploadFailed` handlers in the background: `reason` is a code."""
        handlers = self._plugins.current.handlers[UPLOAD_FAILED]
        if not handlers:
            return
        if len(self._failed_tasks) >= MAX_FAILED_UPLOADS:
            log.warning(
                "too many failed uploads at the same time: %s skipped for upload %s",
                UPLOAD_FAILED,
                upload.id,
                extra=logs.event("handler.skipped"),
            )
            return
        task = asyncio.create_task(
            self._run_failed_handlers(handlers, Event(upload_failed_event(upload, reason, received)))
        )
        self._failed_tasks.add(task)
        task.add_done_callback(self._failed_tasks.discard)

    async def _run_failed_handlers(self, handlers: tuple[Handler, ...], event: Event) -> None:
        with logs.bind(upload_id=event["upload_id"], event_id=event["id"]):
            for handler in handlers:
                run = await self._run(self._work, handler, event.copy(), Handle())
                run.log_outcome(run.failure_message() or "done")

    async def _admit(self, handler: Handler, event: Event, read: Callable[[Event], T]) -> T | None:
        """Run one handler on an event; return its changes, or None where its failure is allowed."""
        changes = None
        run = await self._run(self._admission, handler, event, Handle())
        refusal = run.handle.refusal
        if refusal is not None:
            run.log_outcome(f"refused {refusal.code}")
            raise Terminated(refusal.code, refusal.body, refusal.content_type)
        if isinstance(run.error, Refusal):
            run.log_outcome(run.error.message)
            raise run.error
        if run.handle.invalid is None and run.error is None:
            try:
                changes = read(event)
            except InvalidResult as error:
                run.handle.invalid = error
        if run.handle.invalid is not None:
            run.log_outcome(f"invalid result: {run.handle.invalid}")
            raise _hook_failed(handler)
        if run.error is None:
            run.log_outcome("accepted")
            return changes
        allowed = handler.on_error == "allow"
        run.log_outcome(f"{run.failure_message()}{' (allowed by on_error)' if allowed else ''}")
        if not allowed:
            raise _hook_failed(handler)
        return None

    async def _run_with_progress(
        self, handler: Handler, event: Event, event_id: str, live: LiveWork
    ) -> HandlerRun:
        """Run a delivery; `delivery_progress` reports on it meanwhile."""
        key, handle = (event_id, handler.name), Handle()
        self._running_deliveries[key] = handle
        try:
            return await self._run(self._work, handler, event, handle, live)
        finally:
            if self._running_deliveries.get(key) is handle:
                del self._running_deliveries[key]

    async def _run(
        self,
        executor: ScriptExecutor,
        handler: Handler,
        event: Event,
        handle: Handle,
        live: LiveWork | None = None,
    ) -> HandlerRun:
        error, started = None, time.monotonic()
        try:
            await executor.call_script(
                lambda: handler.function(event, handle),
                handler.timeout,
                suspends=not never_suspends(handler.function),
                live=live,
            )
        except Exception as raised:
            error = raised
        milliseconds = (time.monotonic() - started) * 1000
        return HandlerRun(handler, handle, error, milliseconds, self._plugins.mask)


async def _wait_until_ended(handler: Handler, live: LiveWork) -> None:
    """Wait for what a failed run has left running: its next run would overlap it.

    At most as long as the run itself could take: a thread that hangs must not stop the handler for ever.
    """
    if not await wait_for_live_work(live, handler.timeout):
        log.warning(
            "%s still runs %g s after it failed: its next run may overlap it",
            handler.name,
            handler.timeout,
            extra=logs.event("delivery.overlapping", handler=handler.name),
        )


def _hook_failed(handler: Handler) -> Refusal:
    return Refusal("hook_failed", f"the handler {handler.name} could not decide; try again later")


def _apply(changes: Changes, upload: Upload) -> None:
    upload.path = changes.path
    if "max_bytes" in changes.keys:
        upload.max_bytes = changes.max_bytes
    if "on_conflict" in changes.keys:
        upload.on_conflict = changes.on_conflict
