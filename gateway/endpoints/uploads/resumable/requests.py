"""Runs requests on partial uploads that are open: checks lengths, receives, completes, lets go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.auth.request import IncomingRequest
from gateway.commit.partials import OpenPartial, PartialLost
from gateway.domain.partial import PartialStatus
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.endpoints.uploads.resumable.access import PartialAccess
from gateway.endpoints.uploads.resumable.completion import PartialCompletion, WholeChecks
from gateway.endpoints.uploads.resumable.handover import (
    RETRY_INTERVAL,
    TAKEOVER_TIMEOUT,
    AppendGoesOn,
    RunningRequest,
    RunningRequests,
    refuse_gone,
)
from gateway.endpoints.uploads.resumable.operations import (
    Announce,
    Append,
    BodyTerms,
    PartialRefusal,
    PartialResult,
    mismatch,
)
from gateway.endpoints.uploads.resumable.receiving import ENDS_UPLOAD, PartialReceiver, body_length
from gateway.endpoints.uploads.whole_file import check_resumable
from gateway.errors import ClientDisconnected, Refusal
from gateway.http.header_fields import read_headers
from gateway.http.request_body import read_small_body

LONGEST_RETRY_INTERVAL: Final = 0.5
"""Seconds between two tries, later on: in a bucket each takes some requests."""


@dataclass(slots=True, frozen=True)
class PartialRequests:
    """The steps of requests on one partial upload. On the server's event loop."""

    access: PartialAccess
    running: RunningRequests
    receiver: PartialReceiver
    completion: PartialCompletion

    @property
    def outcomes(self) -> UploadOutcomes:
        """Where the ends of uploads are recorded."""
        return self.completion.outcomes

    async def run_first(
        self,
        opened: OpenPartial,
        running: RunningRequest,
        progress: Progress,
        terms: BodyTerms | None,
    ) -> PartialResult:
        """Take the body of the request that created an upload; None: it has none to be stored."""
        if terms is not None:
            await self.receive(opened, running, terms, progress)
        terms = terms or BodyTerms()
        return await self.finish_request(opened, progress, terms, WholeChecks(wanted=terms.wanted))

    async def append(
        self,
        incoming: IncomingRequest,
        partial: PartialStatus | PartialResult,
        append: Append,
        announce: Announce | None,
    ) -> PartialResult:
        """Append the body of a request. Raises `PartialRefusal`, `Refusal`, `ClientDisconnected`."""
        check_resumable(read_headers(incoming.headers).lines, incoming.params, append.length)
        if isinstance(partial, PartialResult):
            raise mismatch(partial)
        upload_id = partial.head.upload.id
        deadline, interval = time.monotonic() + TAKEOVER_TIMEOUT, RETRY_INTERVAL
        while True:
            try:
                return await self._append(incoming, partial, append, announce)
            except AppendGoesOn:
                latest = await self.access.find_by_id(incoming, upload_id)
                result = self.access.describe(latest) if isinstance(latest, PartialStatus) else latest
                if result.offset != append.offset or time.monotonic() > deadline:
                    raise mismatch(result) from None
            # An offset is told when it is durable, some moments before its request lets go.
            refuse_gone(incoming.request)
            await asyncio.sleep(interval)
            interval = min(2 * interval, LONGEST_RETRY_INTERVAL)

    async def _append(
        self,
        incoming: IncomingRequest,
        partial: PartialStatus,
        append: Append,
        announce: Announce | None,
    ) -> PartialResult:
        """See `append`. Raises also `AppendGoesOn`, before anything is read or changed."""
        upload_id = partial.head.upload.id
        try:
            async with self.opened(incoming, upload_id, append.offset) as (opened, running, progress):
                checks = WholeChecks(append.digests, append.body.wanted)
                if append.offset != opened.offset:
                    if await _repeats_end(opened, append, incoming.request):
                        return await self.completion.complete(opened, progress, checks)
                    raise mismatch(self.access.describe_open(opened, partial.latest))
                self._check_digests(opened, append)
                await self._check_lengths(opened, append, body_length(incoming.request))
                if announce is not None:
                    await announce(self.access.describe_open(opened))
                await self.receive(opened, running, append.body, progress)
                return await self.finish_request(opened, progress, append.body, checks)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            raise mismatch(await self.access.find_completed(incoming, upload_id)) from None

    def _check_digests(self, opened: OpenPartial, append: Append) -> None:
        """Raise `PartialRefusal` for a digest of the whole that could not be verified at the end."""
        for digest in append.digests:
            if not opened.can_digest(digest.algorithm):
                message = f"{digest.header}: here the first request of an upload must have it"
                raise PartialRefusal("bad_digest", message, self.access.describe_open(opened))

    async def _check_lengths(self, opened: OpenPartial, append: Append, declared: int | None) -> None:
        """Compare what a request tells of the length with what is known; fix a new one durably.

        Raises `PartialRefusal`: `inconsistent_length`, after which the upload can go on; `too_large` and
        `length_exceeded` (bytes past the length), which end it.
        """
        length, limit = append.length, opened.head.upload.max_bytes
        end = None if declared is None else opened.offset + declared
        if length is not None and opened.length not in {None, length}:
            raise self._inconsistent(opened, f"the file has {opened.length} bytes, not {length}")
        if length is not None and length < opened.offset:
            raise self._inconsistent(opened, f"{opened.offset} bytes have come already")
        whole = opened.length if length is None else length
        if whole is not None and end is not None and end > whole:
            refusal = Refusal("length_exceeded", f"the file has {whole} bytes, and no more are taken")
            raise await self.completion.refused(opened, refusal, ends=True)
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

    async def receive(
        self, opened: OpenPartial, running: RunningRequest, terms: BodyTerms, progress: Progress
    ) -> None:
        """Receive the body of a request. Raises `PartialRefusal`, `ClientDisconnected`."""
        protocol, appends = opened.head.protocol, self.outcomes.metrics.partials.appends
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

    async def finish_request(
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
    async def opened(
        self, incoming: IncomingRequest, upload_id: str, offset: int | None = None
    ) -> AsyncIterator[tuple[OpenPartial, RunningRequest, Progress]]:
        """Open an upload for a request, and count it as in flight."""
        opening = self.running.opened(upload_id, incoming.request, offset)
        async with opening as (opened, running), self.use(opened) as progress:
            yield opened, running, progress

    @asynccontextmanager
    async def use(
        self, opened: OpenPartial, progress: Progress | None = None
    ) -> AsyncIterator[Progress]:
        """Let go of an upload at the end of a request, whatever that is. Raises `ClientDisconnected`."""
        inflight = self.access.admission.inflight
        try:
            yield progress or inflight.begin_upload(opened.head.upload)
        except PartialLost as error:  # what becomes of the upload is told to the newer request
            raise ClientDisconnected("another gateway has taken the upload over") from error
        finally:
            inflight.end_upload(opened.head.upload.id)
            await opened.close()


async def _repeats_end(opened: OpenPartial, append: Append, request: web.BaseRequest) -> bool:
    """Tell whether a range is the last byte of a file that has come and is not committed, once more.

    curl has no request for a file of which nothing is missing: no HEAD tells it that offset.
    """
    if opened.head.identity is None or append.body.digests:
        return False
    if not opened.length == opened.offset == append.length == append.offset + 1:
        return False
    last, repeated = await opened.last_byte(), await read_small_body(request, 1)
    return len(repeated) == 1 and last in {None, repeated}
