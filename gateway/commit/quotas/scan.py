"""Compares what is counted with what is stored: at the start, and from time to time.

Files may be put, changed and removed by others than the gateway, and the settings may count for others
than before. A scan does a bounded piece at a time and pauses after each, so that uploads hardly notice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from gateway.commit.quotas.files import QuotaFiles, stored_keys
from gateway.errors import GatewayError
from gateway.events.upload_log import LoggedUpload, UploadLog
from gateway.limits.quota_operations import replace_file
from gateway.limits.quota_rows import CountedFile, read_file
from gateway.limits.quota_rules import owner_of
from gateway.limits.quota_sweeps import PAGE, files_page, read_fact, see_files, write_fact
from gateway.storage.protocols import Storage
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.quotas")
T = TypeVar("T")

PAUSE: Final = 3.0
"""A scan pauses so many times as long as its latest piece took: it uses a quarter of a core at most."""

_ALL: Final = 1 << 62
"""No scan has this number."""

VariablesOf = Callable[[str], Mapping[str, str]]
"""Returns the variables of the upload path that a stored path tells."""


class QuotaScan:
    """Scans the storage, and the journal of this process. On the server's event loop."""

    def __init__(
        self, files: QuotaFiles, storage: Storage, uploads: UploadLog, variables_of: VariablesOf
    ) -> None:
        self._files = files
        self._place = files.place.name
        self._storage = storage
        self._uploads = uploads
        self._variables_of = variables_of

    def is_needed(self) -> bool:
        """Tell whether any file may count."""
        return self._files.are_counted()

    async def run(self, *, files: bool) -> int:
        """Count what is stored anew; return how many files counted otherwise before.

        With `files` those of the storage, else only the uploads of this process's journal, and only
        where the settings count otherwise than at the latest scan. Raises `GatewayError`.
        """
        changed = 0
        fact = f"counted {self._files.place.node} {self._files.place.slot}"
        fingerprint = self._files.rules.fingerprint
        counts_anew = await self._files.run(partial(read_fact, fact)) != fingerprint
        if counts_anew:
            changed += await self._import_uploads()
        if files:
            changed += await self._scan_files(counts_anew=counts_anew)
        if counts_anew:
            await self._files.run(partial(write_fact, fact, fingerprint))
        if changed:
            log.info(
                "%d files count otherwise for quotas than before",
                changed,
                extra=event("quotas.recounted", count=changed),
            )
        return changed

    async def _scan_files(self, *, counts_anew: bool) -> int:
        number = int(await self._files.run(partial(read_fact, "scan")) or 0) + 1
        await self._files.run(partial(write_fact, "scan", str(number)))
        changed = 0
        for prefix in self._files.rules.prefixes:
            page: list[tuple[str, int]] = []
            async for stat in self._storage.list(prefix):
                if _is_text(stat.path):
                    page.append((stat.path, stat.bytes))
                if len(page) >= PAGE:
                    changed += await self._paced(self._see(page, number))
                    page = []
            changed += await self._paced(self._see(page, number))
        reached: str | None = ""
        seen_before = _ALL if counts_anew else number
        while reached is not None:
            reached, recounted = await self._paced(self._recount_unseen(reached, seen_before))
            changed += recounted
        return changed

    async def _see(self, page: Sequence[tuple[str, int]], number: int) -> int:
        return await self._recount(await self._files.run(partial(see_files, self._place, page, number)))

    async def _recount_unseen(self, after: str, seen_before: int) -> tuple[str | None, int]:
        """Recount the next files that were not seen; return how far this came, and the changes."""
        page = await self._files.run(partial(files_page, self._place, after, seen_before))
        return page.reached, await self._recount([item.path for item in page.unseen])

    async def _recount(self, paths: Sequence[str]) -> int:
        changed = 0
        for path in paths:
            changed += await self._files.recount(path)
        return changed

    async def _import_uploads(self) -> int:
        """Let the stored uploads of the journal count for whom it says that they are from."""
        if not any(quota.per for quota in self._files.rules.counted if quota.limits.counts_stored):
            return 0
        before, changed = "~", 0  # behind every id
        while before:
            window = await asyncio.wrap_future(self._uploads.window(before, "", lambda _: True))
            before = window.reached or ""
            for start in range(0, len(window.uploads), PAGE):
                changed += await self._paced(self._import(window.uploads[start : start + PAGE]))
        return changed

    async def _import(self, uploads: Sequence[LoggedUpload]) -> int:
        changed = 0
        for upload in uploads:
            changed += not upload.pending and await self._import_upload(upload)
        return changed

    async def _import_upload(self, upload: LoggedUpload) -> bool:
        current = await self._files.find(upload.path)
        version = upload.id if self._files.place.in_bucket else upload.etag
        if current is None or current.version != version:
            return False
        owner = owner_of(upload.principal, upload.remote, self._variables_of(upload.path))
        keys = stored_keys(self._files.rules.of_file(owner, upload.path))
        before = await self._files.run(partial(read_file, self._place, upload.path))
        if not keys or (before is not None and before.owner):
            return False
        after = CountedFile(upload.id, current.version, current.bytes, owner, keys)
        await self._files.run(partial(replace_file, self._place, upload.path, before, after))
        return True

    async def _paced(self, work: Awaitable[T]) -> T:
        started = time.monotonic()
        result = await work
        await asyncio.sleep(PAUSE * (time.monotonic() - started))
        return result


def _is_text(path: str) -> bool:
    """Tell whether a path can be written to a database: names made by hand may be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path


SETTLE_INTERVAL: Final = 60.0
"""Seconds between two tries to write ends of uploads that could not be written."""

SCAN_INTERVAL: Final = 3600.0
BUCKET_SCAN_INTERVAL: Final = 24 * 3600.0
"""Seconds between two scans: those of a bucket cost requests."""


async def scan_periodically(scan: QuotaScan, interval: float, *, files: bool) -> None:
    """Scan at once and then again and again, until cancelled. What fails is tried again later."""
    while True:
        pause = interval
        try:
            if scan.is_needed():
                await scan.run(files=files)
        except (GatewayError, OSError) as error:
            pause = SETTLE_INTERVAL
            log.warning(
                "what is stored could not be compared with its quotas: %s",
                error,
                extra=event("quotas.unscanned"),
            )
        await asyncio.sleep(pause)
