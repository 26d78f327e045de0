"""Multipart uploads that this machine begins, and the sweep that aborts what will never be completed.

S3 keeps, and bills, the parts. An entry of the log is a small file in the state folder, written when an
upload is begun, removed when it is complete or aborted. The sweep aborts at once what the log has and no
process works on. The log is no promise: others below our prefix are aborted after a day without a part.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from gateway.errors import GatewayError
from gateway.storage.s3.bucket import BucketClient
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.storage")

MULTIPART_TTL: Final = timedelta(days=1)
"""How long an unknown unfinished upload may stay without a new part."""

SWEEP_INTERVAL: Final = 3600.0
RETRY_INTERVAL: Final = 30.0
"""Seconds to the next sweep where S3 was unavailable."""


class UnfinishedMultipart(NamedTuple):
    """An unfinished multipart upload: the gateway's upload id, bucket, key, and S3's id of it."""

    upload_id: str
    bucket: str
    key: str
    multipart: str


class MultipartLog:
    """The folder of entries. All processes of a gateway share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record(self, entry: UnfinishedMultipart) -> None:
        """Write an entry. A disk that refuses is logged: the upload itself needs none."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / entry.upload_id).write_text(json.dumps(entry), encoding="utf-8")
        except OSError as error:
            log.warning(
                "a multipart upload could not be recorded, the sweep will find it by its age: %s",
                error.strerror,
                extra=event("multipart.unrecorded", upload_id=entry.upload_id),
            )

    def remove(self, upload_id: str) -> None:
        """Remove an entry, if there is one."""
        with contextlib.suppress(OSError):
            os.unlink(self._folder / upload_id)

    def entries(self) -> Iterator[UnfinishedMultipart]:
        """Iterate over the entries; one that cannot be read is removed."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                try:
                    yield UnfinishedMultipart(
                        *json.loads((self._folder / name).read_text(encoding="utf-8"))
                    )
                except FileNotFoundError:
                    continue
                except (ValueError, TypeError):
                    self.remove(name)


class LivingUploads(Protocol):
    """What no sweep may abort."""

    def is_in_use(self, upload_id: str) -> bool:
        """Tell whether an upload is being received or settled in this process."""

    async def kept_multiparts(self) -> Set[str]:
        """Return S3's ids of those that any gateway keeps between requests. Raises `Refusal`."""


@dataclass(slots=True)
class MultipartSweeper:
    """Sweeps the uploads of this `slot`; for slot 0 also those of slots from `processes` on.

    `prefix` is where uploads without a log entry are searched, None: nowhere.
    """

    objects: BucketClient
    multiparts: MultipartLog
    prefix: str | None
    living: LivingUploads
    slot: int
    processes: int

    async def run(self) -> None:
        """Sweep now and every hour, until cancelled."""
        while True:
            try:
                await self.sweep()
                delay = SWEEP_INTERVAL
            except GatewayError:
                delay = RETRY_INTERVAL
            except Exception:
                log.exception(
                    "the sweep of unfinished uploads failed", extra=event("multipart_sweep.failed")
                )
                delay = SWEEP_INTERVAL
            await asyncio.sleep(delay)

    async def sweep(self) -> None:
        """Abort what will never be completed. Raises `Refusal` where S3 is unavailable."""
        for entry in await asyncio.to_thread(lambda: list(self.multiparts.entries())):
            if self._owns(entry.upload_id) and not self.living.is_in_use(entry.upload_id):
                await self._abort(entry)
        if self.prefix:
            await self._sweep_unknown(self.prefix, datetime.now(UTC))

    async def _sweep_unknown(self, prefix: str, now: datetime) -> None:
        kept: Set[str] | None = None
        async for key, multipart, begun in self.objects.list_multiparts(prefix):
            if now - begun > MULTIPART_TTL:
                if kept is None:  # states of partial uploads are read only where it matters
                    kept = await self.living.kept_multiparts()
                if multipart not in kept:
                    await self._abort_idle(key, multipart, now)

    def _owns(self, upload_id: str) -> bool:
        suffix = re.search(r"-(\d+)$", upload_id)
        number = int(suffix[1]) if suffix else 0
        return number == self.slot or (self.slot == 0 and number >= self.processes)

    async def _abort(self, entry: UnfinishedMultipart) -> None:
        if entry.bucket != self.objects.bucket:
            return
        if await self.objects.abort_multipart(entry.key, entry.multipart):
            log.info(
                "removed the parts of upload %s, which was interrupted",
                entry.upload_id,
                extra=event("multipart.aborted", upload_id=entry.upload_id),
            )
        await asyncio.to_thread(self.multiparts.remove, entry.upload_id)

    async def _abort_idle(self, key: str, multipart: str, now: datetime) -> None:
        newest = await self.objects.newest_part_time(key, multipart)
        if newest is None or now - newest > MULTIPART_TTL:
            await self.objects.abort_multipart(key, multipart)
            log.warning(
                "removed the parts of an upload to %s that got no new part for a day",
                key,
                extra=event("multipart.aborted", key=key),
            )
