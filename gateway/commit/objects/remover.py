"""Removes objects of the bucket for clients.

Always in this order: the version is looked at, recorded with its event (held), removed by one request
with its entity tag, its event released. What S3 certainly refused is undone. Where the outcome is
unknown S3 is queried; if it is not known in time the client gets no answer, and it is settled later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.commit.deletion import DeletionEvents, version_mismatch
from gateway.commit.failures import refusal_of
from gateway.commit.objects.committer import OUTCOME_DELAYS
from gateway.commit.objects.reconciler import LATE_REQUEST_TIMEOUT
from gateway.domain import failpoints
from gateway.domain.model import FileRequest
from gateway.errors import GatewayError, Refusal, Superseded, UnknownOutcome
from gateway.events.deletions import DeletionLog, DeletionRecord, PendingDeletion
from gateway.storage.protocols import FolderStorage, Stat
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.encoding import UPLOAD_ID_NAME, PrefixedKeys
from gateway.storage.s3.retries import KeyExistsError, OutcomeUnknownError
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

MAX_TRIES: Final = 5
"""How often an object is tried that is replaced between its head and its removal."""

QUERY_INTERVAL: Final = 5.0
"""Seconds between two queries for removals whose outcome is unknown."""


@dataclass(slots=True)
class ObjectRemover:
    """A bucket as a `FileRemover`. `storage` reads it, `objects` removes."""

    storage: FolderStorage
    objects: BucketClient
    keys: PrefixedKeys
    log_of: DeletionLog
    events: DeletionEvents
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _settling: asyncio.Task[None] | None = None
    _unsettled: dict[str, tuple[PendingDeletion, float]] = field(default_factory=dict)

    async def remove(self, deletion: FileRequest, etags: Collection[str] | None = None) -> None:
        """See `FileRemover.remove`."""
        task = asyncio.create_task(self._remove(deletion, etags))
        self._running.add(task)
        task.add_done_callback(self._forget_task)
        await asyncio.shield(task)

    def take_over(self, rows: Sequence[PendingDeletion]) -> None:
        """Settle removals in the background; their events are held."""
        deadline = time.monotonic() + LATE_REQUEST_TIMEOUT
        for row in rows:
            if (row.place or {}).get("bucket") == self.objects.bucket:
                self._unsettled[row.id] = row, deadline
            else:
                log.error(
                    "the removal of %s waits for the bucket %s, which is not the one of --storage",
                    row.path,
                    (row.place or {}).get("bucket"),
                    extra=event("deletion.unsettled", path=row.path),
                )

    async def start(self) -> None:
        """Begin to settle."""
        self._settling = asyncio.create_task(self._settle_unknown())

    async def _settle_unknown(self) -> None:
        """Query for removals whose outcome is unknown, until cancelled."""
        while True:
            for row, deadline in list(self._unsettled.values()):
                try:
                    if await self._settle(row, deadline):
                        del self._unsettled[row.id]
                except (GatewayError, sqlite3.Error) as error:
                    log.warning(
                        "the removal of %s cannot be settled now: %s",
                        row.path,
                        error,
                        extra=event("deletion.unsettled", path=row.path),
                    )
            await asyncio.sleep(QUERY_INTERVAL)

    async def close(self) -> None:
        """Wait for what is being removed."""
        if self._running:
            await asyncio.wait(self._running)
        if self._settling is not None:
            self._settling.cancel()
            await asyncio.gather(self._settling, return_exceptions=True)

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # mark it as retrieved

    async def _remove(self, deletion: FileRequest, etags: Collection[str] | None) -> None:
        for _ in range(MAX_TRIES):
            stat = await self._find(deletion.path)
            if etags is not None and stat.etag not in etags:
                raise version_mismatch(stat.path)
            with contextlib.suppress(Superseded):
                return await self._remove_version(deletion, stat)
            if etags is not None:
                raise version_mismatch(stat.path)
        raise Refusal("overloaded", "the file is being replaced again and again")

    async def _find(self, path: str) -> Stat:
        """Describe the object. Raises `Refusal`, `conflict` for a folder."""
        try:
            return await self.storage.stat(path)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            missing = refusal
        with contextlib.suppress(Refusal):
            await self.storage.list_folder(f"{path}/", limit=1)
            missing = Refusal("conflict", f"{path} is a folder: only files are removed")
        raise missing

    async def _remove_version(self, deletion: FileRequest, stat: Stat) -> None:
        """Remove this version. Raises `Superseded` where another one has its place (nothing is left)."""
        record = self.events.record(deletion, stat, self._place(stat))
        row = PendingDeletion(record.id, record.path, record.etag, record.place)
        await self._record(record)
        failpoints.hit("after deletion recorded")
        try:
            await self.objects.delete_version(self.keys.key_of(stat.path), stat.etag)
        except KeyExistsError as error:
            if await self._is_replaced(row):
                await self._undo(row)
                raise Superseded(f"{stat.path} has been replaced meanwhile") from error
        except Refusal as refusal:
            if refusal.code != "not_found":
                await self._undo(row)
                raise
        except OutcomeUnknownError as error:
            await self._query_outcome(row, error)
        except BaseException:
            self.take_over([row])
            raise
        failpoints.hit("after unlink")
        try:
            await asyncio.wrap_future(self.log_of.settle([row.id]))
        except sqlite3.Error as error:
            # It is gone and its event is released; the note is made at the next start.
            log.warning("a removal could not be noted: %s", error, extra=event("deletion.unsettled"))
        failpoints.hit("after deletion sync")

    async def _is_replaced(self, row: PendingDeletion) -> bool:
        """Tell whether another object has the place of one that was not removed for its entity tag.

        Nothing has it where the HTTP client has repeated a DELETE whose response was lost, or where
        another client has removed the object at the same moment. Raises `UnknownOutcome`.
        """
        try:
            await self.storage.stat(row.path)
        except Refusal as refusal:
            if refusal.code == "not_found":
                return False
            self.take_over([row])
            raise UnknownOutcome(f"it is not known whether S3 has removed {row.path}") from refusal
        return True

    def _place(self, stat: Stat) -> dict[str, Any]:
        return {
            "bucket": self.objects.bucket,
            "key": self.keys.key_of(stat.path),
            "upload_id": stat.metadata.get(UPLOAD_ID_NAME),
            "modified": stat.modified,
        }

    async def _record(self, record: DeletionRecord) -> None:
        try:
            await asyncio.wrap_future(self.log_of.record(record))
        except Exception as error:
            raise refusal_of(error) from error

    async def _undo(self, row: PendingDeletion) -> None:
        """Delete the row of an object that stays, durably; else later."""
        try:
            await asyncio.wrap_future(self.log_of.forget([row.id]))
        except sqlite3.Error:
            self._unsettled[row.id] = row, time.monotonic()

    async def _query_outcome(self, row: PendingDeletion, error: Exception) -> None:
        """Query whether the object is gone. Raises `UnknownOutcome`."""
        for delay in OUTCOME_DELAYS:
            await asyncio.sleep(delay)
            with contextlib.suppress(GatewayError):
                if not await self._is_there(row):
                    return
        self.take_over([row])
        raise UnknownOutcome(f"it is not known whether S3 has removed {row.path}: {error}")

    async def _settle(self, row: PendingDeletion, deadline: float) -> bool:
        """Query once; return whether the removal is settled."""
        if not await self._is_there(row):
            await asyncio.wrap_future(self.log_of.settle([row.id]))
            message = "%s is gone from the bucket: the handlers of its removal will run"
            log.info(message, row.path, extra=event("deletion.settled", path=row.path, removed=True))
            return True
        if time.monotonic() < deadline:
            return False
        await asyncio.wrap_future(self.log_of.forget([row.id]))
        message = "%s, whose removal was never answered, stays in the bucket"
        log.info(message, row.path, extra=event("deletion.settled", path=row.path, removed=False))
        return True

    async def _is_there(self, row: PendingDeletion) -> bool:
        """Tell whether the object is still the version that was to be removed. Raises `Refusal`."""
        place = row.place or {}
        try:
            stat = await self.storage.stat(row.path)
        except Refusal as refusal:
            if refusal.code == "not_found":
                return False
            raise
        version = stat.etag, stat.metadata.get(UPLOAD_ID_NAME), stat.modified
        return version == (row.etag, place.get("upload_id"), place.get("modified"))
