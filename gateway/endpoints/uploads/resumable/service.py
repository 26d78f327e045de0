"""Resumable uploads: creates, appends to, describes, completes and cancels partial uploads.

The protocols translate requests into these operations. Each request is authenticated again; handlers of
OnFileUploading decide once, at creation. On the server's event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from gateway.auth.request import IncomingRequest
from gateway.commit.partials import OpenPartial
from gateway.domain.partial import PARTIAL_TTL, PartialStatus
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.admission import as_hook_failure
from gateway.endpoints.uploads.resumable.access import PartialAccess, not_found
from gateway.endpoints.uploads.resumable.completion import PartialCompletion, WholeChecks
from gateway.endpoints.uploads.resumable.creation import PartialAdmission
from gateway.endpoints.uploads.resumable.final_uploads import FinalUploads
from gateway.endpoints.uploads.resumable.handover import (
    AppendGoesOn,
    RunningRequest,
    RunningRequests,
)
from gateway.endpoints.uploads.resumable.operations import (
    Announce,
    Append,
    BodyTerms,
    Creation,
    PartialRefusal,
    PartialResult,
    UploadLimits,
    UploadTarget,
)
from gateway.endpoints.uploads.resumable.receiving import ENDS_UPLOAD, PartialReceiver, body_length
from gateway.errors import Refusal
from gateway.http.request_body import expects_continue


@dataclass(slots=True, frozen=True)
class ResumableUploads:
    """The operations of one process."""

    access: PartialAccess
    creation: PartialAdmission
    running: RunningRequests
    receiver: PartialReceiver
    completion: PartialCompletion
    final: FinalUploads

    def limits(self) -> UploadLimits:
        """See `PartialUploads.limits`."""
        return UploadLimits(self.access.admission.settings.max_bytes, PARTIAL_TTL)

    # -- creation

    async def create(
        self,
        incoming: IncomingRequest,
        target: UploadTarget,
        creation: Creation,
        announce: Announce | None = None,
    ) -> PartialResult:
        """See `PartialUploads.create`."""
        parts: Sequence[str] = ()
        if creation.concat is not None:
            creation, parts = await self.final.measure(incoming, creation, creation.concat)
        opened, progress = await self._create(incoming, target, creation)
        running = RunningRequest(incoming.request, at_offset=0)
        body, terms = creation.body, creation.body or BodyTerms()
        async with self.running.created(opened.head.upload.id, running), self._use(opened, progress):
            async with self.completion.creating(opened, creation, is_announced=announce is not None):
                if announce is not None:
                    await announce(self.access.describe_open(opened))
                await self.final.join(incoming, opened, parts)
                if body is not None:
                    await self._receive(opened, running, body, progress)
                checks = WholeChecks(wanted=terms.wanted)
                result = await self._settle_up(opened, progress, terms, checks)
            await self.final.remove(incoming, parts)
            return replace(result, concat=creation.concat)

    async def _create(
        self, incoming: IncomingRequest, target: UploadTarget, creation: Creation
    ) -> tuple[OpenPartial, Progress]:
        """Decide about a new upload, and create it. Raises `Refusal`: nothing is left of it."""
        upload_id, withheld = self.creation.new_id(incoming), 0
        try:
            if expects_continue(incoming.request):
                withheld = body_length(incoming.request) or 0
            head, progress = await self.creation.admit(incoming, target, creation, upload_id)
            try:
                if head.identity is not None:
                    await self._end_earlier(incoming, head.identity)
                return await self.running.store.create(head), progress
            except Refusal as refusal:
                if failure := as_hook_failure(refusal, head.upload, target.match):
                    raise failure from refusal
                raise
        except BaseException as error:
            self.completion.outcomes.upload_failed(upload_id, error, withheld)
            raise

    async def _end_earlier(self, incoming: IncomingRequest, identity: str) -> None:
        """Remove the upload that had this identity: a ranged upload that begins anew replaces it."""
        upload_id = await self.running.store.resolve(identity)
        if upload_id is None or await self.running.store.status(upload_id) is None:
            return
        try:
            await self._remove(incoming, upload_id)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise

    # -- what is there already

    async def append(
        self,
        incoming: IncomingRequest,
        reference: str,
        append: Append,
        announce: Announce | None = None,
    ) -> PartialResult:
        """See `PartialUploads.append`."""
        partial = await self.access.find(incoming, reference)
        return await self._append(incoming, partial, append, announce)

    async def append_to_range(
        self, incoming: IncomingRequest, resume_key: str, append: Append
    ) -> PartialResult:
        """See `PartialUploads.append_to_range`."""
        upload_id = await self.access.resolve(incoming, resume_key)
        if upload_id is None:
            raise PartialRefusal("mismatching_offset", "no such upload has begun: begin at 0", None)
        partial = await self.access.find_by_id(incoming, upload_id)
        return await self._append(incoming, partial, append, None)

    async def describe(self, incoming: IncomingRequest, reference: str) -> PartialResult:
        """See `PartialUploads.describe`."""
        partial = await self.access.find(incoming, reference)
        return await self._describe(incoming, partial)

    async def find(self, incoming: IncomingRequest, resume_key: str) -> PartialResult | None:
        """See `PartialUploads.find`."""
        upload_id = await self.access.resolve(incoming, resume_key)
        if upload_id is None:
            return None
        try:
            partial = await self.access.find_by_id(incoming, upload_id)
            return await self._describe(incoming, partial)
        except Refusal as refusal:
            if refusal.code == "not_found":
                return None
            raise

    async def cancel(self, incoming: IncomingRequest, reference: str) -> None:
        """See `PartialUploads.cancel`. One that is complete is `not_found`: it is a file now."""
        partial = await self.access.find(incoming, reference)
        if isinstance(partial, PartialResult):
            raise not_found()
        await self._remove(incoming, partial.head.upload.id)

    async def _describe(
        self, incoming: IncomingRequest, partial: PartialStatus | PartialResult
    ) -> PartialResult:
        """End a running request and describe an upload. What is whole is committed first.

        A protocol without a mark of the end takes the whole length for the end.
        """
        if isinstance(partial, PartialResult):
            return partial
        upload_id = partial.head.upload.id
        try:
            async with self._opened(incoming, upload_id) as (opened, _, progress):
                if opened.head.protocol != "draft" and opened.offset == opened.length:
                    return await self.completion.complete(opened, progress, WholeChecks())
                return self.access.describe_open(opened, partial.latest)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            return await self.access.find_completed(incoming, upload_id)

    async def _append(
        self,
        incoming: IncomingRequest,
        partial: PartialStatus | PartialResult,
        append: Append,
        announce: Announce | None,
    ) -> PartialResult:
        if isinstance(partial, PartialResult):
            raise _mismatch(partial)
        upload_id = partial.head.upload.id
        try:
            async with self._opened(incoming, upload_id, append.offset) as (opened, running, progress):
                if append.offset != opened.offset:
                    raise _mismatch(self.access.describe_open(opened, partial.latest))
                await self._check_lengths(opened, append, body_length(incoming.request))
                if announce is not None:
                    await announce(self.access.describe_open(opened))
                await self._receive(opened, running, append.body, progress)
                checks = WholeChecks(append.digests, append.body.wanted)
                return await self._settle_up(opened, progress, append.body, checks)
        except AppendGoesOn:
            latest = await self.access.find_by_id(incoming, upload_id)
            result = self.access.describe(latest) if isinstance(latest, PartialStatus) else latest
            raise _mismatch(result) from None

    async def _check_lengths(self, opened: OpenPartial, append: Append, declared: int | None) -> None:
        """Compare what a request tells of the length with what is known; fix a new one durably.

        Raises `PartialRefusal`: `inconsistent_length`, after which the upload can go on; `too_large`.
        """
        length, limit = append.length, opened.head.upload.max_bytes
        end = None if declared is None else opened.offset + declared
        if length is not None and opened.length not in {None, length}:
            raise self._inconsistent(opened, f"the file has {opened.length} bytes, not {length}")
        if length is not None and length < opened.offset:
            raise self._inconsistent(opened, f"{opened.offset} bytes have come already")
        whole = opened.length if length is None else length
        if append.body.completes and None not in (whole, end) and whole != end:
            raise self._inconsistent(opened, f"the last byte is number {end}, the file has {whole}")
        if length is not None and opened.length is None:
            if limit is not None and length > limit:
                refusal = Refusal("too_large", f"{length} bytes are declared, {limit} are allowed")
                raise await self.completion.refused(opened, refusal)
            await opened.set_length(length)

    def _inconsistent(self, opened: OpenPartial, reason: str) -> PartialRefusal:
        result = self.access.describe_open(opened)
        return PartialRefusal("inconsistent_length", f"the lengths contradict: {reason}", result)

    async def _remove(self, incoming: IncomingRequest, upload_id: str) -> None:
        async with self.running.opened(upload_id, incoming.request) as (opened, _):
            try:
                await self.completion.cancel(opened)
            finally:
                await opened.close()

    async def _receive(
        self, opened: OpenPartial, running: RunningRequest, terms: BodyTerms, progress: Progress
    ) -> None:
        """Receive the body of a request. Raises `PartialRefusal`, `ClientDisconnected`."""
        protocol, appends = opened.head.protocol, self.completion.outcomes.metrics.partials.appends
        progress.state = "receiving"
        try:
            await self.receiver.receive(opened, running, terms, progress)
        except Refusal as refusal:
            appends.add(protocol, "refused")
            ends = refusal.code in ENDS_UPLOAD
            raise await self.completion.refused(opened, refusal, ends=ends) from refusal
        except BaseException:
            appends.add(protocol, "superseded" if running.superseded else "cut")
            raise
        appends.add(protocol, "whole")

    async def _settle_up(
        self, opened: OpenPartial, progress: Progress, terms: BodyTerms, checks: WholeChecks
    ) -> PartialResult:
        """Complete an upload whose last byte has come; describe any other."""
        completes, offset, length = terms.completes, opened.offset, opened.length
        if completes is None:
            completes = offset == length
        if not completes:
            return self.access.describe_open(opened)
        if length is not None and offset != length:
            raise self._inconsistent(opened, f"the last byte is number {offset}, the file has {length}")
        return await self.completion.complete(opened, progress, checks)

    @asynccontextmanager
    async def _opened(
        self, incoming: IncomingRequest, upload_id: str, offset: int | None = None
    ) -> AsyncIterator[tuple[OpenPartial, RunningRequest, Progress]]:
        """Open an upload for a request, and count it as in flight."""
        opening = self.running.opened(upload_id, incoming.request, offset)
        async with opening as (opened, running), self._use(opened) as progress:
            yield opened, running, progress

    @asynccontextmanager
    async def _use(
        self, opened: OpenPartial, progress: Progress | None = None
    ) -> AsyncIterator[Progress]:
        """Let go of an upload at the end of a request, whatever that is."""
        inflight = self.access.admission.inflight
        try:
            yield progress or inflight.begin_upload(opened.head.upload)
        finally:
            inflight.end_upload(opened.head.upload.id)
            await opened.close()


def _mismatch(result: PartialResult) -> PartialRefusal:
    message = f"the upload goes on at the offset {result.offset}"
    return PartialRefusal("mismatching_offset", message, result)
