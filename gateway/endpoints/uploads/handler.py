"""`PUT`: admit, receive, commit, respond.

There is one way to a 2xx, through the commit. Every other end discards the body, and is recorded.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from gateway.auth.request import IncomingRequest, RequestHead
from gateway.commit.writer import PendingWrite, StorageWriter
from gateway.domain import failpoints
from gateway.domain.digests import algorithms_of, named_digests
from gateway.domain.held import Held, add_result
from gateway.domain.model import Stored, new_id
from gateway.domain.path_template import PathMatch
from gateway.endpoints.inflight import Progress
from gateway.endpoints.short_path import ShortExchange
from gateway.endpoints.uploads.admission import Admission, DescribedUpload, as_hook_failure
from gateway.endpoints.uploads.body import BodyReceiver, WholeBody, body_is_buffered, read_buffered
from gateway.endpoints.uploads.decision import ReceivedDecisions, WholeUpload
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.endpoints.uploads.short_put import ShortUploads
from gateway.endpoints.uploads.stored_response import stored_response
from gateway.errors import Refusal
from gateway.http.protocol import RATE_LIMITS
from gateway.http.request_body import expects_continue, send_continue_or_disconnect
from gateway.http.responses import Response
from gateway.telemetry import logs

Receive = Callable[[DescribedUpload, Progress], Awaitable[Stored | Held]]
"""Receives the body of an admitted upload, and commits or holds it."""


@dataclass(slots=True, frozen=True)
class UploadHandler:
    """Serves the uploads of one process, on the server's event loop. `slot` goes into upload ids.

    `short` serves small ones without a task; None where the storage is not the local disk.
    """

    admission: Admission
    writer: StorageWriter
    receiver: BodyReceiver
    outcomes: UploadOutcomes
    slot: int
    short: ShortUploads | None
    decisions: ReceivedDecisions

    async def put(self, incoming: IncomingRequest, match: PathMatch) -> Response:
        """Serve one upload. Raises `Refusal` (nothing stored), `UnknownOutcome`."""
        stored = await self.store(
            incoming, match, incoming.request, partial(self._store, incoming.request)
        )
        logs.add_fields(bytes=stored.bytes)
        status, headers, content = stored_response(stored, self.outcomes.urls)
        return Response(status=status, headers=headers, body=content)

    async def store(
        self, head: RequestHead, match: PathMatch, request: web.BaseRequest, receive: Receive
    ) -> Stored | Held:
        """Admit an upload and `receive` it; record how it ends.

        `head` describes it; `request` may bring several. Raises `Refusal` (nothing stored),
        `UnknownOutcome`.
        """
        upload_id, withheld = new_id(self.slot), 0
        head.facts.upload_id = upload_id
        logs.add_fields(upload_id=upload_id)
        try:
            if "Expect" in head.headers and expects_continue(request):
                withheld = int(request.headers.get("Content-Length", 0))
            described, progress = await self.admission.admit(head, match, upload_id)
            request[RATE_LIMITS] = described.rate_headers or {}
            try:
                stored = await receive(described, progress)
            except Refusal as refusal:
                if failure := as_hook_failure(refusal, described.upload, match.path):
                    raise failure from refusal
                raise
        except BaseException as error:
            self.outcomes.upload_failed(upload_id, error, withheld)
            raise
        self.outcomes.upload_stored(stored)
        return stored

    def take_short(self, exchange: ShortExchange, match: PathMatch) -> bool:
        """Serve a whole small request at once, or leave it to the ordinary path."""
        return self.short is not None and self.short.take(exchange, match)

    def cancel_admissions(self) -> None:
        """Cut off the uploads of the short path whose handlers still run: the gateway stops."""
        if self.short is not None:
            self.short.cancel_admissions()

    async def _store(
        self, request: web.BaseRequest, described: DescribedUpload, progress: Progress
    ) -> Stored | Held:
        """Receive the body of a PUT, and commit or hold it."""
        decides = self.admission.decides_received(described.upload)
        if body_is_buffered(request) and not described.expected_digests and not decides:
            failpoints.hit("after admit")
            content = read_buffered(request)
            described.start_commit(progress, len(content))
            stored = await self.writer.store(described.upload, content, from_client=True)
            self.decisions.shadows.after_commit(described.upload, stored)
            return add_result(stored, described.upload)

        async def receive_body(pending: PendingWrite) -> None:
            if expects_continue(request):
                await send_continue_or_disconnect(request)
            await self.receiver.receive_body(request, WholeBody(progress), pending)

        return await self.receive_and_commit(described, progress, receive_body, request)

    async def receive_and_commit(
        self,
        described: DescribedUpload,
        progress: Progress,
        receive_body: Callable[[PendingWrite], Awaitable[None]],
        request: web.BaseRequest,
    ) -> Stored | Held:
        """Begin a body, let `receive_body` bring its bytes, verify it; commit it as handlers decide."""
        upload, must_exist = described.upload, described.must_exist
        staged = self.admission.decides_received(upload)
        # Handlers are told the digest of `--digest` too; else the commit computes it.
        computed = self.admission.settings.computed_digest if staged else None
        expected = [digest.algorithm for digest in described.expected_digests]
        algorithms = algorithms_of(expected, computed)
        pending = await self.writer.begin(upload, algorithms, must_exist=must_exist, staged=staged)
        try:
            failpoints.hit("after admit")
            progress.state = "receiving"
            await receive_body(pending)
            described.check_whole(progress.received)
            await pending.finish()
            digests = _verified_digests(described, pending, algorithms)
            commit = partial(pending.commit, digests, from_client=True)
            whole = WholeUpload(upload, pending, digests, progress, commit, request)
            holding = await self.decisions.decide(whole)
        except BaseException:
            await pending.discard()
            raise
        return await self.decisions.complete(whole, holding)


def _verified_digests(
    described: DescribedUpload, pending: PendingWrite, algorithms: Sequence[str]
) -> dict[str, str]:
    """Compare the body's digests with the expected ones. Raises `Refusal("digest_mismatch")`.

    Returns those of `algorithms` that RFC 9530 has a name for, by this name, in base64.
    """
    digests = {algorithm: pending.digest(algorithm) for algorithm in algorithms}
    for expected in described.expected_digests:
        if not hmac.compare_digest(digests[expected.algorithm], expected.value):
            raise Refusal(
                expected.mismatch_code, f"the bytes received do not have the digest in {expected.header}"
            )
    return named_digests(digests)
