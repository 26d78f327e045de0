"""Which version of which file an upload became, as the journal recorded it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import Superseded
from gateway.events.journal import Journal
from gateway.storage.protocols import Stat, Storage
from gateway.storage.s3.encoding import UPLOAD_ID_NAME


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of a stored file.

    `etag` has no quotes; None: whatever the path leads to. `owner` is the base URL of the peer that
    stores it, None where the storage of this process does. `upload_id` is set for an object of a
    bucket: two uploads of the same bytes have the same entity tag there.
    """

    path: str
    etag: str | None = None
    owner: str | None = None
    upload_id: str | None = None

    def check_upload(self, stat: Stat) -> None:
        """Raise `Superseded` where `stat` is of another upload. A store may forget metadata."""
        if self.upload_id is None or UPLOAD_ID_NAME not in stat.metadata:
            return
        if stat.metadata[UPLOAD_ID_NAME] != self.upload_id:
            raise Superseded(f"{self.path} has been replaced since it was uploaded")

    async def delete(self, storage: Storage) -> None:
        """Remove this version. Raises `Refusal`, `Superseded` as `Storage.delete` does."""
        if self.upload_id is not None:
            self.check_upload(await storage.stat(self.path))
        await storage.delete(self.path, self.etag)


class UploadVersions(Protocol):
    """Finds the versions of uploads by their ids."""

    async def find(self, upload_ids: Sequence[str]) -> Mapping[str, FileVersion]:
        """Return the versions of those uploads that are known."""

    async def moved(self, upload_id: str, stat: Stat) -> None:
        """Note that the file of an upload is at another path now. Raises `sqlite3.Error`."""


class JournalVersions:
    """The versions in a journal. Callable from any event loop.

    With `objects` they are the objects of a bucket, whose entity tag the bucket gave; else files, whose
    entity tag is computed from what the journal recorded of them.
    """

    def __init__(self, journal: Journal, *, objects: bool = False) -> None:
        self._journal = journal
        self._objects = objects

    async def find(self, upload_ids: Sequence[str]) -> Mapping[str, FileVersion]:
        """Return the versions of those uploads that the journal still holds."""
        if self._objects:
            objects = await asyncio.wrap_future(
                self._journal.pending_uploads.published_objects(upload_ids)
            )
            return {
                upload_id: FileVersion(path, etag, upload_id=upload_id)
                for upload_id, (path, etag) in objects.items()
            }
        recorded = await asyncio.wrap_future(self._journal.outbox.recorded_uploads(upload_ids))
        return {
            upload_id: FileVersion(path, identity.etag)
            for upload_id, (path, identity) in recorded.items()
        }

    async def moved(self, upload_id: str, stat: Stat) -> None:
        """Note in the journal where the file of an upload is now; it may be another process's."""
        await asyncio.wrap_future(self._journal.outbox.record_move(upload_id, stat.path, stat.etag))
