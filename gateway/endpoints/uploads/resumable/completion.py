"""Ends partial uploads: commits what is whole, removes what is refused, cancelled or expired."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from gateway.commit.partials import OpenPartial
from gateway.domain.digests import algorithms_of, named_digests
from gateway.domain.held import Held
from gateway.domain.model import Upload
from gateway.domain.partial import DigestOfWhole
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.decision import ReceivedDecisions, WholeUpload
from gateway.endpoints.uploads.digests import ExpectedDigest
from gateway.endpoints.uploads.outcomes import UploadOutcomes, failure_reason
from gateway.endpoints.uploads.resumable.access import PartialAccess
from gateway.endpoints.uploads.resumable.operations import (
    Creation,
    PartialRefusal,
    PartialResult,
    PartialTerminated,
)
from gateway.errors import RETRY_AFTER_SECONDS, ClientDisconnected, Refusal, Terminated, UnknownOutcome
from gateway.storage.waiting import finish
from gateway.telemetry import tracing
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")

_MAY_SUCCEED_LATER: Final = 500
"""From this status on a refusal is the gateway's, and the upload can go on."""

_NEVER_SUCCEED: Final = frozenset({"other_file_system", "not_implemented"})


def ends_upload(refusal: Refusal) -> bool:
    """Tell whether an upload that is refused at its end can never be stored."""
    if refusal.code in RETRY_AFTER_SECONDS:
        return False
    return refusal.status < _MAY_SUCCEED_LATER or refusal.code in _NEVER_SUCCEED


@dataclass(slots=True, frozen=True)
class WholeChecks:
    """What is checked, and computed, when an upload is whole: digests beside those of its creation."""

    digests: Sequence[ExpectedDigest] = ()
    wanted: Sequence[str] = ()


@dataclass(slots=True, frozen=True)
class PartialCompletion:
    """Commits and ends partial uploads. On the server's event loop.

    `computed_digest` is the algorithm of `--digest`.
    """

    access: PartialAccess
    outcomes: UploadOutcomes
    decisions: ReceivedDecisions
    computed_digest: str | None = None

    async def complete(
        self, opened: OpenPartial, progress: Progress, checks: WholeChecks
    ) -> PartialResult:
        """Commit an upload whose last byte has come.

        Raises `PartialRefusal`: the upload is over, or can be completed later; `UnknownOutcome`.
        """
        head = opened.head
        head.upload.traceparent = tracing.current().traceparent  # of the request that completes it
        if opened.length is None:
            await opened.set_length(opened.offset)
        if head.part_of_concat:
            return self.access.describe_open(opened, is_complete=True)
        progress.state = "committing"
        try:
            digests = await self._digests_of_whole(opened, checks)
            commit = partial(opened.commit, digests)
            whole = WholeUpload(head.upload, opened, digests, progress, commit)
            stored = await self.decisions.complete(whole, await self.decisions.decide(whole))
        except Refusal as refusal:
            raise await self.refused(opened, refusal) from refusal
        self.outcomes.upload_stored(stored)
        self._count_end("held" if isinstance(stored, Held) else "stored")
        result = self.access.describe_open(opened, is_complete=True)
        return replace(result, offset=stored.bytes, length=stored.bytes, stored=stored)

    async def _digests_of_whole(self, opened: OpenPartial, checks: WholeChecks) -> dict[str, str]:
        """Compare the digests of all bytes with the expected ones. Raises `Refusal("digest_mismatch")`.

        Returns those that RFC 9530 has a name for, by this name, in base64.
        """
        expected: list[DigestOfWhole | ExpectedDigest] = [*opened.head.digests, *checks.digests]
        algorithms = algorithms_of([digest.algorithm for digest in expected], None)
        computed = dict(await opened.digest_of_whole(algorithms)) if algorithms else {}
        for digest in expected:
            if not hmac.compare_digest(computed[digest.algorithm], digest.value):
                raise Refusal("digest_mismatch", f"the file does not have the digest in {digest.header}")
        for algorithm in algorithms_of(checks.wanted, self.computed_digest):
            if algorithm not in computed and opened.can_digest(algorithm):
                computed |= await opened.digest_of_whole([algorithm])
        return named_digests(computed)

    async def refused(
        self, opened: OpenPartial, refusal: Refusal, *, ends: bool | None = None
    ) -> PartialRefusal:
        """Return the refusal of a request of an upload, and end the upload where that has to be."""
        if ends is None:
            ends = ends_upload(refusal)
        if ends:
            await opened.remove()
            reason = failure_reason(refusal)
            self.outcomes.metrics.uploads.add(reason)
            self.ended(opened.head.upload, reason, opened.offset, "refused", refusal)
        result = self.access.describe_open(opened)
        return with_result(refusal, result, keeps=not ends)

    @asynccontextmanager
    async def creating(
        self, opened: OpenPartial, creation: Creation, *, is_announced: bool
    ) -> AsyncIterator[None]:
        """Remove a new upload whose creation fails, where its client cannot go on with it.

        Without a response there is no URL, and tus has none in the response to a failure. Such uploads
        would count against the client's share until they expire.
        """
        try:
            yield
        except BaseException as error:
            if self._may_be_stored(opened, error):
                is_lost = False
            elif isinstance(error, PartialRefusal):
                is_lost = creation.protocol == "tus" and error.keeps
                error.keeps = error.keeps and not is_lost
            else:
                is_lost = not is_announced and creation.resume_key is None
            if is_lost:
                await finish(asyncio.ensure_future(opened.remove()))
                reason = failure_reason(error)
                self.ended(opened.head.upload, reason, opened.offset, "refused")
            raise

    def _may_be_stored(self, opened: OpenPartial, error: BaseException) -> bool:
        """Tell whether an upload may be stored although its request ended: it has not failed then."""
        progress = self.outcomes.inflight.find(opened.head.upload.id)
        is_stored = progress is None  # it was counted out
        is_committing = progress is not None and progress.state == "committing"
        if isinstance(error, UnknownOutcome) and not isinstance(error, ClientDisconnected):
            return True
        return not isinstance(error, Refusal) and (is_stored or is_committing)

    async def cancel(self, opened: OpenPartial) -> None:
        """Remove an upload that its client cancelled. Raises `Refusal`: it is still there."""
        if not await opened.remove():
            raise Refusal("storage_unavailable", "the upload could not be removed now: try again")
        self.ended(opened.head.upload, "cancelled", opened.offset, "cancelled")

    def ended(
        self, upload: Upload, reason: str, received: int, how: str, refusal: Refusal | None = None
    ) -> None:
        """Record the end of an upload that was not stored; OnFileUploadFailed is emitted."""
        log.info(
            "a partial upload has ended",
            extra=event("partial.ended", upload_id=upload.id, reason=reason, bytes=received),
        )
        self._count_end(how)
        self.outcomes.partial_ended(upload, reason, received, refusal)

    def _count_end(self, how: str) -> None:
        self.outcomes.metrics.partials.ended.add(how)


def with_result(refusal: Refusal, result: PartialResult, *, keeps: bool) -> PartialRefusal:
    """Return a refusal with what can be told of the upload."""
    shown: PartialRefusal
    if isinstance(refusal, Terminated):
        shown = PartialTerminated(refusal, result, keeps=keeps)
    else:
        shown = PartialRefusal(
            refusal.code, refusal.message, result, keeps=keeps, headers=refusal.headers
        )
    shown.upload_id = result.upload_id
    return shown
