"""Publishes held uploads of a bucket by copies of their private objects, and removes these."""

from __future__ import annotations

import asyncio
import sqlite3

from gateway.commit.failures import refusal_of
from gateway.commit.objects.body import ObjectCommit
from gateway.commit.objects.committer import ObjectCommitter
from gateway.commit.objects.staging import ObjectStaging, StagedObject
from gateway.domain.held import PrivateFile
from gateway.domain.model import Stored
from gateway.domain.upload_fields import upload_of_fields
from gateway.errors import Refusal
from gateway.events.held_log import HeldUpload
from gateway.events.pending_uploads import PendingUploads
from gateway.storage.s3.copies import SourceGone


class ObjectHeldStore:
    """The private objects of held uploads as a `HeldStore`. On the server's event loop."""

    def __init__(
        self, staging: ObjectStaging, committer: ObjectCommitter, pending: PendingUploads
    ) -> None:
        self._staging = staging
        self._committer = committer
        self._pending = pending

    def private_file(self, held: HeldUpload) -> PrivateFile:
        """See `HeldStore.private_file`."""
        return PrivateFile(held.bytes, key=None if held.place is None else held.place["key"])

    async def publish(self, held: HeldUpload) -> Stored:
        """See `HeldStore.publish`. A copy whose outcome is in doubt is made again."""
        self._check_place(held)
        await self._staging.ends.end_claim(held.id)
        if (stored := await self._published(held)) is not None:
            return stored
        upload, staging = upload_of_fields(held.upload), self._staging
        row = self._committer.take_pending(held.id, None)
        if row is None and self._committer.is_unsettled(held.id):
            raise Refusal("storage_unavailable", "it is being found out whether it is published")
        path = upload.path if row is None else row.path
        kept = staging.kept_digest(held.digests)
        body = StagedObject(staging, staging.final_target(upload, path), held.bytes, kept)
        commit = ObjectCommit(upload, body, dict(held.digests), from_client=True, is_held=True)
        if row is not None:
            commit.row, commit.is_resumed = row, True
        try:
            return await self._committer.commit(commit)
        except SourceGone as error:
            raise Refusal("not_found", "the private object of this upload is gone") from error

    async def remove(self, held: HeldUpload) -> None:
        """See `HeldStore.remove`."""
        self._check_place(held)
        try:
            await self._staging.ends.remove(held.id)
        except sqlite3.Error as error:
            raise refusal_of(error) from error

    def _check_place(self, held: HeldUpload) -> None:
        """Raise `Refusal` where the body is not in this bucket: it waits for its `--storage`."""
        bucket = self._staging.context.objects.bucket
        if held.place is None or held.place["bucket"] != bucket:
            where = "the local disk" if held.place is None else f"the bucket {held.place['bucket']}"
            raise Refusal("storage_unavailable", f"it is held on {where}, which --storage is not")

    async def _published(self, held: HeldUpload) -> Stored | None:
        """Return what an earlier call has published. Raises `Refusal`."""
        try:
            published = await asyncio.wrap_future(self._pending.published_objects([held.id]))
        except sqlite3.Error as error:
            raise refusal_of(error) from error
        if held.id not in published:
            return None
        path, _ = published[held.id]
        return Stored(held.id, path, held.bytes, held.mime, False, dict(held.digests))
