"""The intake of a local directory, for whoever stores without being a client.

One rule: the same road as every upload: a private body, a promise of space, the committer. On the
server's loop; all disk work in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from gateway.commit.committer import Committer
from gateway.commit.disk_space import DiskSpace, Reservation
from gateway.commit.records import CommitRequest
from gateway.commit.writer import WriteMetadata
from gateway.domain import paths
from gateway.domain.model import Stored, Upload
from gateway.storage.local.incoming import IncomingDirectory, IncomingFile
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import encode_xattr

T = TypeVar("T")


class LocalPendingWrite:
    """One body on its way to a file, as `Landing`."""

    def __init__(self, body: IncomingFile, share: Reservation, disk: Executor) -> None:
        self.body = body
        self.share = share
        self._disk = disk

    async def write(self, piece: bytes) -> None:
        """Write the next bytes. Raises `Refusal("no_space")`, `OSError`."""
        await self._in_thread(lambda: self._write(piece))

    def _write(self, piece: bytes) -> None:
        self.share.use(len(piece))
        self.body.write((piece,))

    async def finish(self) -> None:
        """Say that all bytes are here; the committer does the rest."""

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of all bytes, by its `hashlib` name."""
        return self.body.digest(algorithm)

    async def discard(self) -> None:
        """Leave no trace of it."""
        self.share.close()
        await self._in_thread(self.body.discard)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Work on the body. Whoever is cancelled still waits: nobody else may touch it meanwhile."""
        working = asyncio.get_running_loop().run_in_executor(self._disk, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise


class LocalWriter:
    """DIRECTORY as an `Intake`. `mode` are the permission bits of published files."""

    def __init__(
        self,
        tree: DirectoryTree,
        incoming: IncomingDirectory,
        committer: Committer,
        reserve: DiskSpace,
        *,
        disk: Executor,
        mode: int,
        durable: bool,
    ) -> None:
        self._tree = tree
        self._incoming = incoming
        self._committer = committer
        self._reserve = reserve
        self._disk = disk
        self._mode = mode
        self._durable = durable

    async def exists(self, path: str) -> bool:
        """Tell whether a file has this path. Raises `Refusal`, also for what no file may be called."""
        segments = paths.check(path)
        return await self._in_thread(lambda: self._tree.lstat(segments) is not None)

    async def begin(
        self, upload: Upload, mime: str, algorithms: Sequence[str] = ()
    ) -> LocalPendingWrite:
        """Begin the body of an upload. Raises `Refusal`: a bad or protected path, no space."""
        await self.exists(upload.path)
        share = await self._in_thread(lambda: self._reserve.admit(upload.content_length))
        body = self._incoming.create(upload.id, self._mode, algorithms)
        body.xattr = encode_xattr(upload.path, mime, upload.metadata)
        if self._durable:
            body.start_writeback()
        return LocalPendingWrite(body, share, self._disk)

    async def commit(self, upload: Upload, body: LocalPendingWrite, deed: WriteMetadata) -> Stored:
        """Make a body that has ended a file; see `Intake.commit`."""
        try:
            order = CommitRequest(upload, body.body, deed.mime, deed.digests, deed.tell)
            return await self._committer.commit(order)
        finally:
            body.share.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)
