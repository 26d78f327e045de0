"""`PUT`: admit, receive, commit, respond.

There is one way to a 2xx, through the commit. Every other end discards the body, and is recorded.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from dataclasses import dataclass

from aiohttp import web

from gateway.auth.request import IncomingRequest
from gateway.commit.writer import PendingWrite, StorageWriter
from gateway.domain import failpoints
from gateway.domain.model import Stored, new_id
from gateway.domain.path_template import PathMatch
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.short_path import ShortExchange
from gateway.endpoints.uploads.admission import Admission, AdmittedUpload, as_hook_failure
from gateway.endpoints.uploads.body import BodyReceiver, body_is_buffered, check_received, read_buffered
from gateway.endpoints.uploads.digests import RFC_NAMES, digest_field
from gateway.errors import ClientDisconnected, Refusal, UnknownOutcome
from gateway.http.protocol import UPLOAD_ID
from gateway.http.request_body import expects_continue, send_continue_or_disconnect
from gateway.http.responses import SmallJsonResponse, encode_json_string
from gateway.plugins.hooks import Hooks
from gateway.telemetry import logs
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.uploads")


@dataclass(slots=True, frozen=True)
class UploadOutcomes:
    """Records how uploads end: status page, counters, log, OnFileUploadFailed. On the server's loop."""

    inflight: Inflight
    metrics: Metrics
    hooks: Hooks

    def upload_stored(self, stored: Stored) -> None:
        """Record a committed upload."""
        if (progress := self.inflight.find(stored.upload_id)) is not None:
            self.inflight.end_upload(progress)
        self.metrics.uploads.add("stored")
        self.metrics.received_bytes.add(amount=stored.bytes)

    def upload_failed(self, upload_id: str, error: BaseException, withheld: int) -> None:
        """Record why an upload ended.

        `withheld` are the bytes that a client does not send when it is refused before `100 Continue`.
        """
        if isinstance(error, Refusal):
            error.upload_id = upload_id
            self.metrics.uploads.add(error.code)
        elif isinstance(error, UnknownOutcome):
            self.metrics.uploads.add("broken")
        progress = self.inflight.find(upload_id)
        if progress is None or progress.state == "admitting":
            if progress is not None:
                self.inflight.end_upload(progress, _reason(error))
            if isinstance(error, Refusal):
                self.metrics.unsent_bytes.inc(withheld)
            return
        committing, reason = progress.state == "committing", _reason(error)
        self.inflight.end_upload(progress, reason)
        if committing and not isinstance(error, Refusal):
            return  # interrupted or unanswered: it may be stored, the journal knows
        log.warning(
            "upload failed", extra=event("upload.failed", reason=reason, bytes=progress.received)
        )
        self.hooks.notify_upload_failed(progress.upload, reason, progress.received)


def _reason(error: BaseException) -> str:
    if isinstance(error, Refusal):
        return error.code
    if isinstance(error, ClientDisconnected):
        return "connection_lost"
    if isinstance(error, asyncio.CancelledError):
        return "stopping"
    return "internal"


@dataclass(slots=True, frozen=True)
class UploadHandler:
    """Serves the uploads of one process, on the server's event loop. `slot` goes into upload ids."""

    admission: Admission
    writer: StorageWriter
    receiver: BodyReceiver
    outcomes: UploadOutcomes
    slot: int

    async def put(self, incoming: IncomingRequest, match: PathMatch) -> SmallJsonResponse:
        """Serve one upload. Raises `Refusal` (nothing stored), `UnknownOutcome`."""
        request, upload_id = incoming.request, new_id(self.slot)
        request[UPLOAD_ID] = upload_id
        logs.add_fields(upload_id=upload_id)
        withheld = 0
        try:
            if expects_continue(request):
                withheld = int(request.headers.get("Content-Length", 0))
            admitted = await self.admission.admit(incoming, match, upload_id)
            try:
                stored = await self._store(request, admitted)
            except Refusal as refusal:
                if failure := as_hook_failure(refusal, admitted.upload, match):
                    raise failure from refusal
                raise
        except BaseException as error:
            self.outcomes.upload_failed(upload_id, error, withheld)
            raise
        self.outcomes.upload_stored(stored)
        logs.add_fields(bytes=stored.bytes)
        return _response(stored)

    def take_short(self, exchange: ShortExchange, match: PathMatch) -> bool:
        """Serve a whole small request at once, or leave it to the ordinary path."""
        return False

    async def _store(self, request: web.BaseRequest, admitted: AdmittedUpload) -> Stored:
        """Receive the body and commit it."""
        upload, progress = admitted.upload, admitted.progress
        if body_is_buffered(request) and not admitted.expected_digests:
            failpoints.hit("after admit")
            content = read_buffered(request)
            progress.state, progress.received = "receiving", len(content)
            check_received(len(content), upload.max_bytes)
            _check_whole(admitted)
            progress.state = "committing"
            return await self.writer.store(upload, content, from_client=True)
        algorithms = [expected.algorithm for expected in admitted.expected_digests]
        pending = await self.writer.begin(upload, algorithms, must_exist=admitted.must_exist)
        try:
            failpoints.hit("after admit")
            progress.state = "receiving"
            if expects_continue(request):
                await send_continue_or_disconnect(request)
            await self.receiver.receive_body(request, progress, pending)
            _check_whole(admitted)
            await pending.finish()
            digests = _verified_digests(admitted, pending)
        except BaseException:
            await pending.discard()
            raise
        progress.state = "committing"
        return await pending.commit(digests, from_client=True)


def _check_whole(admitted: AdmittedUpload) -> None:
    """Check the length that a header gave to a chunked body. Raises `Refusal("incomplete_body")`."""
    if admitted.whole_length is not None and admitted.progress.received != admitted.whole_length:
        raise Refusal(
            "incomplete_body",
            f"the body has {admitted.progress.received} bytes, the file has {admitted.whole_length}",
        )


def _verified_digests(admitted: AdmittedUpload, pending: PendingWrite) -> dict[str, str]:
    """Compare the body's digests with the expected ones. Raises `Refusal("digest_mismatch")`.

    Returns those that RFC 9530 has a name for, by this name, in base64.
    """
    verified: dict[str, str] = {}
    for expected in admitted.expected_digests:
        digest = pending.digest(expected.algorithm)
        if not hmac.compare_digest(digest, expected.value):
            raise Refusal(
                "digest_mismatch", f"the bytes received do not have the digest in {expected.header}"
            )
        if name := RFC_NAMES.get(expected.algorithm):
            verified[name] = base64.b64encode(digest).decode()
    return verified


def _response(stored: Stored) -> SmallJsonResponse:
    fields = [
        f'"upload_id": "{stored.upload_id}"',
        f'"path": {encode_json_string(stored.path)}',
        f'"bytes": {stored.bytes}',
        f'"mime": {encode_json_string(stored.mime)}',
    ]
    if stored.digests:
        fields.append(f'"digest": {encode_json_string(digest_field(stored.digests))}')
    response = SmallJsonResponse(200 if stored.replaced else 201, f"{{{', '.join(fields)}}}\n")
    response.headers["Location"] = f"/-/uploads/{stored.upload_id}"
    return response
