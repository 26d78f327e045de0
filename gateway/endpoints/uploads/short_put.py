"""`PUT` of a small file whose body came with its head: the steps of `handler`, without a task.

What would be refused or waited for before the upload counts is left to the ordinary path. From there on
the upload is this one's: every end is recorded and answered as the ordinary path does.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context, copy_context

from gateway.commit.committer import Done
from gateway.commit.local_writer import LocalWriter
from gateway.commit.quotas.writer import QuotaWriter
from gateway.domain import failpoints
from gateway.domain.held import add_result
from gateway.domain.model import UPLOADING, Stored, Upload, new_id
from gateway.domain.path_template import PathMatch
from gateway.endpoints.inflight import Progress
from gateway.endpoints.short_path import ShortExchange
from gateway.endpoints.uploads.admission import Admission, DescribedUpload, as_hook_failure
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.endpoints.uploads.received_shadows import ReceivedShadows
from gateway.endpoints.uploads.stored_response import stored_response
from gateway.errors import ClientDisconnected, Refusal, UnknownOutcome
from gateway.plugins.admission_chain import AdmissionChain
from gateway.plugins.scripting.decision import Changes
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")


class ShortUploads:
    """The small uploads of one process, on the server's event loop. `slot` goes into upload ids."""

    def __init__(
        self,
        admission: Admission,
        writer: LocalWriter,
        counting: QuotaWriter,
        outcomes: UploadOutcomes,
        slot: int,
        shadows: ReceivedShadows | None = None,
    ) -> None:
        self.admission = admission
        self._writer = writer
        self._counting = counting
        self.outcomes = outcomes
        self._slot = slot
        self.shadows = shadows
        self._admitting: set[_ShortUpload] = set()
        self._storing: set[asyncio.Task[None]] = set()

    def take(self, exchange: ShortExchange, match: PathMatch) -> bool:
        """Serve an upload, or leave it without any side effect. Raises `Refusal` to leave it too."""
        admission, content = self.admission, exchange.body
        described = None
        if len(content) <= MAX_IN_MEMORY_BYTES:
            described = admission.describe(exchange.head, match, new_id(self._slot))
        if described is None or not described.is_plain:
            return False
        upload = described.upload
        if admission.decides_received(upload):
            return False
        admission.authorize(upload.principal)
        admission.check_file(upload, match)
        decided_by_handlers = admission.has_handlers()
        if not decided_by_handlers:
            admission.accept(upload, match)
        if admission.rates is not None and admission.rates.waits:
            return False
        progress = admission.inflight.begin_upload(upload)
        short = _ShortUpload(self, exchange, match, described, progress, content)
        exchange.head.facts.upload_id = upload.id
        try:
            exchange.begin()
            upload.traceparent = exchange.facts.span.traceparent
            if admission.rates is not None:
                exchange.rate_headers = admission.rates.count_now(upload)
            if decided_by_handlers:
                self._admitting.add(short)
                short.start_handlers()
            else:
                admission.hooks.shadows.beside_default(UPLOADING, upload)
                short.commit()
        except Exception as error:
            short.fail(error)
        return True

    def store(self, upload: Upload, content: bytes, done: Done) -> None:
        """Commit a body, see `Committer.submit`; one that counts for quotas waits in a task."""
        if not self._counting.count(upload):
            self._writer.submit(upload, content, done)
            return
        task = asyncio.create_task(self._store_counted(upload, content, done))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def _store_counted(self, upload: Upload, content: bytes, done: Done) -> None:
        try:
            outcome: Stored | Exception = await self._counting.store(upload, content, from_client=True)
        except Exception as error:
            outcome = error
        except asyncio.CancelledError:  # the loop ends
            outcome = UnknownOutcome("the upload was not committed before the end of the process")
        done(outcome)

    def ended_admission(self, short: _ShortUpload) -> None:
        """Note that the handlers of an upload have decided."""
        self._admitting.discard(short)

    def cancel_admissions(self) -> None:
        """Cut off the uploads whose handlers still run: the gateway stops."""
        for short in tuple(self._admitting):
            short.cancel()
        self._admitting.clear()


class _ShortUpload:
    """One upload, from when it counts until its response."""

    __slots__ = (
        "_chain", "_content", "_context", "_described", "_exchange", "_match", "_progress", "_uploads",
    )  # fmt: skip

    def __init__(
        self,
        uploads: ShortUploads,
        exchange: ShortExchange,
        match: PathMatch,
        described: DescribedUpload,
        progress: Progress,
        content: bytes,
    ) -> None:
        self._uploads = uploads
        self._exchange = exchange
        self._match = match
        self._described = described
        self._progress = progress
        self._content = content
        self._chain: AdmissionChain[Changes] | None = None
        self._context: Context | None = None

    @property
    def _upload(self) -> Upload:
        return self._described.upload

    # -- admission by handlers

    def start_handlers(self) -> None:
        """Let the handlers decide; what they log is of this request."""
        with self._exchange.context():
            self._context = copy_context()
            self._chain = self._uploads.admission.hooks.submit_admission(self._upload, self._decided)

    def _decided(self, error: Exception | None) -> None:
        self._uploads.ended_admission(self)
        if error is not None or self._context is None:
            self.fail(error or RuntimeError("the handlers have not been started"))
            return
        try:
            self._context.run(self._accept)
            self.commit()
        except Exception as refusal:
            self.fail(refusal)

    def _accept(self) -> None:
        admission = self._uploads.admission
        admission.accept(self._upload, self._match)
        if admission.decides_received(self._upload):  # here nobody would ask them
            raise Refusal("hook_failed", "handlers have been loaded meanwhile: send the file again")

    def cancel(self) -> None:
        """Cut off the handlers, and close the connection without a response."""
        if self._chain is not None:
            self._chain.cancel()
        self._uploads.outcomes.upload_failed(self._upload.id, asyncio.CancelledError(), 0)
        self._exchange.fail(ClientDisconnected("the gateway stops"))

    # -- commit

    def commit(self) -> None:
        """Hand the body to the committer. Raises `Refusal`."""
        failpoints.hit("after admit")
        self._described.start_commit(self._progress, len(self._content))
        content, self._content = self._content, b""
        self._uploads.store(self._upload, content, self._committed)

    def _committed(self, outcome: Stored | Exception) -> None:
        if isinstance(outcome, Exception):
            self.fail(outcome)
            return
        try:
            self._uploads.outcomes.upload_stored(outcome)
            if (shadows := self._uploads.shadows) is not None:
                shadows.after_commit(self._upload, outcome)
            self._exchange.log_fields = {"bytes": outcome.bytes}
            urls = self._uploads.outcomes.urls
            self._exchange.respond(stored_response(add_result(outcome, self._upload), urls))
        except Exception:
            # The file is stored: no other response is true, and the client must not wait for one.
            log.exception("an answer to an upload failed", extra=event("upload.unanswered"))
            self._exchange.fail(UnknownOutcome("the response to a stored upload failed"))

    def fail(self, error: Exception) -> None:
        """Record and answer an upload that was not stored, or may not have been."""
        try:
            with self._exchange.context():
                if isinstance(error, Refusal):
                    error = as_hook_failure(error, self._upload, self._match.path) or error
                self._uploads.outcomes.upload_failed(self._upload.id, error, 0)
        except Exception:  # a mistake of our own: the client must not wait because of it
            log.exception("the end of an upload was not recorded", extra=event("upload.unrecorded"))
        self._exchange.fail(error)
