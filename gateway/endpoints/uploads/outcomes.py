"""Records what becomes of an upload: status page, counters, log, OnFileUploadFailed.

The only place that sorts the exceptions which end an upload.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.domain.model import Stored
from gateway.endpoints.inflight import Inflight
from gateway.errors import ClientDisconnected, Refusal, UnknownOutcome
from gateway.plugins.hooks import Hooks
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.uploads")


class UploadOutcomes:
    """The records of one process. Runs on the server's event loop."""

    def __init__(self, inflight: Inflight, metrics: Metrics, hooks: Hooks) -> None:
        self._inflight = inflight
        self._metrics = metrics
        self._hooks = hooks

    def upload_stored(self, stored: Stored) -> None:
        """Record a committed upload."""
        if (progress := self._inflight.find(stored.upload_id)) is not None:
            self._inflight.end_upload(progress)
        self._metrics.uploads.add("stored")
        self._metrics.received_bytes.add(amount=stored.bytes)

    def upload_failed(self, upload_id: str, error: BaseException, withheld: int) -> None:
        """Record why an upload ended.

        `withheld` are the bytes that a client does not send when it is refused before `100 Continue`.
        """
        if isinstance(error, Refusal):
            error.upload_id = upload_id
            self._metrics.uploads.add(error.code)
        elif isinstance(error, UnknownOutcome):
            self._metrics.uploads.add("broken")
        progress = self._inflight.find(upload_id)
        if progress is None or progress.state == "admitting":
            if progress is not None:
                self._inflight.end_upload(progress, _reason(error))
            if isinstance(error, Refusal):
                self._metrics.unsent_bytes.inc(withheld)
            return
        committing, reason = progress.state == "committing", _reason(error)
        self._inflight.end_upload(progress, reason)
        if committing and not isinstance(error, Refusal):
            return  # interrupted or unanswered: it may be stored, the journal knows
        log.warning(
            "upload failed",
            extra=event("upload.failed", reason=reason, bytes=progress.received),
        )
        self._hooks.notify_upload_failed(progress.upload, reason, progress.received)


def _reason(error: BaseException) -> str:
    if isinstance(error, Refusal):
        return error.code
    if isinstance(error, ClientDisconnected):
        return "connection_lost"
    if isinstance(error, asyncio.CancelledError):
        return "stopping"
    return "internal"
