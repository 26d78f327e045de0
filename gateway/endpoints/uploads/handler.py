"""`PUT`: admit, receive, commit, respond.

There is one way to a 2xx, through the commit. Every other end discards the body, and is recorded.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

from aiohttp import web

from gateway.auth.request import IncomingRequest
from gateway.commit.writer import PendingWrite, StorageWriter
from gateway.domain import failpoints
from gateway.domain.model import Stored, new_id
from gateway.domain.path_template import PathMatch
from gateway.endpoints.inflight import Progress
from gateway.endpoints.short_path import ShortExchange
from gateway.endpoints.uploads.admission import Admission, DescribedUpload, as_hook_failure
from gateway.endpoints.uploads.body import BodyReceiver, body_is_buffered, check_received, read_buffered
from gateway.endpoints.uploads.digests import RFC_NAMES, digest_field
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.errors import Refusal
from gateway.http.protocol import UPLOAD_ID
from gateway.http.request_body import expects_continue, send_continue_or_disconnect
from gateway.http.responses import Response, encode_json_string
from gateway.telemetry import logs


@dataclass(slots=True, frozen=True)
class UploadHandler:
    """Serves the uploads of one process, on the server's event loop. `slot` goes into upload ids."""

    admission: Admission
    writer: StorageWriter
    receiver: BodyReceiver
    outcomes: UploadOutcomes
    slot: int

    async def put(self, incoming: IncomingRequest, match: PathMatch) -> Response:
        """Serve one upload. Raises `Refusal` (nothing stored), `UnknownOutcome`."""
        request, upload_id = incoming.request, new_id(self.slot)
        request[UPLOAD_ID] = upload_id
        logs.add_fields(upload_id=upload_id)
        withheld = 0
        try:
            if expects_continue(request):
                withheld = int(request.headers.get("Content-Length", 0))
            described, progress = await self.admission.admit(incoming, match, upload_id)
            try:
                if body_is_buffered(request) and not described.expected_digests:
                    failpoints.hit("after admit")
                    content = read_buffered(request)
                    check_buffered(described, progress, len(content))
                    stored = await self.writer.store(described.upload, content, from_client=True)
                else:
                    stored = await self._receive(request, described, progress)
            except Refusal as refusal:
                if failure := as_hook_failure(refusal, described.upload, match):
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

    async def _receive(
        self, request: web.BaseRequest, described: DescribedUpload, progress: Progress
    ) -> Stored:
        """Receive the body and commit it."""
        algorithms = [expected.algorithm for expected in described.expected_digests]
        upload, must_exist = described.upload, described.must_exist
        pending = await self.writer.begin(upload, algorithms, must_exist=must_exist)
        try:
            failpoints.hit("after admit")
            progress.state = "receiving"
            if expects_continue(request):
                await send_continue_or_disconnect(request)
            await self.receiver.receive_body(request, progress, pending)
            described.check_whole(progress.received)
            await pending.finish()
            digests = _verified_digests(described, pending)
        except BaseException:
            await pending.discard()
            raise
        progress.state = "committing"
        return await pending.commit(digests, from_client=True)


def check_buffered(described: DescribedUpload, progress: Progress, received: int) -> None:
    """Check a body that is in memory, before its commit. Raises `Refusal`."""
    progress.state, progress.received = "receiving", received
    check_received(received, described.upload.max_bytes)
    described.check_whole(received)
    progress.state = "committing"


def _verified_digests(described: DescribedUpload, pending: PendingWrite) -> dict[str, str]:
    """Compare the body's digests with the expected ones. Raises `Refusal("digest_mismatch")`.

    Returns those that RFC 9530 has a name for, by this name, in base64.
    """
    verified: dict[str, str] = {}
    for expected in described.expected_digests:
        digest = pending.digest(expected.algorithm)
        if not hmac.compare_digest(digest, expected.value):
            raise Refusal(
                "digest_mismatch", f"the bytes received do not have the digest in {expected.header}"
            )
        if name := RFC_NAMES.get(expected.algorithm):
            verified[name] = base64.b64encode(digest).decode()
    return verified


def _response(stored: Stored) -> Response:
    status, location, content = stored_answer(stored)
    response = Response(status=status, body=content, content_type="application/json", charset="utf-8")
    response.headers["Location"] = location
    return response


def stored_answer(stored: Stored) -> tuple[int, str, bytes]:
    """Return status, `Location` and JSON text of the response to a stored upload."""
    digest = ""
    if stored.digests:
        digest = f', "digest": {encode_json_string(digest_field(stored.digests))}'
    text = (
        f'{{"upload_id": "{stored.upload_id}", "path": {encode_json_string(stored.path)},'
        f' "bytes": {stored.bytes}, "mime": {encode_json_string(stored.mime)}{digest}}}\n'
    )
    return 200 if stored.replaced else 201, f"/-/uploads/{stored.upload_id}", text.encode()
