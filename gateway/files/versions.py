"""Which version of which file an upload became, as the journal recorded it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.events.journal import Journal


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of a stored file.

    `etag` has no quotes; None: whatever the path leads to. `owner` is the base URL of the peer that
    stores it, None where the storage of this process does.
    """

    path: str
    etag: str | None = None
    owner: str | None = None


class UploadVersions(Protocol):
    """Finds the versions of uploads by their ids."""

    async def find(self, upload_ids: Sequence[str]) -> Mapping[str, FileVersion]:
        """Return the versions of those uploads that are known."""


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
            return {upload_id: FileVersion(path, etag) for upload_id, (path, etag) in objects.items()}
        recorded = await asyncio.wrap_future(self._journal.outbox.recorded_uploads(upload_ids))
        return {
            upload_id: FileVersion(path, identity.etag)
            for upload_id, (path, identity) in recorded.items()
        }
