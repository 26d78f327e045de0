"""Receives the body of one request into a partial upload. What came before a cut is kept.

A cut, a stop of the gateway, a client that pauses for too long: what was received is settled, and can be
told. A body with digests of its own is all or nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.commit.partials import OpenPartial, PartialLost
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.body import BodyReceiver, check_received
from gateway.endpoints.uploads.preconditions import declared_length
from gateway.endpoints.uploads.resumable.handover import RunningRequest
from gateway.endpoints.uploads.resumable.operations import BodyTerms
from gateway.endpoints.uploads.socket_takeover import unread_bytes
from gateway.errors import ClientDisconnected, GatewayError, Refusal
from gateway.http.request_body import expects_continue, send_continue_or_disconnect
from gateway.storage.waiting import finish
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")

ENDS_UPLOAD: Final = frozenset({"length_exceeded", "too_large"})
"""Refusals of a body after which the upload cannot be completed any more."""


@dataclass(slots=True)
class AppendedBody:
    """The body of one request, counted in the progress of its upload, of which it is a part.

    `limit` is the greatest size of an upload whose length is not known.
    """

    progress: Progress
    start: int
    declared: int | None
    length: int | None
    limit: int | None

    @property
    def received(self) -> int:
        """Bytes of this body so far."""
        return self.progress.received - self.start

    @received.setter
    def received(self, count: int) -> None:
        self.progress.received = self.start + count

    def check(self) -> None:
        """See `CountedBody.check`."""
        self.check_end(self.progress.received)

    def check_end(self, end: int) -> None:
        """Check where the body ends. Raises `Refusal`: `length_exceeded`, `too_large`."""
        if self.length is not None and end > self.length:
            raise Refusal("length_exceeded", f"the file has {self.length} bytes, and no more are taken")
        check_received(end, self.limit)


def body_length(request: web.BaseRequest) -> int | None:
    """Return the length of a body, None if it is chunked; without any sign of a body it is empty."""
    if "Content-Length" not in request.headers and "Transfer-Encoding" not in request.headers:
        return 0
    return declared_length(request.headers)


@dataclass(slots=True, frozen=True)
class PartialReceiver:
    """Moves bodies into partial uploads. On the server's event loop."""

    receiver: BodyReceiver

    async def receive(
        self, opened: OpenPartial, running: RunningRequest, terms: BodyTerms, progress: Progress
    ) -> None:
        """Receive the body of a request and make it durable.

        Raises `Refusal`, `ClientDisconnected`; then the upload keeps what came, as far as it may.
        """
        request, start = running.request, opened.offset
        declared, limit = body_length(request), opened.head.upload.max_bytes
        body = AppendedBody(progress, start, declared, opened.length, limit)
        progress.resume_at(start)
        if declared is not None:
            body.check_end(start + declared)
        all_or_nothing = bool(terms.digests)
        if all_or_nothing:
            opened.expect_body_digests([expected.algorithm for expected in terms.digests])
        await opened.begin(declared, all_or_nothing=all_or_nothing)
        try:
            await self._receive(opened, running, body)
            if all_or_nothing:
                await opened.finish()
                _verify(opened, terms)
        except BaseException as error:
            keeps = not all_or_nothing and not running.reverts
            if not isinstance(error, Refusal) or error.code not in ENDS_UPLOAD:
                await finish(asyncio.ensure_future(_end_early(opened, body, request, keeps=keeps)))
            raise
        await finish(asyncio.ensure_future(opened.settle()))
        progress.received = opened.offset

    async def _receive(self, opened: OpenPartial, running: RunningRequest, body: AppendedBody) -> None:
        request = running.request
        try:
            async with running.receiving():
                if expects_continue(request):
                    await send_continue_or_disconnect(request)
                await self.receiver.receive_body(request, body, opened)
        except (TimeoutError, PartialLost) as error:
            raise ClientDisconnected("a newer request has taken the upload over") from error


async def _end_early(
    opened: OpenPartial, body: AppendedBody, request: web.BaseRequest, *, keeps: bool
) -> None:
    """Settle, or drop, what came of a body that is not whole."""
    try:
        if not keeps:
            await opened.revert()
            return
        if opened.received == body.progress.received:
            rest = unread_bytes(request)
            if body.length is not None:
                rest = rest[: body.length - opened.received]
            if rest:
                await opened.write(rest)
        # Else the storage has refused bytes, or a wait for it was cut short: what follows is no part.
        await opened.settle()
    except (GatewayError, OSError) as error:
        log.warning("the end of a body could not be kept: %s", error, extra=event("partial.unsettled"))


def _verify(opened: OpenPartial, terms: BodyTerms) -> None:
    for expected in terms.digests:
        if not hmac.compare_digest(opened.digest(expected.algorithm), expected.value):
            raise Refusal(
                expected.mismatch_code, f"the bytes received do not have the digest in {expected.header}"
            )
