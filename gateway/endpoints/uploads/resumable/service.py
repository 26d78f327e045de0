"""Resumable uploads: creates, appends to, describes, completes and cancels partial uploads.

The protocols translate requests into these operations. Each request is authenticated again; handlers of
OnFileUploading decide once, at creation. On the server's event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.auth.request import IncomingRequest
from gateway.commit.partials import OpenPartial
from gateway.domain import failpoints
from gateway.domain.partial import PARTIAL_TTL, PartialStatus, check_identity_order
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.admission import as_hook_failure
from gateway.endpoints.uploads.resumable.access import PartialAccess, not_found
from gateway.endpoints.uploads.resumable.completion import WholeChecks
from gateway.endpoints.uploads.resumable.creation import PartialAdmission
from gateway.endpoints.uploads.resumable.final_uploads import FinalUploads
from gateway.endpoints.uploads.resumable.handover import RunningRequest, refuse_gone
from gateway.endpoints.uploads.resumable.operations import (
    Announce,
    Append,
    Creation,
    PartialRefusal,
    PartialResult,
    UploadLimits,
    UploadTarget,
)
from gateway.endpoints.uploads.resumable.receiving import body_length
from gateway.endpoints.uploads.resumable.requests import PartialRequests
from gateway.errors import Refusal
from gateway.http.request_body import expects_continue


@dataclass(slots=True, frozen=True)
class ResumableUploads:
    """The operations of one process."""

    access: PartialAccess
    creation: PartialAdmission
    requests: PartialRequests
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
        async with (
            self.requests.running.created(opened.head.upload.id, running),
            self.requests.use(opened, progress),
        ):
            completion, announced = self.requests.completion, announce is not None
            async with completion.creating(opened, creation, is_announced=announced):
                if announce is not None:
                    await announce(self.access.describe_open(opened))
                await self.final.join(incoming, opened, parts)
                result = await self.requests.run_first(opened, running, progress, creation.body)
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
            failpoints.hit("after admit")
            try:
                if head.identity is not None:
                    await self._end_earlier(incoming, head.identity, upload_id)
                    refuse_gone(incoming.request)
                return await self.access.store.create(head), progress
            except Refusal as refusal:
                if failure := as_hook_failure(refusal, head.upload, target.match.path):
                    raise failure from refusal
                raise
        except BaseException as error:
            self.requests.outcomes.upload_failed(upload_id, error, withheld)
            raise

    async def _end_earlier(self, incoming: IncomingRequest, identity: str, upload_id: str) -> None:
        """Remove the upload that had the identity of a new one, which begins it anew.

        Raises `Refusal("locked")` where a newer request has begun it anew already.
        """
        earlier = await self.access.store.resolve(identity)
        check_identity_order(earlier, upload_id)
        if earlier is None or await self.access.store.status(earlier) is None:
            return
        refuse_gone(incoming.request)
        try:
            await self._remove(incoming, earlier)
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
        return await self.requests.append(incoming, partial, append, announce)

    async def append_to_range(
        self, incoming: IncomingRequest, resume_key: str, append: Append
    ) -> PartialResult:
        """See `PartialUploads.append_to_range`."""
        if append.length is not None:
            incoming.whole_lengths = (str(append.length),)
        upload_id = await self.access.resolve(incoming, resume_key)
        if upload_id is None:
            raise PartialRefusal("mismatching_offset", "no such upload has begun: begin at 0", None)
        partial = await self.access.find_by_id(incoming, upload_id)
        return await self.requests.append(incoming, partial, append, None)

    async def describe(
        self, incoming: IncomingRequest, reference: str, *, ends_by_length: bool = False
    ) -> PartialResult:
        """See `PartialUploads.describe`."""
        partial = await self.access.find(incoming, reference)
        return await self._describe(incoming, partial, ends_by_length=ends_by_length)

    async def find(self, incoming: IncomingRequest, resume_key: str) -> PartialResult | None:
        """See `PartialUploads.find`."""
        upload_id = await self.access.resolve(incoming, resume_key)
        if upload_id is None:
            return None
        try:
            partial = await self.access.find_by_id(incoming, upload_id)
            if resume_key or isinstance(partial, PartialResult):
                return await self._describe(incoming, partial, ends_by_length=True)
            return self.access.describe(partial)
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

    async def cancel_range(self, incoming: IncomingRequest, resume_key: str) -> None:
        """See `PartialUploads.cancel_range`."""
        upload_id = await self.access.resolve(incoming, resume_key)
        if upload_id is None:
            raise not_found()
        partial = await self.access.find_by_id(incoming, upload_id)
        if isinstance(partial, PartialResult):
            raise not_found()
        await self._remove(incoming, upload_id)

    async def _describe(
        self, incoming: IncomingRequest, partial: PartialStatus | PartialResult, *, ends_by_length: bool
    ) -> PartialResult:
        """End a running request and describe an upload, see `PartialUploads.describe`."""
        if isinstance(partial, PartialResult):
            return partial
        upload_id = partial.head.upload.id
        try:
            async with self.requests.opened(incoming, upload_id) as (opened, _, progress):
                by_length = ends_by_length or opened.head.protocol != "draft"
                if by_length and opened.offset == opened.length:
                    return await self.requests.completion.complete(opened, progress, WholeChecks())
                return self.access.describe_open(opened, partial.latest)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            return await self.access.find_completed(incoming, upload_id)

    async def _remove(self, incoming: IncomingRequest, upload_id: str) -> None:
        async with self.requests.running.opened(upload_id, incoming.request) as (opened, _):
            try:
                await self.requests.completion.cancel(opened)
            finally:
                await opened.close()
