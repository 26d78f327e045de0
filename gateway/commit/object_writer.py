"""The writer of a bucket: a body goes on to S3 while it comes; nothing is visible before its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from gateway.commit.object_commit import ObjectCommit, ObjectCommitter
from gateway.commit.object_names import ReservedNames
from gateway.commit.publish import check_target
from gateway.commit.records import LocalDisk
from gateway.domain import paths
from gateway.domain.model import Stored, Upload
from gateway.storage.s3.upload import MultipartUpload, UploadContext


class ObjectWriter:
    """A bucket as a `StorageWriter`. The local `disk` needs space for the journal."""

    def __init__(
        self, names: ReservedNames, context: UploadContext, committer: ObjectCommitter, disk: LocalDisk
    ) -> None:
        self._names = names
        self._context = context
        self._committer = committer
        self._disk = disk
        self._active: set[str] = set()

    def is_active(self, upload_id: str) -> bool:
        """Tell whether an upload is on its way here."""
        return upload_id in self._active

    async def begin(
        self, upload: Upload, algorithms: Sequence[str] = (), *, must_exist: bool = False
    ) -> ObjectPendingWrite:
        """See `StorageWriter.begin`."""
        key = self._names.keys.key_of("/" + "/".join(paths.check_path(upload.path)))
        exists = await self._context.objects.head_object(key) is not None
        check_target(upload, exists=exists, must_exist=must_exist)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._disk.executor, self._disk.space.check, 1)
        return await self._begin(upload, algorithms)

    async def store(self, upload: Upload, content: bytes, *, from_client: bool) -> Stored:
        """See `StorageWriter.store`."""
        pending = await self._begin(upload)
        try:
            await pending.write(content)
        except BaseException:
            await pending.discard()
            raise
        return await pending.commit({}, from_client=from_client)

    async def _begin(self, upload: Upload, algorithms: Sequence[str] = ()) -> ObjectPendingWrite:
        """Begin a body. With `rename` its name is chosen now: a multipart upload keeps its key."""
        path = "/" + "/".join(paths.check_path(upload.path))
        self._active.add(upload.id)
        try:
            if upload.on_conflict == "rename" and not upload.must_be_new:
                path = await self._names.reserve_free_path(upload, path)
            body = MultipartUpload(
                self._context,
                self._names.target(upload, path),
                upload.content_length,
                algorithms,
                done=lambda: self._end(upload.id),
            )
        except BaseException:
            self._end(upload.id)  # there is no body that would
            raise
        return ObjectPendingWrite(upload, body, self._committer)

    def _end(self, upload_id: str) -> None:
        self._active.discard(upload_id)
        self._names.release_names(upload_id)


class ObjectPendingWrite:
    """One body on its way into the bucket."""

    threaded = None
    """All bytes go through the event loop: there the requests to S3 run."""

    def __init__(self, upload: Upload, body: MultipartUpload, committer: ObjectCommitter) -> None:
        self._upload = upload
        self._body = body
        self._committer = committer

    async def write(self, chunk: bytes) -> None:
        """See `PendingWrite.write`."""
        await self._body.write(chunk)

    async def finish(self) -> None:
        """See `PendingWrite.finish`."""
        await self._body.finish()

    def digest(self, algorithm: str) -> bytes:
        """See `PendingWrite.digest`."""
        return self._body.digest(algorithm)

    async def commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        """See `PendingWrite.commit`."""
        commit = ObjectCommit(self._upload, self._body, dict(digests), from_client)
        return await self._committer.commit(commit)

    async def discard(self) -> None:
        """See `PendingWrite.discard`."""
        await self._body.discard()
