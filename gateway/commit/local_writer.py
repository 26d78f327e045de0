"""The writer of a local directory: a private file, reserved space, then the committer. In threads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from gateway.commit.batched_write import BatchedWrite, WriteBuffers
from gateway.commit.committer import Committer, Done
from gateway.commit.disk import Reservation
from gateway.commit.failures import discard_quietly, refusal_of
from gateway.commit.held.local_holder import HoldRequest, LocalHolder, hold_body
from gateway.commit.publish import check_target
from gateway.commit.records import CommitRequest, LocalDisk
from gateway.commit.writer import media_type
from gateway.domain import paths
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.limits import client_key
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES, IncomingFile
from gateway.storage.local.xattrs import encode_xattr


class LocalWriter:
    """DIRECTORY as a `StorageWriter`. `file_mode` are the permission bits of published files, `digest`
    is the algorithm of `--digest`. `holder` keeps what waits for a decision."""

    def __init__(
        self,
        disk: LocalDisk,
        committer: Committer,
        file_mode: int,
        digest: str | None = None,
        holder: LocalHolder | None = None,
    ) -> None:
        self._disk = disk
        self._committer = committer
        self.file_mode = file_mode
        self.computed_digest = digest
        self.holder = holder
        self.buffers = WriteBuffers()

    async def begin(
        self,
        upload: Upload,
        algorithms: Sequence[str] = (),
        *,
        must_exist: bool = False,
        staged: bool = False,
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
        return LocalPendingWrite(upload, file, reservation, self._committer, self._disk, self)

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
        file = self._disk.incoming.create(upload.id, self.file_mode, algorithms, self.computed_digest)
        file.xattr = xattr_of(upload)
        return file

    def _reserve(self, upload: Upload, *, must_exist: bool) -> Reservation:
        exists = self._disk.tree.lstat_target(paths.check_path(upload.path)) is not None
        check_target(upload, exists=exists, must_exist=must_exist)
        return self._disk.space.reserve(
            upload.content_length, client_key(upload.principal, upload.remote)
        )


class LocalPendingWrite(BatchedWrite):
    """One body on its way to a file."""

    def __init__(
        self,
        upload: Upload,
        file: IncomingFile,
        reservation: Reservation,
        committer: Committer,
        disk: LocalDisk,
        writer: LocalWriter,
    ) -> None:
        super().__init__(writer.buffers, disk.executor)
        self._holder = writer.holder
        self._upload = upload
        self._file = file
        self._reservation = reservation
        self._committer = committer

    async def finish(self) -> None:
        """Write the rest. A small body stays in memory, for the committer to write. Raises `Refusal`."""
        file, size = self._file, self._buffered
        if file.received or file.digests.are_expected or size > MAX_IN_MEMORY_BYTES:
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
        return self._file.digests.digest(algorithm)

    async def stage(self) -> PrivateFile:
        """See `PendingWrite.stage`. A body that is in memory is written to its private file."""
        await self._in_thread(self._file.flush)
        return PrivateFile(self._file.size, self._file.path)

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `PendingWrite.hold`."""
        upload, file = self._upload, self._file
        file.xattr = xattr_of(upload)
        try:
            return await hold_body(self._holder, HoldRequest(upload, file, dict(digests), handlers))
        finally:
            self._reservation.close()

    async def commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        """See `PendingWrite.commit`."""
        upload = self._upload
        self._file.xattr = xattr_of(upload)
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
        await self._work_ended()
        self._reservation.close()
        await self._in_thread(lambda: discard_quietly(self._file))

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """See `ThreadedWrite.append`."""
        self._reservation.use(sum(map(len, chunks)))
        self._file.write(chunks)


def xattr_of(upload: Upload) -> bytes | None:
    """Return what the file keeps of the upload's type and metadata, None where its name says as much."""
    return encode_xattr(upload.path, upload.content_type, upload.metadata)


def _close_reservation(reserving: asyncio.Future[Reservation]) -> None:
    """Release the space that a cancelled caller did not wait for."""
    if not reserving.cancelled() and reserving.exception() is None:
        reserving.result().close()
