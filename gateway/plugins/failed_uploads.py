"""Runs the handlers of `APIGW.OnFileUploadFailed`: once each, in the background, best effort."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from gateway.domain.event_bodies import upload_failed_event
from gateway.domain.model import UPLOAD_FAILED, Upload
from gateway.plugins.handler import Handler
from gateway.plugins.handler_runs import HandlerRun
from gateway.plugins.handler_spans import begin_failed_upload, end_span
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.plugins.scripting.values import Event
from gateway.telemetry import logs, tracing

MAX_FAILED_UPLOADS: Final = 100
"""Failed uploads whose handlers may run at the same time; further ones are not notified."""

log = logging.getLogger("gateway.hooks")


class FailedUploads:
    """Runs the handlers of uploads that failed. `mask` hides secrets in log lines."""

    def __init__(self, executor: ScriptExecutor, mask: Callable[[str], str]) -> None:
        self._executor = executor
        self._mask = mask
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self, seconds: float) -> None:
        """Wait for those that run, `seconds` at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def notify(self, handlers: Sequence[Handler], upload: Upload, reason: str, received: int) -> None:
        """Run `handlers`: `reason` is a code, `received` in bytes."""
        if len(self._tasks) >= MAX_FAILED_UPLOADS:
            log.warning(
                "too many failed uploads at the same time: %s skipped for upload %s",
                UPLOAD_FAILED,
                upload.id,
                extra=logs.event("handler.skipped"),
            )
            return
        event = Event(upload_failed_event(upload, reason, received))
        task = asyncio.create_task(self._run_all(handlers, event, upload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_all(self, handlers: Sequence[Handler], event: Event, upload: Upload) -> None:
        with logs.bind(upload_id=event["upload_id"], event_id=event["id"]):
            for handler in handlers:
                span = begin_failed_upload(handler, upload)
                with tracing.use(span):
                    run = await self._run(handler, event.copy())
                message = run.failure_message()
                end_span(span, run, "done" if message is None else "failed")
                run.log_outcome(message or "done")

    async def _run(self, handler: Handler, event: Event) -> HandlerRun:
        error, started, handle = None, time.monotonic(), Handle()
        try:
            await self._executor.call_script(
                functools.partial(handler.function, event, handle),
                handler.timeout,
                suspends=handler.suspends,
            )
        except Exception as raised:
            error = raised
        milliseconds = (time.monotonic() - started) * 1000
        return HandlerRun(handler, handle, error, milliseconds, self._mask)
