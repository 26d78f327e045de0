"""One body on its way into the bucket that handlers read before it is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gateway.commit.objects.body import ObjectCommit
from gateway.commit.objects.committer import ObjectCommitter
from gateway.commit.objects.staging import ObjectStaging, StagedObject
from gateway.domain import failpoints
from gateway.domain.digests import named_digests
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.errors import Refusal, UnknownOutcome
from gateway.storage.s3.retries import KeyExistsError, OutcomeUnknownError
from gateway.storage.s3.upload import MultipartUpload
from gateway.storage.waiting import finish


class ObjectStagedWrite:
    """A `PendingWrite` whose `body` goes to its private key; its commit copies it.

    `done` is called at its end: the upload is not in use here any more.
    """

    threaded = None
    """All bytes go through the event loop: there the requests to S3 run."""

    def __init__(
        self,
        upload: Upload,
        body: MultipartUpload,
        committer: ObjectCommitter,
        staging: ObjectStaging,
        done: Callable[[], None],
    ) -> None:
        self._upload = upload
        self._body = body
        self._committer = committer
        self._staging = staging
        self._done = done
        self._staged: asyncio.Task[None] | None = None
        self._is_uncertain = False

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
        """See `PendingWrite.stage`. A cancelled caller waits for the end of it too."""
        if self._staged is None:
            self._staged = asyncio.create_task(self._stage())
        await finish(self._staged)
        return self._staging.private_file(self._upload.id, self._body.received)

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `PendingWrite.hold`."""
        return await self._committer.run(self._hold(digests, handlers))

    async def commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        """See `PendingWrite.commit`. The store copies the object to its final name."""
        return await self._committer.run(self._commit(digests, from_client=from_client))

    async def discard(self) -> None:
        """See `PendingWrite.discard`."""
        if self._staged is not None:
            await asyncio.wait({self._staged})
        if self._staged is None or self._staged.cancelled() or self._staged.exception() is not None:
            await self._body.discard()
        self._done()
        if not self._is_uncertain:  # else the storage may still take it: a sweep removes it later
            await self._staging.ends.settle_now(self._upload.id)

    async def _stage(self) -> None:
        """Let the object exist at its private key, and the journal answer for it. Raises `Refusal`."""
        upload_id, body, staging = self._upload.id, self._body, self._staging
        await staging.record(upload_id)
        failpoints.hit("before staged")
        try:
            await body.complete(new=False)
        except (OutcomeUnknownError, KeyExistsError) as error:
            self._is_uncertain = True
            if not await staging.exists(upload_id):
                raise Refusal(
                    "storage_unavailable", "it is not known whether the storage took the body: try again"
                ) from error
        self._is_uncertain = False
        failpoints.hit("after staged")
        body.release_memory()
        if body.multipart is not None:
            await staging.forget_multipart(upload_id)

    async def _hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        named = {**digests, **named_digests(self._body.kept_digest())}
        staging = self._staging
        try:
            await self.stage()
            body = staging.held_body(self._upload, self._body.received, named, handlers)
            held = await staging.holder.record(body)
        except UnknownOutcome:  # its end is told by the journal
            self._done()
            raise
        except BaseException:
            await self.discard()
            raise
        self._done()
        staging.ends.ended(self._upload.id)  # where it is decided already
        return held

    async def _commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        named = {**digests, **named_digests(self._body.kept_digest())}
        upload, staging = self._upload, self._staging
        try:
            await self.stage()
            target = staging.final_target(upload, upload.path)
        except BaseException:
            await self.discard()
            raise
        size, kept = self._body.received, staging.kept_digest(named)
        body = StagedObject(staging, target, size, kept, self._done)
        return await self._committer.publish(
            ObjectCommit(self._upload, body, named, from_client=from_client)
        )
