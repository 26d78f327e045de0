"""Multipart uploads that nobody will complete are taken back, with their parts.

S3 keeps, and bills, them for ever otherwise. One rule: ours only. Those that this machine began and
did not end, known by their notes, at once; others below our prefix when nothing has come for a day.
On the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.errors import GatewayError
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.multipart_log import MultipartLog, UnfinishedMultipart

log = logging.getLogger("gateway.commit")

IDLE: Final = timedelta(days=1)
"""How long an unfinished upload that nobody knows may lie without a new part."""

EVERY_SECONDS: Final = 3600.0
AGAIN_SECONDS: Final = 30.0
"""The pause where S3 was away."""


@dataclass(slots=True)
class MultipartSweeper:
    """Sweeps for one process.

    `cares` tells whether somebody else takes care of an upload id, `mine` whether its slot is ours;
    `prefix` is where those without a note are looked for, None: nowhere.
    """

    objects: BucketClient
    notes: MultipartLog
    prefix: str | None
    cares: Callable[[str], bool]
    mine: Callable[[str], bool]

    async def run(self) -> None:
        """Sweep now and every hour, until cancelled."""
        while True:
            try:
                await self.sweep()
                pause = EVERY_SECONDS
            except GatewayError:
                pause = AGAIN_SECONDS
            except Exception:
                log.exception("the sweep of unfinished uploads failed")
                pause = EVERY_SECONDS
            await asyncio.sleep(pause)

    async def sweep(self) -> None:
        """Take back what nobody will complete. Raises `Refusal` where S3 is away."""
        for note in await asyncio.to_thread(lambda: list(self.notes.entries())):
            if self.mine(note.upload_id) and not self.cares(note.upload_id):
                await self._take_back(note)
        if self.prefix:
            now = datetime.now(UTC)
            async for key, multipart, begun in self.objects.list_multiparts(self.prefix):
                if now - begun > IDLE:
                    await self._take_back_idle(key, multipart, now)

    async def _take_back(self, note: UnfinishedMultipart) -> None:
        if note.bucket != self.objects.bucket:
            return
        if await self.objects.abort_multipart(note.key, note.multipart):
            log.info("the parts of %s, an upload that was cut off, are taken back", note.upload_id)
        await asyncio.to_thread(self.notes.remove, note.upload_id)

    async def _take_back_idle(self, key: str, multipart: str, now: datetime) -> None:
        newest = await self.objects.newest_part_time(key, multipart)
        if newest is None or now - newest > IDLE:
            await self.objects.abort_multipart(key, multipart)
            log.warning("an upload to %s without a new part for a day is taken back", key)
