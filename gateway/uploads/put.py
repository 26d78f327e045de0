"""Uploads door: `PUT`, the road admit -> receive -> commit -> answer, and what leaves it early.

The rule: there is one way to a 2xx, through the committer; every other end discards the body and
says why once (`OnFileUploadFailed`, a log line, a count). May import its own room, commit, hooks,
server, inflight and the foundations.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import mimetypes
from concurrent.futures import Executor

from aiohttp import web

from gateway import logs, paths
from gateway.commit.batch import Order
from gateway.commit.committer import Committer
from gateway.errors import Refusal, Unanswered
from gateway.hooks import Hooks
from gateway.inflight import Inflight
from gateway.metrics import Metrics
from gateway.model import Stored, new_id
from gateway.points import reach
from gateway.redaction import Redaction
from gateway.server import UPLOAD_ID, expects_continue, json_answer, send_continue
from gateway.settings import Settings
from gateway.storage.incoming import Incoming
from gateway.uploads import preconditions
from gateway.uploads.admission import Admission, Admitted, blame, told
from gateway.uploads.body import BrokenBodyError, Receiver

log = logging.getLogger("gateway.uploads")


class Uploads:
    """The door. One object per gateway; lives on the server's loop. `slot` goes into upload ids."""

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        incoming: Incoming,
        committer: Committer,
        *,
        hooks: Hooks,
        inflight: Inflight,
        metrics: Metrics,
        disk: Executor,
        slot: int,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._incoming = incoming
        self._committer = committer
        self._hooks = hooks
        self._inflight = inflight
        self._metrics = metrics
        self._disk = disk
        self._slot = slot
        self._redaction = Redaction(settings.redact)

    async def put(self, request: web.BaseRequest, match: paths.Match, query: str) -> web.Response:
        """Serve one upload. Raises `Refusal` (nothing stored), `Unanswered`, `BrokenBodyError`."""
        upload_id = new_id(self._slot)
        request[UPLOAD_ID] = upload_id
        with logs.bind(upload_id=upload_id):
            try:
                stored = await self._store(request, match, query, upload_id)
            except Refusal as refusal:
                refusal.upload_id = upload_id
                self._metrics.uploads.labels(refusal.code).inc()
                raise
            except (Unanswered, BrokenBodyError):
                self._metrics.uploads.labels("broken").inc()
                raise
            self._metrics.uploads.labels("stored").inc()
            self._metrics.received_bytes.inc(stored.bytes)
            return _answer(stored)

    async def _store(
        self, request: web.BaseRequest, match: paths.Match, query: str, upload_id: str
    ) -> Stored:
        waiting = expects_continue(request)
        try:
            admitted = await self._admission.admit(request, match, query, upload_id)
        except Refusal:
            if waiting:
                self._metrics.unsent_bytes.inc(int(request.headers.get("Content-Length", 0)))
            raise
        reach("after admit")
        try:
            order = await self._receive(request, admitted, waiting=waiting)
            admitted.progress.state = "committing"
            stored = await self._commit(order, match)
        except BaseException as fault:
            self._failed(admitted, fault)
            raise
        finally:
            admitted.share.close()
        self._inflight.end(admitted.progress)
        return stored

    async def _receive(self, request: web.BaseRequest, admitted: Admitted, *, waiting: bool) -> Order:
        upload = admitted.upload
        algorithms = {e.algorithm: preconditions.ALGORITHMS[e.algorithm] for e in admitted.expected}
        body = self._incoming.begin(upload.id, self._settings.file_mode, list(algorithms.values()))
        admitted.progress.state = "receiving"
        receiver = Receiver(
            body,
            admitted.share,
            admitted.progress,
            inflight=self._inflight,
            disk=self._disk,
            limit=upload.max_bytes,
            idle_timeout=self._settings.idle_timeout,
        )
        try:
            if waiting:
                await _send_continue(request)
            await receiver.receive(request, upload.content_length)
            computed = {name: body.digest(known) for name, known in algorithms.items()}
            _verify(admitted, computed)
        except BaseException:
            await receiver.discard()
            raise
        mime = upload.content_type or mimetypes.guess_type(upload.path)[0] or _UNKNOWN_MIME
        headers = self._redaction.headers(upload.headers)
        params = self._redaction.params(upload.params)
        event_body = told(upload, mime, headers, params)
        return Order(upload, body, mime, preconditions.described(computed), event_body)

    async def _commit(self, order: Order, match: paths.Match) -> Stored:
        try:
            return await self._committer.commit(order)
        except Refusal as refusal:
            raise blame(refusal, order.upload, match) from refusal

    def _failed(self, admitted: Admitted, fault: BaseException) -> None:
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


_UNKNOWN_MIME = "application/octet-stream"


async def _send_continue(request: web.BaseRequest) -> None:
    try:
        await send_continue(request)
    except OSError as fault:
        raise BrokenBodyError("the client did not wait for the go-ahead") from fault


def _verify(admitted: Admitted, computed: dict[str, bytes]) -> None:
    for expected in admitted.expected:
        if not hmac.compare_digest(computed[expected.algorithm], expected.value):
            raise Refusal(
                "digest_mismatch", f"the bytes received do not have the digest in {expected.header}"
            )


def _reason(fault: BaseException) -> str:
    if isinstance(fault, Refusal):
        return fault.code
    if isinstance(fault, BrokenBodyError):
        return "connection_lost"
    if isinstance(fault, asyncio.CancelledError):
        return "stopping"
    return "internal"


def _answer(stored: Stored) -> web.Response:
    body: dict[str, object] = {
        "upload_id": stored.upload_id,
        "path": stored.path,
        "bytes": stored.bytes,
        "mime": stored.mime,
    }
    if stored.digests:
        body["digest"] = preconditions.digest_field(stored.digests)
    status = 200 if stored.replaced else 201
    return json_answer(body, status, Location=f"/-/uploads/{stored.upload_id}")
