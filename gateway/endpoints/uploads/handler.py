"""`PUT`, the road admit -> receive -> commit -> answer, and what leaves it early.

The rule: there is one way to a 2xx, through the committer; every other end discards the body and
says why once (`OnFileUploadFailed`, a log line, a count).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from gateway.auth.request import IncomingRequest
from gateway.domain import failpoints, paths
from gateway.domain.model import Stored, Upload, new_id
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.uploads import preconditions
from gateway.endpoints.uploads.admission import Admission, AdmittedUpload, blame
from gateway.endpoints.uploads.sink import UploadSink
from gateway.errors import ClientDisconnected, Refusal, UnknownOutcome
from gateway.http.protocol import UPLOAD_ID, expects_continue
from gateway.http.responses import SmallJsonResponse, quoted
from gateway.plugins.hooks import Hooks
from gateway.telemetry import logs
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.uploads")


class UploadHandler:
    """The door. One object per gateway; lives on the server's loop. `slot` goes into upload ids."""

    def __init__(
        self,
        admission: Admission,
        store: UploadSink,
        *,
        hooks: Hooks,
        inflight: Inflight,
        metrics: Metrics,
        slot: int,
    ) -> None:
        self._admission = admission
        self._store = store
        self._hooks = hooks
        self._inflight = inflight
        self._metrics = metrics
        self._slot = slot

    async def put(self, incoming: IncomingRequest, match: paths.Match) -> SmallJsonResponse:
        """Serve one upload. Raises `Refusal` (nothing stored), `UnknownOutcome`."""
        upload_id = new_id(self._slot)
        incoming.request[UPLOAD_ID] = upload_id
        logs.add(upload_id=upload_id)
        try:
            stored = await self._serve(incoming, match, upload_id)
        except Refusal as refusal:
            refusal.upload_id = upload_id
            self._metrics.uploads.add(refusal.code)
            raise
        except UnknownOutcome:
            self._metrics.uploads.add("broken")
            raise
        self._metrics.uploads.add("stored")
        self._metrics.received_bytes.add(amount=stored.bytes)
        return _answer(stored)

    async def _serve(self, incoming: IncomingRequest, match: paths.Match, upload_id: str) -> Stored:
        request = incoming.request
        waiting = expects_continue(request)
        try:
            admitted = await self._admission.admit(incoming, match, upload_id)
        except Refusal:
            if waiting:
                self._metrics.unsent_bytes.inc(int(request.headers.get("Content-Length", 0)))
            raise
        failpoints.hit("after admit")
        try:
            if admitted.share is None:
                order = await self._store.take(request, admitted)
            else:
                order = await self._store.receive(request, admitted, admitted.share, waiting=waiting)
            admitted.progress.state = "committing"
            stored = await self._commit(order, admitted.upload, match)
        except BaseException as fault:
            self._failed(admitted, fault)
            raise
        finally:
            if admitted.share is not None:
                admitted.share.close()
        self._inflight.end(admitted.progress)
        return stored

    async def _commit(self, order: Any, upload: Upload, match: paths.Match) -> Stored:
        try:
            return await self._store.commit(order)
        except Refusal as refusal:
            raise blame(refusal, upload, match) from refusal

    def _failed(self, admitted: AdmittedUpload, fault: BaseException) -> None:
        reason = _reason(fault)
        committing = admitted.progress.state == "committing"
        self._inflight.end(admitted.progress, reason)
        if committing and not isinstance(fault, Refusal):
            return  # cut off or unanswered: it may well be stored, the journal tells
        log.warning(
            "upload failed",
            extra={"facts": {"reason": reason, "bytes": admitted.progress.received}},
        )
        self._hooks.failed(admitted.upload, reason, admitted.progress.received)


def _reason(fault: BaseException) -> str:
    if isinstance(fault, Refusal):
        return fault.code
    if isinstance(fault, ClientDisconnected):
        return "connection_lost"
    if isinstance(fault, asyncio.CancelledError):
        return "stopping"
    return "internal"


def _answer(stored: Stored) -> SmallJsonResponse:
    fields = [
        f'"upload_id": "{stored.upload_id}"',
        f'"path": {quoted(stored.path)}',
        f'"bytes": {stored.bytes}',
        f'"mime": {quoted(stored.mime)}',
    ]
    if stored.digests:
        fields.append(f'"digest": {quoted(preconditions.digest_field(stored.digests))}')
    answer = SmallJsonResponse(200 if stored.replaced else 201, f"{{{', '.join(fields)}}}\n")
    answer.headers["Location"] = f"/-/uploads/{stored.upload_id}"
    return answer
