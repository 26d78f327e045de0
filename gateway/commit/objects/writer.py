"""Writes bodies into a bucket: they go on to S3 while they come, and are visible after their commit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from gateway.commit.objects.body import ObjectCommit
from gateway.commit.objects.committer import ObjectCommitter
from gateway.commit.objects.names import ReservedNames
from gateway.commit.objects.staged_write import ObjectStagedWrite
from gateway.commit.objects.staging import ObjectStaging
from gateway.commit.publish import check_target
from gateway.commit.records import LocalDisk
from gateway.commit.writer import PendingWrite
from gateway.domain import paths
from gateway.domain.digests import named_digests
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.errors import Refusal
from gateway.limits import FairShare, Lease, client_key
from gateway.storage.s3.encoding import ObjectTarget
from gateway.storage.s3.part_sender import UploadContext
from gateway.storage.s3.parts import UNRESERVED_BYTES
from gateway.storage.s3.upload import MultipartUpload

MAX_STREAMS: Final = 1000
"""Uploads into the bucket of more than 64 KiB in flight, of which each client gets its share.

Each may hold a connection to the bucket for as long as its client sends.
"""


class ObjectWriter:
    """A bucket as a `StorageWriter`. The local `disk` needs space for the journal."""

    def __init__(
        self,
        names: ReservedNames,
        context: UploadContext,
        committer: ObjectCommitter,
        staging: ObjectStaging,
        disk: LocalDisk,
    ) -> None:
        self._names = names
        self._context = context
        self._committer = committer
        self._staging = staging
        self._disk = disk
        self.streams = FairShare("uploads into the bucket of more than 64 KiB", MAX_STREAMS)
        self._active: dict[str, Lease] = {}

    def is_active(self, upload_id: str) -> bool:
        """Tell whether an upload is on its way here."""
        return upload_id in self._active

    async def begin(
        self,
        upload: Upload,
        algorithms: Sequence[str] = (),
        *,
        must_exist: bool = False,
        staged: bool = False,
    ) -> PendingWrite:
        """See `StorageWriter.begin`."""
        key = self._names.keys.key_of("/" + "/".join(paths.check_path(upload.path)))
        exists = await self._context.objects.head_object(key) is not None
        check_target(upload, exists=exists, must_exist=must_exist)
        await self.check_space()
        if staged:
            return self._begin_staged(upload, algorithms)
        return await self._begin(upload, algorithms)

    async def check_space(self) -> None:
        """Raise `Refusal("no_space")` where the local disk has none for the journal."""
        check_space = partial(self._disk.space.check, 1, new_file=True)
        await asyncio.get_running_loop().run_in_executor(self._disk.executor, check_space)

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
        client = self._activate(upload)
        try:
            if upload.on_conflict == "rename" and not upload.must_be_new:
                path = await self._names.reserve_free_path(upload, path)
            body = self._body(upload, client, self._names.target(upload, path), algorithms)
        except BaseException:
            self._end(upload.id)  # there is no body that would
            raise
        body.done = partial(self._end, upload.id)
        return ObjectPendingWrite(upload, body, self._committer)

    def _begin_staged(self, upload: Upload, algorithms: Sequence[str]) -> ObjectStagedWrite:
        """Begin a body that goes to a private key: its name is chosen when it is published."""
        client = self._activate(upload)
        try:
            body = self._body(upload, client, self._staging.target(upload), algorithms)
        except BaseException:
            self._end(upload.id)
            raise
        done = partial(self._end, upload.id)
        return ObjectStagedWrite(upload, body, self._committer, self._staging, done)

    def _activate(self, upload: Upload) -> str:
        """Note that an upload is on its way; return its client. Raises `Refusal`."""
        client = client_key(upload.principal, upload.remote)
        size = upload.content_length
        streams = 0 if size is not None and size <= UNRESERVED_BYTES else 1
        self._active[upload.id] = self.streams.acquire(client, streams)
        return client

    def _body(
        self, upload: Upload, client: str, target: ObjectTarget, algorithms: Sequence[str]
    ) -> MultipartUpload:
        return MultipartUpload(self._context, target, client, upload.content_length, algorithms)

    def _end(self, upload_id: str) -> None:
        if (lease := self._active.pop(upload_id, None)) is not None:
            lease.close()
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

    async def stage(self) -> PrivateFile:
        """See `PendingWrite.stage`."""
        raise Refusal("not_implemented", "this body did not begin as one that handlers read")

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `PendingWrite.hold`."""
        raise Refusal("not_implemented", "this body did not begin as one that handlers read")

    async def commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        """See `PendingWrite.commit`."""
        named = {**digests, **named_digests(self._body.kept_digest())}
        commit = ObjectCommit(self._upload, self._body, named, from_client)
        return await self._committer.commit(commit)

    async def discard(self) -> None:
        """See `PendingWrite.discard`."""
        await self._body.discard()
