"""Uploads of which nobody knows whether S3 has them: asked for until somebody knows.

One rule: the object itself says which upload it is, and nothing is ever published here, so nothing
newer can be overwritten. What is there with our id was published: its deliveries go out. What is
not there may yet come, from a request that is on its way: it is asked for again, with growing
pauses, before it is forgotten. While S3 is away, all of them wait. On the server's loop. May
import events, storage and errors.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import GatewayError
from gateway.events.journal import Journal
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.s3.bucket import BucketClient, ObjectHead
from gateway.storage.s3.multipart_log import MultipartLog

log = logging.getLogger("gateway.commit")

DOUBT_SECONDS: Final = 900.0
"""How long a request that nobody waits for any more may still be carried out."""

ABORTED_SECONDS: Final = 10.0
"""The same, once the multipart upload was found open and has been aborted."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0


@dataclass(slots=True)
class _Doubt:
    """An upload, when to look again, and when (both monotonic) to give it up."""

    pending: PendingUpload
    due: float
    until: float | None = None
    pause: float = FIRST_PAUSE


@dataclass(slots=True)
class UploadReconciler:
    """Settles what is pending, in the background."""

    objects: BucketClient
    journal: Journal
    notes: MultipartLog
    once: OneTimeMarks
    _doubts: dict[str, _Doubt] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._doubts)

    def __contains__(self, upload_id: str) -> bool:
        return upload_id in self._doubts

    def add(self, pending: PendingUpload) -> None:
        """Take care of an upload; its deliveries are held."""
        if pending.place.get("bucket") != self.objects.bucket:
            log.error(
                "upload %s waits for the bucket %s, which is not the one of --storage",
                pending.upload_id,
                pending.place.get("bucket"),
            )
            return
        self._doubts[pending.upload_id] = _Doubt(pending, time.monotonic())
        self._news.set()

    async def look(self, pending: PendingUpload) -> ObjectHead | None:
        """Return the object if it is this very upload. Raises `Refusal`."""
        found = await self.objects.head_object(pending.place["key"])
        return found if found is not None and found.upload_id == pending.upload_id else None

    async def published(self, pending: PendingUpload, etag: str) -> None:
        """Write down that it was published. Raises `sqlite3.Error`."""
        await asyncio.wrap_future(self.journal.unsettled.settle(pending.upload_id, etag))
        await asyncio.to_thread(self.notes.remove, pending.upload_id)

    async def run(self) -> None:
        """Look, wait, look again, until cancelled."""
        while True:
            now = time.monotonic()
            for doubt in [one for one in self._doubts.values() if one.due <= now]:
                if await self._settle(doubt):
                    del self._doubts[doubt.pending.upload_id]
            self._news.clear()
            due = min((one.due for one in self._doubts.values()), default=None)
            try:
                async with asyncio.timeout(None if due is None else due - time.monotonic()):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _settle(self, doubt: _Doubt) -> bool:
        """Look once; return whether the upload is settled."""
        doubt.due = time.monotonic() + doubt.pause
        doubt.pause = min(doubt.pause * 2, LONGEST_PAUSE)
        try:
            return await self._find_out(doubt)
        except (GatewayError, sqlite3.Error, OSError) as fault:
            log.warning("upload %s cannot be settled now: %s", doubt.pending.upload_id, fault)
        except Exception:
            log.exception("upload %s cannot be settled", doubt.pending.upload_id)
        return False

    async def _find_out(self, doubt: _Doubt) -> bool:
        pending = doubt.pending
        found = await self.look(pending)
        if found is not None:
            await self.published(pending, found.etag)
            self.journal.unsettled.release(pending.event_ids)
            log.info("upload %s is in the bucket: its handlers will run", pending.upload_id)
            return True
        await self._abort(doubt)
        if doubt.until is None:
            doubt.until = time.monotonic() + DOUBT_SECONDS
        if time.monotonic() < doubt.until:
            return False
        await asyncio.to_thread(self.once.release_all, [pending.upload_id])
        await asyncio.wrap_future(self.journal.outbox.forget([pending.upload_id]))
        await asyncio.to_thread(self.notes.remove, pending.upload_id)
        log.info("upload %s, which was never answered, did not reach the bucket", pending.upload_id)
        return True

    async def _abort(self, doubt: _Doubt) -> None:
        """Take back an open multipart upload: from then on nobody can complete it."""
        place = doubt.pending.place
        if place.get("multipart") and await self.objects.is_multipart_open(
            place["key"], place["multipart"]
        ):
            await self.objects.abort_multipart(place["key"], place["multipart"])
            doubt.until = time.monotonic() + ABORTED_SECONDS
            doubt.due, doubt.pause = time.monotonic() + FIRST_PAUSE, FIRST_PAUSE
