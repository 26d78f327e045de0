"""The very file that was committed, by inode, or `Superseded`.

What scripts know as `files`. A path may meanwhile hold a newer upload; opening compares the
identity of the open descriptor, removing happens between batches of the committer, and while no
other process gives names, so that no newer file can slip in.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

from gateway.commit.committer import Committer
from gateway.commit.rename_lock import RenameLock
from gateway.domain import paths
from gateway.domain.model import Identity
from gateway.errors import Refusal, Superseded
from gateway.events.outbox import JournalOutbox
from gateway.storage.local.tree import DirectoryTree


class FileVersions(abc.ABC):
    """`open` and `remove` for what an event speaks of, of any storage. Callable from any event loop."""

    def __init__(self, outbox: JournalOutbox) -> None:
        self._outbox = outbox

    @contextlib.asynccontextmanager
    async def open(self, event: Mapping[str, Any]) -> AsyncIterator[AsyncBufferedReader]:
        """Open the committed file for reading, as `aiofiles.open(..., "rb")` would.

        Raises `Superseded` when it has been replaced, changed or removed since.
        """
        path, identity = await self.recorded(str(event["upload_id"]))
        async with aiofiles.open(await self.open_very(path, identity), "rb") as reader:
            yield reader

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Delete the committed file, durably. Raises `Superseded` as `open` does."""
        await self.remove_very(*await self.recorded(str(event["upload_id"])))

    async def recorded(self, upload_id: str) -> tuple[str, Identity]:
        """Return the path and identity of an upload. Raises `Superseded` for one that is unknown."""
        found = await asyncio.wrap_future(self._outbox.recorded([upload_id]))
        if upload_id not in found:
            raise Superseded(f"the journal knows no upload {upload_id} (any more)")
        return found[upload_id]

    @abc.abstractmethod
    async def open_very(self, path: str, identity: Identity) -> int:
        """Return a descriptor of this very file, to be closed by the caller. Raises `Superseded`."""

    @abc.abstractmethod
    async def remove_very(self, path: str, identity: Identity) -> None:
        """Delete this very file, durably. Raises `Superseded`."""


class LocalFileVersions(FileVersions):
    """The files below DIRECTORY."""

    def __init__(
        self,
        tree: DirectoryTree,
        outbox: JournalOutbox,
        committer: Committer,
        gate: RenameLock | None = None,
    ) -> None:
        super().__init__(outbox)
        self._tree = tree
        self._committer = committer
        self._alone = contextlib.nullcontext if gate is None else gate.exclusive

    async def open_very(self, path: str, identity: Identity) -> int:
        """Return a descriptor of this very file, to be closed by the caller. Raises `Superseded`."""
        return await asyncio.to_thread(self._open_same, path, identity)

    async def remove_very(self, path: str, identity: Identity) -> None:
        """Delete this very file, durably. Raises `Superseded`."""
        await self._committer.between_batches(lambda: self._remove_same(path, identity))

    def _open_same(self, path: str, identity: Identity) -> int:
        try:
            fd = self._tree.open_file(paths.check(path))
        except FileNotFoundError:
            raise Superseded(f"{path} has been removed since it was uploaded") from None
        except Refusal as refusal:
            # A link or a folder where a file was stored.
            raise Superseded(f"{path} is no longer what was uploaded: {refusal.message}") from None
        if identity_of(os.fstat(fd)) != identity:
            os.close(fd)
            raise Superseded(f"{path} has been replaced or changed since it was uploaded")
        return fd

    def _remove_same(self, path: str, identity: Identity) -> None:
        segments = paths.check(path)
        with contextlib.ExitStack() as held:
            with self._alone():
                os.close(self._open_same(path, identity))
                parent = held.enter_context(self._tree.open_parent(segments))
                os.unlink(parent.name, dir_fd=parent.fd)
            parent.sync()


def identity_of(status: os.stat_result) -> Identity:
    """Return which very file it is that a stat describes."""
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
