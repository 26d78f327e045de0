"""Whole bodies in a bucket that are not visible yet: objects in `<prefix>/.gateway/held/`.

Handlers read such an object; it is published by a copy that the store makes. The journal has a row of
it before it exists: whatever happens, it is removed once nothing needs it (`staging_ends`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.commit.failures import refusal_of
from gateway.commit.held.holder import HeldBody, Holder
from gateway.commit.objects.names import ReservedNames
from gateway.commit.objects.staging_ends import PrivateObjectEnds
from gateway.commit.writer import media_type
from gateway.domain import failpoints, paths
from gateway.domain.digests import RFC9530_NAMES, digest_field
from gateway.domain.held import PrivateFile
from gateway.domain.model import Identity, Upload
from gateway.events.private_objects import PrivateObjectLog
from gateway.storage.s3.copies import ObjectCopier
from gateway.storage.s3.encoding import UPLOAD_ID_NAME, ObjectTarget, with_digest
from gateway.storage.s3.multiparts import UnfinishedMultipart
from gateway.storage.s3.part_sender import UploadContext
from gateway.storage.s3.partial_body import PartialBody
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
    holder: Holder

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

    def final_target(self, upload: Upload, path: str) -> ObjectTarget:
        """Return where an upload is published. Raises `Refusal("bad_path")`."""
        return self.names.target(upload, "/" + "/".join(paths.check_path(path)))

    def held_body(
        self, upload: Upload, size: int, digests: Mapping[str, str], handlers: Sequence[str]
    ) -> HeldBody:
        """Return a private object as the body of a held upload."""
        place = {"bucket": self.context.objects.bucket, "key": self.private.key_of(upload.id)}
        identity = Identity(0, size, 0)  # no inode: it is an object
        return HeldBody(upload, identity, media_type(upload), dict(digests), handlers, place)

    def kept_digest(self, digests: Mapping[str, str]) -> str:
        """Return the digest of `--digest` as a field; an empty text where it is not known."""
        name = RFC9530_NAMES.get(self.context.digest or "", "")
        return digest_field({name: digests[name]}) if name in digests else ""


class StagedObject:
    """A private object of `size` bytes as the body of a commit: an `ObjectBody`.

    `digest` is the field that its metadata get. `ended` is called at its end.
    """

    can_retarget = True
    """Nothing is at its name before it is published."""

    def __init__(
        self,
        staging: ObjectStaging,
        target: ObjectTarget,
        size: int,
        digest: str,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.target = target
        self.done: Callable[[], None] = self._end
        self.claim: str | None = None
        self.received = size
        self.multipart: str | None = None
        self._staging = staging
        self._digest = digest
        self._ended = ended

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
        self._ended()
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

    def _end(self) -> None:
        self._ended()
        self._staging.ends.ended(self.target.upload_id)


class StagedPartial(StagedObject):
    """A whole partial upload whose bytes are in its private object, claimed by its commit."""

    def __init__(
        self, staging: ObjectStaging, target: ObjectTarget, body: PartialBody, digest: str
    ) -> None:
        super().__init__(staging, target, body.received, digest, body.done)
        self.claim = body.claim
        self._body = body

    async def publish(self, *, new: bool) -> str:
        """See `ObjectBody.publish`."""
        await self._body.write_claim(self.target.path)
        return await super().publish(new=new)

    async def withdraw(self) -> None:
        """See `ObjectBody.withdraw`."""
        await self._body.withdraw()

    async def discard(self) -> None:
        """Keep everything: a commit that is refused leaves a partial upload as it was."""
