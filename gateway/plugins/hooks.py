"""Runs the handlers of the plugins for the server.

Handlers that decide about a request may refuse or change it, and fail closed. Whatever a
handler does, its result is here within its time-out and about a second; for a delivery that has left
a thread running, within twice its time-out.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.domain.event_bodies import uploading_event
from gateway.domain.model import (
    DELETING,
    DOWNLOADING,
    LISTING,
    RECEIVED,
    UPLOAD_FAILED,
    UPLOADING,
    Delivery,
    Download,
    FileRequest,
    HandlerSpec,
    Upload,
)
from gateway.errors import HandlerGone
from gateway.plugins import Handler, Plugins
from gateway.plugins.admission_chain import AdmissionChain
from gateway.plugins.admitting_events import ADMITTING_EVENTS
from gateway.plugins.delivery_runs import DeliveryOutcome, DeliveryRun, DeliveryRuns
from gateway.plugins.failed_uploads import FailedUploads
from gateway.plugins.models import DELIVERED
from gateway.plugins.scripting.calls import Done, result_of
from gateway.plugins.scripting.decision import Changes, Received, Served, read_changes, read_received
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.plugins.scripting.values import Event
from gateway.plugins.shadow_runs import Shadows, settled
from gateway.telemetry import logs


class Hooks:
    """Calls handlers in three executors: `admission` for those that decide about requests, `received`
    for those that decide about whole files while a client waits, `work` for the rest."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        closers = (plugins.services.callout.close, *plugins.services.closers)
        self._admission = ScriptExecutor("admission", closers)
        self._received = ScriptExecutor("received", closers)
        self._work = ScriptExecutor("work", closers)
        self._failed = FailedUploads(self._work, plugins.mask)
        self.shadows = Shadows(plugins, closers)
        self._deliveries = DeliveryRuns(self._work, plugins.mask)

    async def start(self) -> None:
        """Start the executors, but for `received`, which starts with its first handler."""
        self._admission.start()
        self._work.start()

    async def close(self, grace: float) -> None:
        """Let runs in flight end for `grace` seconds, then stop the executors."""
        deadline = time.monotonic() + grace
        await self._failed.wait(grace)
        remaining = max(0.0, deadline - time.monotonic())
        executors = (self._admission, self._received, self._work)
        closing = [executor.close(remaining) for executor in executors]
        await asyncio.gather(*closing, self.shadows.close(0))
        await self._failed.wait(1)  # without an executor they end at once

    @property
    def alive(self) -> bool:
        """Whether all executors can run handlers; readiness depends on it."""
        return self._admission.alive and self._received.alive and self._work.alive

    async def run_script(self, function: Callable[[], Awaitable[Any]], timeout: float) -> Any:  # noqa: ASYNC109
        """Run the script of a route in the `work` executor. Raises as `ScriptExecutor.call_script`."""
        return await self._work.call_script(function, timeout)

    def has_handlers(self, event: str) -> bool:
        """Whether there is any handler of `event` that is no shadow."""
        return bool(self._plugins.current.handlers[event])

    def _handlers(self, event: str, path: str) -> Sequence[Handler]:
        """Return the handlers of `event` that subscribe to the file at `path`."""
        return [handler for handler in self._plugins.current.handlers[event] if handler.matches(path)]

    def replaces_authorization(self, event: str = UPLOADING) -> bool:
        """Whether some handler of `event` decides instead of the default authorization."""
        handlers = self._plugins.current.handlers[event]
        return any(not handler.keeps_authorization for handler in handlers)

    def submit_admission(
        self, upload: Upload, done: Callable[[Exception | None], None]
    ) -> AdmissionChain[Changes] | None:
        """Run the `OnFileUploading` handlers in name order and write their changes to `upload`.

        Then call `done(error)` once: None, or what `AdmissionChain.start` says. The caller checks the
        new path. What is returned can be cancelled; None where there was nothing to wait for. `done`
        may be called before this returns.
        """
        handlers = self._handlers(UPLOADING, upload.path)
        if not handlers:
            self.shadows.beside_default(UPLOADING, upload)
            done(None)
            return None

        def apply(changes: Changes | None, error: Exception | None) -> None:
            if trial is not None:
                trial.settle(changes, error)
            if changes is not None:
                _apply(changes, upload)
            upload.results |= chain.results
            done(error)

        event, mask = Event(uploading_event(upload)), self._plugins.mask
        context = logs.context_with(upload_id=upload.id, event_id=event["id"])
        trial = self.shadows.beside(UPLOADING, event, read_changes, context)
        chain = AdmissionChain(self._admission, handlers, event, read_changes, mask)
        chain.start(apply, context)
        return chain

    async def admit_upload(self, upload: Upload) -> None:
        """Wait for `submit_admission`; raises its error."""

        def submit(done: Done) -> AdmissionChain[Changes] | None:
            return self.submit_admission(upload, functools.partial(done, None))

        await result_of(submit)

    async def decide_received(self, upload: Upload, event: dict[str, Any]) -> tuple[str, ...]:
        """Run the `OnFileReceived` handlers without `hold`; their changes go into `upload`.

        They get a copy of `event`, which is that of the whole file. Returns the names of the handlers
        with `hold`, of the same plugins, and of those that failed and have `on_error: hold`. Raises as
        `admit_upload`. The caller checks the new path.
        """
        handlers = self._handlers(RECEIVED, upload.path)
        waiting = [handler for handler in handlers if not handler.hold]
        undecided: list[str] = []
        if waiting:
            chain = AdmissionChain(
                self._received, waiting, Event(event).copy(), read_received, self._plugins.mask
            )
            context = logs.context_with(upload_id=upload.id, event_id=event["id"])

            def submit(done: Callable[[Received | None, Exception | None], None]) -> Any:
                chain.start(done, context)
                return chain

            try:
                changes = await result_of(submit)
            finally:  # of one that refuses too
                upload.results |= chain.results
            if changes is not None:
                upload.path, upload.on_conflict, upload.metadata, quotas = changes
                upload.quotas |= quotas
            undecided = chain.undecided
        return tuple(handler.name for handler in handlers if handler.hold or handler.name in undecided)

    async def admit_download(self, download: Download) -> Served | None:
        """Run the `OnFileDownloading` handlers; None without any. Raises as `admit_upload`."""
        decided: Served | None = await self._decide(DOWNLOADING, download)
        return decided

    async def admit_listing(self, listing: FileRequest) -> str | None:
        """Run the `OnFileListing` handlers; return the path as they leave it, None without any."""
        decided: str | None = await self._decide(LISTING, listing)
        return decided

    async def admit_deletion(self, deletion: FileRequest) -> str | None:
        """Run the `OnFileDeleting` handlers; return the path as they leave it, None without any."""
        decided: str | None = await self._decide(DELETING, deletion)
        return decided

    async def _decide(self, name: str, request: FileRequest) -> Any:
        """Run the handlers of one event that decide; None without any. Raises as `admit_upload`."""
        handlers = self._handlers(name, request.path)
        if not handlers:
            self.shadows.beside_default(name, request)
            return None
        make_event, read = ADMITTING_EVENTS[name]
        event = Event(make_event(request))
        context = logs.context_with(event_id=event["id"])
        trial = self.shadows.beside(name, event, read, context)
        chain = AdmissionChain(self._admission, handlers, event, read, self._plugins.mask)

        def submit(done: Done) -> AdmissionChain[Any]:
            chain.start(done, context)
            return chain

        return await settled(trial, submit)

    def handler_specs(self, *events: str) -> tuple[HandlerSpec, ...]:
        """Return the specs of the handlers of `events`; by default one for each name in the journal."""
        handlers = self._plugins.current.handlers
        specs = [handler.spec for event in events or DELIVERED for handler in handlers[event]]
        return tuple(specs) if events else tuple({spec.name: spec for spec in specs}.values())

    def holding_specs(self) -> tuple[HandlerSpec, ...]:
        """Return the specs of the `OnFileReceived` handlers that may hold a file, in name order."""
        handlers = self._plugins.current.handlers[RECEIVED]
        return tuple(handler.spec for handler in handlers if handler.may_hold)

    def submit_delivery(
        self, delivery: Delivery, event: dict[str, Any], done: Callable[[DeliveryOutcome], None]
    ) -> DeliveryRun | None:
        """Run one handler of a journalled event on the complete event, `attempt` included.

        Then call `done(outcome)` once. Its error is None, `HandlerFailed` if it has to run again,
        `HandlerGone` if there is no such handler, `Postponed` if the handler did not fail. What is
        returned can be cancelled; None where there was nothing to wait for. `done` may be called before
        this returns.
        """
        handler = self._plugins.current.handler(delivery.event, delivery.handler)
        if handler is None:
            gone = HandlerGone(f"there is no handler {delivery.handler} of {delivery.event} any more")
            done(DeliveryOutcome(gone))
            return None
        return self._deliveries.submit(handler, delivery, event, done)

    async def run_delivery(self, delivery: Delivery, event: dict[str, Any]) -> DeliveryOutcome:
        """Wait for the outcome of `submit_delivery`."""

        def submit(done: Done) -> DeliveryRun | None:
            return self.submit_delivery(delivery, event, lambda outcome: done(outcome, None))

        outcome: DeliveryOutcome = await result_of(submit)
        return outcome

    def delivery_slots(self, spec: HandlerSpec) -> int:
        """Return how many runs of a handler may be under way."""
        handler = self._plugins.current.handler(spec.event, spec.name)
        return spec.concurrency if handler is None else self._deliveries.slots(handler)

    def delivery_progress(self, event_id: str, handler: str) -> dict[str, float] | None:
        """Return the latest `done` and `total` of a running delivery, None if it reported none."""
        return self._deliveries.progress(event_id, handler)

    def deciding_event(self, handler: str) -> str | None:
        """Return the event before the commit of which a handler has this name, None of neither."""
        current, events = self._plugins.current, (UPLOADING, RECEIVED)
        return next((event for event in events if current.handler(event, handler)), None)

    def notify_upload_failed(self, upload: Upload, reason: str, received: int) -> None:
        """Run the `OnFileUploadFailed` handlers in the background: `reason` is a code."""
        if handlers := self._handlers(UPLOAD_FAILED, upload.path):
            self._failed.notify(handlers, upload, reason, received)


def _apply(changes: Changes, upload: Upload) -> None:
    upload.path = changes.path
    if "max_bytes" in changes.keys:
        upload.max_bytes = changes.max_bytes
    if "on_conflict" in changes.keys:
        upload.on_conflict = changes.on_conflict
    if changes.metadata is not None:
        upload.metadata = changes.metadata
    upload.quotas |= changes.quotas
