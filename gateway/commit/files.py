"""Commit room: the very file that was committed, by inode, or `Superseded`.

What scripts know as `files`. A path may meanwhile hold a newer upload; opening compares the
identity of the open descriptor, removing happens between batches of the committer so that no
newer file can slip in. May import events, storage, paths, model, errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

from gateway import paths
from gateway.commit.committer import Committer
from gateway.errors import Refusal, Superseded
from gateway.events.outbox import Outbox
from gateway.model import Identity
from gateway.storage.tree import Tree


class CommittedFiles:
    """`open` and `remove` for the file that an event speaks of. Callable from any event loop."""

    def __init__(self, tree: Tree, outbox: Outbox, committer: Committer) -> None:
        self._tree = tree
        self._outbox = outbox
        self._committer = committer

    @contextlib.asynccontextmanager
    async def open(self, event: Mapping[str, Any]) -> AsyncIterator[AsyncBufferedReader]:
        """Open the committed file for reading, as `aiofiles.open(..., "rb")` would.

        Raises `Superseded` when it has been replaced, changed or removed since.
        """
        path, identity = await self._recorded(event)
        fd = await asyncio.to_thread(self._open_same, path, identity)
        async with aiofiles.open(fd, "rb") as reader:
            yield reader

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Delete the committed file, durably. Raises `Superseded` as `open` does."""
        path, identity = await self._recorded(event)
        await self._committer.between_batches(lambda: self._remove_same(path, identity))

    async def _recorded(self, event: Mapping[str, Any]) -> tuple[str, Identity]:
        upload_id = str(event["upload_id"])
        found = await asyncio.wrap_future(self._outbox.recorded([upload_id]))
        if upload_id not in found:
            raise Superseded(f"the journal knows no upload {upload_id} (any more)")
        return found[upload_id]

    def _open_same(self, path: str, identity: Identity) -> int:
        try:
            fd = self._tree.open(paths.check(path))
        except FileNotFoundError:
            raise Superseded(f"{path} has been removed since it was uploaded") from None
        except Refusal as refusal:
            # A link or a folder where a file was stored.
            raise Superseded(f"{path} is no longer what was uploaded: {refusal.message}") from None
        if _identity(os.fstat(fd)) != identity:
            os.close(fd)
            raise Superseded(f"{path} has been replaced or changed since it was uploaded")
        return fd

    def _remove_same(self, path: str, identity: Identity) -> None:
        segments = paths.check(path)
        os.close(self._open_same(path, identity))
        with self._tree.parent(segments) as parent:
            os.unlink(parent.name, dir_fd=parent.fd)
            parent.sync()


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
