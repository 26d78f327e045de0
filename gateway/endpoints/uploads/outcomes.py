"""Records how uploads end, whichever path served them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.held import HandlerRefusal, Held, shown_refusal
from gateway.domain.model import Stored, Upload
from gateway.endpoints.inflight import Inflight
from gateway.errors import ClientDisconnected, Refusal, Terminated, UnknownOutcome
from gateway.plugins.hooks import Hooks
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.uploads")


@dataclass(slots=True, frozen=True)
class UploadOutcomes:
    """Records how uploads end: status page, counters, log, OnFileUploadFailed. On the server's loop.

    `urls` are those of stored files, for the answers.
    """

    inflight: Inflight
    metrics: Metrics
    hooks: Hooks
    urls: StoredUrls

    def upload_stored(self, stored: Stored | Held) -> None:
        """Record an upload that is committed, or held: the journal has it from here on."""
        state = "held" if isinstance(stored, Held) else "stored"
        self.inflight.end_stored(stored.upload_id, state, stored.path, stored.bytes)
        self.metrics.uploads.add(state)
        self.metrics.received_bytes.add(amount=stored.bytes)

    def upload_failed(self, upload_id: str, error: BaseException, withheld: int) -> None:
        """Record why an upload ended.

        `withheld` are the bytes that a client does not send when it is refused before `100 Continue`.
        """
        if isinstance(error, Refusal):
            error.upload_id = upload_id
            self.metrics.uploads.add(failure_reason(error))
        elif isinstance(error, UnknownOutcome):
            self.metrics.uploads.add("broken")
        progress = self.inflight.find(upload_id)
        if progress is None or progress.state == "admitting":
            if progress is not None:
                self.inflight.end_failed(progress, failure_reason(error), refusal_record(error))
            if isinstance(error, Refusal):
                self.metrics.unsent_bytes.inc(withheld)
            return
        committing, reason = progress.state == "committing", failure_reason(error)
        self.inflight.end_failed(progress, reason, refusal_record(error))
        if committing and not isinstance(error, Refusal):
            return  # interrupted or unanswered: it may be stored, the journal knows
        log.warning(
            "upload failed", extra=event("upload.failed", reason=reason, bytes=progress.received)
        )
        self.hooks.notify_upload_failed(progress.upload, reason, progress.received)

    def partial_ended(
        self, upload: Upload, reason: str, received: int, error: Refusal | None = None
    ) -> None:
        """Record the end of a partial upload that is not stored: cancelled, expired, or by `error`."""
        self.inflight.record_failed(upload, reason, received, refusal_record(error))
        self.hooks.notify_upload_failed(upload, reason, received)


def refusal_record(error: BaseException | None) -> dict[str, Any] | None:
    """Return what is told of a whole file that a handler of OnFileReceived refused, None otherwise."""
    if not isinstance(error, Terminated) or error.rejected_by is None:
        return None
    refusal = HandlerRefusal(error.status, error.body, error.content_type)
    return shown_refusal(error.rejected_by, refusal)


def failure_reason(error: BaseException) -> str:
    """Return the reason of an upload that failed: the code of a refusal, or what it failed of.

    It is `rejected` where a handler of OnFileReceived refused the whole file.
    """
    if isinstance(error, Terminated) and error.rejected_by is not None:
        return "rejected"
    if isinstance(error, Refusal):
        return error.code
    if isinstance(error, ClientDisconnected):
        return "connection_lost"
    if isinstance(error, asyncio.CancelledError):
        return "stopping"
    return "internal"
