"""The writer of a local directory: a private file, reserved space, then the committer. In threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from gateway.commit.committer import Committer, Done
from gateway.commit.disk import Reservation
from gateway.commit.failures import discard_quietly, refusal_of
from gateway.commit.publish import check_target
from gateway.commit.records import CommitRequest, LocalDisk
from gateway.commit.writer import ThreadedWrite, media_type
from gateway.domain import failpoints, paths
from gateway.domain.model import Stored, Upload
from gateway.limits import client_key
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES, IncomingFile
from gateway.storage.local.xattrs import encode_xattr
from gateway.storage.waiting import finish, finish_in_thread, wait_ended

MAX_CHUNKS: Final = 512
"""Chunks buffered per body: a client that sends byte by byte must not cost an object for each."""

MAX_BATCH_BYTES: Final = 1 << 20
MIN_BATCH_BYTES: Final = 64 << 10
MAX_BUFFERED_BYTES: Final = 64 << 20
"""Bytes of all bodies that may wait in memory; beyond it each body is written in smaller batches."""


class WriteBuffers:
    """The memory in which the bodies of a process wait to be written. `used` is in bytes."""

    def __init__(self) -> None:
        self.used = 0

    @property
    def batch_bytes(self) -> int:
        """How many bytes of a body are gathered before they are written."""
        return MAX_BATCH_BYTES if self.used < MAX_BUFFERED_BYTES else MIN_BATCH_BYTES


class LocalWriter:
    """DIRECTORY as a `StorageWriter`. `file_mode` are the permission bits of published files, `digest`
    is the algorithm of `--digest`."""

    def __init__(
        self, disk: LocalDisk, committer: Committer, file_mode: int, digest: str | None = None
    ) -> None:
        self._disk = disk
        self._committer = committer
        self._file_mode = file_mode
        self._digest = digest
        self.buffers = WriteBuffers()

    async def begin(
        self, upload: Upload, algorithms: Sequence[str] = (), *, must_exist: bool = False
    ) -> LocalPendingWrite:
        """See `StorageWriter.begin`. The target and the space cost one visit of a thread."""
        reserving = asyncio.get_running_loop().run_in_executor(
            self._disk.executor, partial(self._reserve, upload, must_exist=must_exist)
        )
        try:
            reservation = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(_close_reservation)
            raise
        except OSError as error:
            raise refusal_of(error) from error
        file = self._file(upload, algorithms)
        if self._disk.durable:
            file.start_writeback()
        return LocalPendingWrite(upload, file, reservation, self._committer, self._disk, self.buffers)

    async def store(self, upload: Upload, content: bytes, *, from_client: bool) -> Stored:
        """See `StorageWriter.store`."""
        return await self._committer.commit(self._request(upload, content, from_client=from_client))

    def submit(self, upload: Upload, content: bytes, done: Done) -> None:
        """Commit a small body of a client's upload as `store` does; see `Committer.submit`."""
        self._committer.submit(self._request(upload, content, from_client=True), done)

    def _request(self, upload: Upload, content: bytes, *, from_client: bool) -> CommitRequest:
        file = self._file(upload)
        file.buffer(content)
        mime = media_type(upload)
        return CommitRequest(upload, file, mime, {}, from_client=from_client, space_reserved=False)

    def _file(self, upload: Upload, algorithms: Sequence[str] = ()) -> IncomingFile:
        file = self._disk.incoming.create(upload.id, self._file_mode, algorithms, self._digest)
        file.xattr = encode_xattr(upload.path, upload.content_type, upload.metadata)
        return file

    def _reserve(self, upload: Upload, *, must_exist: bool) -> Reservation:
        exists = self._disk.tree.lstat_target(paths.check_path(upload.path)) is not None
        check_target(upload, exists=exists, must_exist=must_exist)
        return self._disk.space.reserve(
            upload.content_length, client_key(upload.principal, upload.remote)
        )


class LocalPendingWrite:
    """One body on its way to a file.

    Chunks are buffered on the event loop and written by a thread in large batches; while a batch is
    written the buffer of the connection fills, then back-pressure stops the client.
    """

    def __init__(
        self,
        upload: Upload,
        file: IncomingFile,
        reservation: Reservation,
        committer: Committer,
        disk: LocalDisk,
        buffers: WriteBuffers,
    ) -> None:
        self._upload = upload
        self._file = file
        self._reservation = reservation
        self._committer = committer
        self._disk = disk
        self._buffers = buffers
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._work: asyncio.Future[None] | None = None

    @property
    def threaded(self) -> ThreadedWrite:
        """See `PendingWrite.threaded`."""
        return self

    async def write(self, chunk: bytes) -> None:
        """Buffer the next bytes; write them where enough have come. Raises `Refusal`."""
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        self._buffers.used += len(chunk)
        if self._buffered >= self._buffers.batch_bytes or len(self._chunks) >= MAX_CHUNKS:
            await self._flush()

    async def finish(self) -> None:
        """Write the rest. A small body stays in memory, for the committer to write. Raises `Refusal`."""
        file, size = self._file, self._buffered
        if file.received or file.hashing or size > MAX_IN_MEMORY_BYTES:
            if self._chunks:
                await self._flush()
            return
        if self._reservation.covers(size):
            self._reservation.use(size)
        else:  # the file system is asked
            await self._in_thread(lambda: self._reservation.use(size))
        file.buffer(b"".join(self._release_buffer()))

    def digest(self, algorithm: str) -> bytes:
        """See `PendingWrite.digest`."""
        return self._file.digest(algorithm)

    async def commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        """See `PendingWrite.commit`."""
        upload = self._upload
        request = CommitRequest(
            upload, self._file, media_type(upload), dict(digests), from_client=from_client
        )
        try:
            return await self._committer.commit(request)
        finally:
            self._reservation.close()

    async def discard(self) -> None:
        """Remove the body, after whatever a thread still does with it."""
        self._release_buffer()
        if self._work is not None:
            await wait_ended(self._work)
        self._reservation.close()
        await finish_in_thread(discard_quietly, self._file, executor=self._disk.executor)

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """See `ThreadedWrite.append`."""
        self._reservation.use(sum(map(len, chunks)))
        self._file.write(chunks)

    def start_in_thread(self, work: Callable[[], None], executor: Executor) -> asyncio.Future[None]:
        """See `ThreadedWrite.start_in_thread`."""
        self._work = asyncio.get_running_loop().run_in_executor(executor, work)
        return self._work

    async def _flush(self) -> None:
        chunks = self._chunks
        await self._in_thread(lambda: self.append(chunks))
        self._release_buffer()
        failpoints.hit("mid body")

    def _release_buffer(self) -> list[bytes]:
        """Return what is buffered; it counts no more."""
        chunks, size = self._chunks, self._buffered
        self._chunks, self._buffered = [], 0
        self._buffers.used -= size
        return chunks

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Work on the body in a thread. A cancelled caller still waits: the thread uses the body."""
        try:
            await finish(self.start_in_thread(work, self._disk.executor))
        except OSError as error:
            raise refusal_of(error) from error


def _close_reservation(reserving: asyncio.Future[Reservation]) -> None:
    """Release the space that a cancelled caller did not wait for."""
    if not reserving.cancelled() and reserving.exception() is None:
        reserving.result().close()
