"""Whole bodies in a bucket that are not visible yet: objects in `<prefix>/.gateway/held/`.

Handlers read such an object; it is published by a copy that the store makes. The journal has a row of
it before it exists: whatever happens, it is removed once nothing needs it (`object_staging_ends`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from gateway.commit.failures import refusal_of
from gateway.commit.object_names import ReservedNames
from gateway.commit.object_staging_ends import PrivateObjectEnds
from gateway.domain import failpoints, paths
from gateway.domain.digests import RFC9530_NAMES, digest_field
from gateway.domain.held import PrivateFile
from gateway.domain.model import Upload
from gateway.errors import Refusal
from gateway.events.private_objects import PrivateObjectLog
from gateway.storage.s3.copies import ObjectCopier
from gateway.storage.s3.encoding import UPLOAD_ID_NAME, ObjectTarget, with_digest
from gateway.storage.s3.multiparts import UnfinishedMultipart
from gateway.storage.s3.part_sender import UploadContext
from gateway.storage.s3.private_objects import PrivateObjects
from gateway.storage.waiting import finish_in_thread


@dataclass(slots=True, frozen=True)
class ObjectStaging:
    """The private objects of one process. On the server's event loop."""

    private: PrivateObjects
    context: UploadContext
    copier: ObjectCopier
    names: ReservedNames
    rows: PrivateObjectLog
    ends: PrivateObjectEnds

    def target(self, upload: Upload) -> ObjectTarget:
        """Return where the private body of an upload goes. What it says of itself names the upload."""
        params = {"Metadata": {UPLOAD_ID_NAME: upload.id}}
        return ObjectTarget(upload.path, self.private.key_of(upload.id), upload.id, params)

    def private_file(self, upload_id: str, size: int) -> PrivateFile:
        """Return a private object as handlers get it."""
        return PrivateFile(size, key=self.private.key_of(upload_id))

    async def record(self, upload_id: str, claim: str | None = None) -> None:
        """Answer, in the journal, for the object of an upload, before it exists. Raises `Refusal`."""
        adding = self.rows.add(
            upload_id, self.context.objects.bucket, self.private.key_of(upload_id), claim
        )
        try:
            await asyncio.wrap_future(adding)
        except Exception as error:
            raise refusal_of(error) from error

    async def exists(self, upload_id: str) -> bool:
        """Tell whether an upload has its private object. Raises `Refusal`."""
        return await self.context.objects.head_object(self.private.key_of(upload_id)) is not None

    async def note_multipart(self, target: ObjectTarget, multipart: str) -> None:
        """Note a multipart upload that was begun, for the sweep."""
        context = self.context
        entry = UnfinishedMultipart(target.upload_id, context.objects.bucket, target.key, multipart)
        await finish_in_thread(context.multiparts.record, entry, executor=context.executor)

    async def forget_multipart(self, upload_id: str) -> None:
        """Note that a multipart upload is complete, or aborted."""
        context = self.context
        await finish_in_thread(context.multiparts.remove, upload_id, executor=context.executor)

    def body(
        self, upload: Upload, size: int, digests: Mapping[str, str], done: Callable[[], None]
    ) -> StagedObject:
        """Return a private object as the body of a commit.

        Its name is that of the upload as it is now, its digest in the metadata that of `--digest`.
        Raises `Refusal`.
        """
        path = "/" + "/".join(paths.check_path(upload.path))
        name = RFC9530_NAMES.get(self.context.digest or "", "")
        kept = digest_field({name: digests[name]}) if name in digests else ""
        ended = partial(self._ended, upload.id, done)
        return StagedObject(self, self.names.target(upload, path), size, kept, ended)

    def _ended(self, upload_id: str, done: Callable[[], None]) -> None:
        done()
        self.ends.ended(upload_id)


class StagedObject:
    """A private object of `size` bytes as the body of a commit: an `ObjectBody`.

    `digest` is the field of RFC 9530 that its metadata get. `done` is called at its end.
    """

    can_retarget = True
    """Nothing is at its name before it is published."""

    def __init__(
        self,
        staging: ObjectStaging,
        target: ObjectTarget,
        size: int,
        digest: str,
        done: Callable[[], None],
    ) -> None:
        self.target = target
        self.done = done
        self.claim: str | None = None
        self.received = size
        self.multipart: str | None = None
        self._staging = staging
        self._digest = digest

    @property
    def staged_at(self) -> str | None:
        """See `ObjectBody.staged_at`."""
        return self._staging.private.key_of(self.target.upload_id)

    async def publish(self, *, new: bool) -> str:
        """See `ObjectBody.publish`."""
        target, source = self.target, str(self.staged_at)
        target = dataclasses.replace(target, params=with_digest(target.params, self._digest))
        failpoints.hit("before complete")
        tag = await self._staging.copier.copy(
            source, self.received, target, new=new, begun=self._multipart_begun
        )
        failpoints.hit("after complete")
        return tag

    async def withdraw(self) -> None:
        """Do nothing: no other process knows of it."""

    async def discard(self) -> None:
        """Remove the private object, unless something needs it. Does not raise."""
        self.done()
        await self._staging.ends.settle_now(self.target.upload_id)

    def release_memory(self) -> None:
        """Do nothing: the bytes are in the bucket."""

    async def _multipart_begun(self, multipart: str | None) -> None:
        """Note the multipart upload of a copy, for the sweep; None where it was aborted."""
        self.multipart = multipart
        if multipart is None:
            await self._staging.forget_multipart(self.target.upload_id)
        else:
            await self._staging.note_multipart(self.target, multipart)


def not_staged() -> Refusal:
    """Return the refusal for a partial upload whose bytes no handler can read."""
    return Refusal(
        "superseded",
        "this upload began before there were handlers that read whole files: begin it anew",
    )
