"""Reconciles presigned uploads: checks for objects whose notification may have been lost.

A process moves the next check of an upload before it makes this one, so that one of many processes
and machines makes it; the next check repeats one that failed. Expired uploads are removed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.endpoints.notifications.presigned_uploads import PresignedUpload, PresignedUploads
from gateway.endpoints.notifications.processor import NotificationProcessor
from gateway.errors import EventEngineUnavailable, RecordsUnavailable, Refusal
from gateway.storage.protocols import Storage
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

PAGE_SIZE: Final = 100
"""Uploads that are read at once."""

MAX_INTERVAL: Final = 30.0
"""Seconds between two queries of what is due."""

log = logging.getLogger("gateway.notifications")


class PresignedUploadReconciler:
    """Checks due uploads several times within `first_check` seconds. On the server's loop."""

    def __init__(
        self,
        uploads: PresignedUploads,
        processor: NotificationProcessor,
        storage: Storage,
        metrics: Metrics,
        first_check: float,
    ) -> None:
        self._uploads = uploads
        self._processor = processor
        self._storage = storage
        self._metrics = metrics
        self._interval = min(first_check / 4, MAX_INTERVAL)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                while await self.check_due() == PAGE_SIZE:
                    pass
            except (EventEngineUnavailable, RecordsUnavailable, Refusal) as error:
                message = "checks of presigned uploads are postponed: %s"
                log.warning(message, error, extra=event("reconciliation.postponed"))
            except Exception:
                log.exception("checks of presigned uploads failed", extra=event("reconciliation.failed"))

    async def check_due(self) -> int:
        """Check a page of due uploads; return how many. Raises `RecordsUnavailable`, as `process`."""
        page = await self._uploads.due_for_check(PAGE_SIZE)
        for upload in page:
            now = self._uploads.now()
            claimed = upload.rescheduled(now)
            if await self._uploads.replace_upload(upload, claimed):
                await self._check(claimed, last=now >= claimed.last_check)
        return len(page)

    async def _check(self, upload: PresignedUpload, *, last: bool) -> None:
        try:
            stat = await self._storage.stat(upload.path)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
        else:
            if await self._processor.process_unnotified(upload, stat):
                message = "no notification of %s arrived; its event was published without one"
                log.warning(message, upload.path, extra=event("notification.lost"))
                last = last and upload.notified is not None
        if last:
            await self._uploads.remove_upload(upload)
            if upload.notified is None:
                self._metrics.presigned_uploads.add("expired")
