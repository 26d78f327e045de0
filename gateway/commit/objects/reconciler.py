"""Finds out whether S3 has the uploads whose outcome is unknown.

The object itself says which upload it is, and nothing is ever published here, so nothing newer can be
overwritten. An object with the id of the upload was published: its deliveries are released. One that is
missing may still come, from a request under way: S3 is queried again, with growing pauses, before the
upload is forgotten. While S3 is unavailable all of them wait.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.commit.records import ProcessState
from gateway.errors import GatewayError
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.s3.bucket import BucketClient, ObjectHead
from gateway.storage.s3.multiparts import MultipartLog
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

LATE_REQUEST_TIMEOUT: Final = 900.0
"""Seconds in which a request that was given up may still be carried out."""

ABORTED_REQUEST_TIMEOUT: Final = 10.0
"""The same, once the multipart upload was open and has been aborted."""

MIN_DELAY: Final = 1.0
MAX_DELAY: Final = 60.0
"""Seconds between two queries for one upload."""


@dataclass(slots=True)
class _Unsettled:
    """An upload, when to query again, and when (both monotonic) to forget it."""

    row: PendingUpload
    due: float
    deadline: float | None = None
    delay: float = MIN_DELAY
    is_queried: bool = False


class ClaimedUploads(Protocol):
    """Uploads in several requests, of which one commit at a time claims the right to publish them."""

    async def has_claim(self, upload_id: str, claim: str) -> bool:
        """Tell whether a commit has the claim. Raises `Refusal`."""

    async def end_claimed(self, upload_id: str) -> None:
        """Remove what is left of an upload that is published."""

    async def withdraw_claim(self, upload_id: str, claim: str) -> None:
        """Let the upload go on: the commit published nothing. Raises `GatewayError`."""


@dataclass(slots=True)
class UploadReconciler:
    """Settles pending uploads, in the background. Runs on the server's event loop.

    A row with a `claim` is of an upload in several requests. Where another commit has the claim, the
    object is that one's. Its multipart upload is never aborted: the upload goes on. `settled` is called
    with the id of what is settled.
    """

    objects: BucketClient
    state: ProcessState
    multiparts: MultipartLog
    claims: ClaimedUploads | None = None
    settled: Callable[[str], None] = lambda _: None
    _unsettled: dict[str, _Unsettled] = field(default_factory=dict)
    _added: asyncio.Event = field(default_factory=asyncio.Event)

    def __contains__(self, upload_id: str) -> bool:
        return upload_id in self._unsettled

    def add(self, row: PendingUpload) -> None:
        """Settle an upload in the background; its deliveries are held."""
        if row.place.get("bucket") != self.objects.bucket:
            log.error(
                "upload %s waits for the bucket %s, which is not the one of --storage",
                row.upload_id,
                row.place.get("bucket"),
                extra=event("upload.unsettled", upload_id=row.upload_id),
            )
            return
        self._unsettled[row.upload_id] = _Unsettled(row, time.monotonic())
        self._added.set()

    def take(self, upload_id: str, claim: str | None) -> PendingUpload | None:
        """Return the row of a commit with this claim, for another try; None where it is in use.

        Who tries it adds it again, unless it is settled.
        """
        upload = self._unsettled.get(upload_id)
        if upload is None or upload.is_queried or upload.row.place.get("claim") != claim:
            return None
        del self._unsettled[upload_id]
        return upload.row

    async def find_object(self, row: PendingUpload) -> ObjectHead | None:
        """Return the object if it is this upload. Raises `Refusal`."""
        head = await self.objects.head_object(row.place["key"])
        return head if head is not None and head.upload_id == row.upload_id else None

    async def settle_published(self, row: PendingUpload, etag: str) -> None:
        """Record that the upload was published. Raises `sqlite3.Error`."""
        await asyncio.wrap_future(self.state.journal.pending_uploads.mark_published(row.upload_id, etag))
        await asyncio.to_thread(self.multiparts.remove, row.upload_id)

    async def run(self) -> None:
        """Query what is due, wait, repeat, until cancelled."""
        while True:
            now = time.monotonic()
            for upload in [upload for upload in self._unsettled.values() if upload.due <= now]:
                if self._unsettled.get(upload.row.upload_id) is upload and await self._query(upload):
                    del self._unsettled[upload.row.upload_id]
                    self.settled(upload.row.upload_id)
            self._added.clear()
            due = min((upload.due for upload in self._unsettled.values()), default=None)
            try:
                async with asyncio.timeout(None if due is None else due - time.monotonic()):
                    await self._added.wait()
            except TimeoutError:
                continue

    async def _query(self, upload: _Unsettled) -> bool:
        upload.is_queried = True
        try:
            return await self._try_settle(upload)
        finally:
            upload.is_queried = False

    async def _try_settle(self, upload: _Unsettled) -> bool:
        """Query once; return whether the upload is settled."""
        upload.due = time.monotonic() + upload.delay
        upload.delay = min(upload.delay * 2, MAX_DELAY)
        upload_id = upload.row.upload_id
        try:
            return await self._settle(upload)
        except (GatewayError, sqlite3.Error, OSError) as error:
            log.warning(
                "upload %s cannot be settled now: %s",
                upload_id,
                error,
                extra=event("upload.unsettled", upload_id=upload_id),
            )
        except Exception:
            log.exception(
                "upload %s cannot be settled",
                upload_id,
                extra=event("upload.unsettled", upload_id=upload_id),
            )
        return False

    async def _settle(self, upload: _Unsettled) -> bool:
        row, claim = upload.row, upload.row.place.get("claim")
        claims = self.claims if isinstance(claim, str) else None
        if claims is not None and not await claims.has_claim(row.upload_id, str(claim)):
            await self._forget(row)
            return True
        head = await self.find_object(row)
        if head is not None:
            await self._publish_events(row, head.etag)
            if claims is not None:
                await claims.end_claimed(row.upload_id)
            return True
        if claims is None:
            await self._abort_multipart(upload)
        if upload.deadline is None:
            upload.deadline = time.monotonic() + LATE_REQUEST_TIMEOUT
        if time.monotonic() < upload.deadline:
            return False
        if claims is not None:
            await claims.withdraw_claim(row.upload_id, str(claim))
        await self._forget(row)
        return True

    async def _publish_events(self, row: PendingUpload, etag: str) -> None:
        await self.settle_published(row, etag)
        self.state.journal.outbox.release_events(row.event_ids)
        log.info(
            "upload %s is in the bucket: its handlers will run",
            row.upload_id,
            extra=event("upload.settled", upload_id=row.upload_id, stored=True),
        )

    async def _forget(self, row: PendingUpload) -> None:
        """Forget an upload that is not published, and never will be by what was sent."""
        if not row.place.get("held"):  # a held upload stays one
            await asyncio.to_thread(self.state.one_time_marks.release_all, [row.upload_id])
        await asyncio.wrap_future(self.state.journal.outbox.forget_uploads([row.upload_id]))
        await asyncio.to_thread(self.multiparts.remove, row.upload_id)
        log.info(
            "upload %s, which was never answered, did not reach the bucket",
            row.upload_id,
            extra=event("upload.settled", upload_id=row.upload_id, stored=False),
        )

    async def _abort_multipart(self, upload: _Unsettled) -> None:
        """Abort a multipart upload that is still open: from then on nothing can complete it."""
        key, multipart = upload.row.place["key"], upload.row.place.get("multipart")
        if multipart and await self.objects.is_multipart_open(key, multipart):
            await self.objects.abort_multipart(key, multipart)
            upload.deadline = time.monotonic() + ABORTED_REQUEST_TIMEOUT
            upload.due, upload.delay = time.monotonic() + MIN_DELAY, MIN_DELAY
