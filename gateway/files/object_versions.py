"""The very object that was committed, known by the upload id that it bears.

One rule: as with files, a newer object under the same key is never read or removed for it. What is
opened is fetched into a temporary file first, so that a script reads it like any other. Callable
from any event loop.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import IO

from gateway.commit.object_names import identity_of_upload
from gateway.domain.model import Identity
from gateway.errors import Refusal, Superseded
from gateway.events.outbox import JournalOutbox
from gateway.files.versions import FileVersions
from gateway.storage.protocols import Stat, Storage
from gateway.storage.s3.parts import OWNER


class ObjectVersions(FileVersions):
    """`open` and `remove` for the object that an event speaks of."""

    def __init__(self, shelf: Storage, outbox: JournalOutbox) -> None:
        super().__init__(outbox)
        self._shelf = shelf

    async def open_very(self, path: str, identity: Identity) -> int:
        """Return a descriptor of a copy of this very object. Raises `Superseded`, `Refusal`."""
        try:
            async with self._shelf.open(path) as opened:
                _compare(opened.stat, identity)
                with await asyncio.to_thread(tempfile.TemporaryFile) as copy:
                    async for piece in opened:
                        await asyncio.to_thread(copy.write, piece)
                    return await asyncio.to_thread(_rewound, copy)
        except Refusal as refusal:
            raise _gone(path, refusal) from None

    async def remove_very(self, path: str, identity: Identity) -> None:
        """Delete this very object. Raises `Superseded`, `Refusal`."""
        try:
            stat = await self._shelf.stat(path)
            _compare(stat, identity)
            await self._shelf.delete(path, stat.etag)
        except Refusal as refusal:
            raise _gone(path, refusal) from None


def _rewound(copy: IO[bytes]) -> int:
    copy.seek(0)
    return os.dup(copy.fileno())


def _compare(stat: Stat, identity: Identity) -> None:
    if identity_of_upload(stat.metadata.get(OWNER, ""), stat.bytes) != identity:
        raise Superseded(f"{stat.path} has been replaced or changed since it was uploaded")


def _gone(path: str, refusal: Refusal) -> Exception:
    if refusal.code != "not_found":
        return refusal
    return Superseded(f"{path} has been removed since it was uploaded")
