"""Uploads door: `PUT`, the road admit -> receive -> commit -> answer, and what leaves it early.

The rule: there is one way to a 2xx, through the committer; every other end discards the body and
says why once (`OnFileUploadFailed`, a log line, a count). May import its own room, commit, hooks,
server, inflight and the foundations.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from functools import partial

from aiohttp import web

from gateway import logs, paths
from gateway.answers import BriefAnswer, quoted
from gateway.commit.committer import Committer
from gateway.commit.orders import Order
from gateway.commit.reserve import Share
from gateway.errors import Refusal, Unanswered
from gateway.hooks import Hooks
from gateway.inflight import Inflight
from gateway.metrics import Metrics
from gateway.model import Stored, new_id
from gateway.points import reach
from gateway.redaction import Redaction
from gateway.server import UPLOAD_ID, expects_continue, send_continue
from gateway.settings import Settings
from gateway.storage.attributes import mime_of, note_of
from gateway.storage.incoming import Body, Incoming
from gateway.uploads import preconditions
from gateway.uploads.admission import Admission, Admitted, blame, told
from gateway.uploads.body import BrokenBodyError
from gateway.uploads.fastpath import Roads
from gateway.uploads.small import take

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
        roads: Roads,
        slot: int,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._incoming = incoming
        self._committer = committer
        self._hooks = hooks
        self._inflight = inflight
        self._metrics = metrics
        self._roads = roads
        self._slot = slot
        self._redaction = Redaction(settings.redact)

    async def put(self, request: web.BaseRequest, match: paths.Match, query: str) -> BriefAnswer:
        """Serve one upload. Raises `Refusal` (nothing stored), `Unanswered`, `BrokenBodyError`."""
        upload_id = new_id(self._slot)
        request[UPLOAD_ID] = upload_id
        logs.add(upload_id=upload_id)
        try:
            stored = await self._store(request, match, query, upload_id)
        except Refusal as refusal:
            refusal.upload_id = upload_id
            self._metrics.uploads.add(refusal.code)
            raise
        except (Unanswered, BrokenBodyError):
            self._metrics.uploads.add("broken")
            raise
        self._metrics.uploads.add("stored")
        self._metrics.received_bytes.add(amount=stored.bytes)
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
            if admitted.share is None:
                order = self._take(request, admitted)
            else:
                order = await self._receive(request, admitted, admitted.share, waiting=waiting)
            admitted.progress.state = "committing"
            stored = await self._commit(order, match)
        except BaseException as fault:
            self._failed(admitted, fault)
            raise
        finally:
            if admitted.share is not None:
                admitted.share.close()
        self._inflight.end(admitted.progress)
        return stored

    def _take(self, request: web.BaseRequest, admitted: Admitted) -> Order:
        """Receive over the short road: the body is small, and here."""
        upload, content = admitted.upload, take(request)
        admitted.progress.received = len(content)
        if upload.max_bytes is not None and len(content) > upload.max_bytes:
            raise Refusal("too_large", f"the upload is larger than {upload.max_bytes} bytes")
        body = self._incoming.begin(upload.id, self._settings.file_mode)
        body.note = note_of(upload.path, upload.content_type, upload.metadata)
        body.keep(content)
        return self._order(admitted, body, {})

    async def _receive(
        self, request: web.BaseRequest, admitted: Admitted, share: Share, *, waiting: bool
    ) -> Order:
        upload = admitted.upload
        algorithms = {e.algorithm: preconditions.ALGORITHMS[e.algorithm] for e in admitted.expected}
        body = self._incoming.begin(upload.id, self._settings.file_mode, list(algorithms.values()))
        body.note = note_of(upload.path, upload.content_type, upload.metadata)
        admitted.progress.state = "receiving"
        if self._settings.durability == "full":
            body.hasten()
        receiver = self._roads.receiver(body, share, admitted.progress, upload.max_bytes)
        try:
            if waiting:
                await _send_continue(request)
            await receiver.receive(request, upload.content_length)
            computed = {name: body.digest(known) for name, known in algorithms.items()}
            _verify(admitted, computed)
        except BaseException:
            await receiver.discard()
            raise
        return self._order(admitted, body, computed)

    def _order(self, admitted: Admitted, body: Body, computed: dict[str, bytes]) -> Order:
        upload = admitted.upload
        mime = upload.content_type or mime_of(upload.path)
        return Order(
            upload,
            body,
            mime,
            preconditions.described(computed),
            partial(told, upload, mime, self._redaction),
            looked=admitted.share is not None,
        )

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


def _answer(stored: Stored) -> BriefAnswer:
    fields = [
        f'"upload_id": "{stored.upload_id}"',
        f'"path": {quoted(stored.path)}',
        f'"bytes": {stored.bytes}',
        f'"mime": {quoted(stored.mime)}',
    ]
    if stored.digests:
        fields.append(f'"digest": {quoted(preconditions.digest_field(stored.digests))}')
    answer = BriefAnswer(200 if stored.replaced else 201, f"{{{', '.join(fields)}}}\n")
    answer.headers["Location"] = f"/-/uploads/{stored.upload_id}"
    return answer
