"""Publishes held uploads on the local disk, and removes their bodies: a `HeldStore`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

from gateway.commit.committer import Committer
from gateway.commit.failures import refusal_of
from gateway.commit.local_writer import xattr_of
from gateway.commit.records import CommitRequest, LocalDisk, ProcessState
from gateway.commit.writer import media_type
from gateway.domain import failpoints
from gateway.domain.held import PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.domain.upload_fields import upload_of_fields
from gateway.errors import Refusal
from gateway.events.held_log import HeldUpload
from gateway.storage.local.directory import sync_file_system
from gateway.storage.local.held_directory import HeldDirectory
from gateway.storage.local.incoming import IncomingFile
from gateway.storage.local.xattrs import replace_xattr
from gateway.storage.waiting import finish_in_thread

T = TypeVar("T")


class LocalHeldStore:
    """The folder of held bodies as a `HeldStore`.

    To be published a body moves to `incoming/`, where the committer takes those of all uploads. What is
    not published moves back: by the committer's undo, and by a start.
    """

    def __init__(
        self, disk: LocalDisk, folder: HeldDirectory, committer: Committer, state: ProcessState
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._committer = committer
        self._outbox = state.journal.outbox

    def private_file(self, held: HeldUpload) -> PrivateFile:
        """See `HeldStore.private_file`."""
        return PrivateFile(held.bytes, self._folder.folder / held.id)

    async def publish(self, held: HeldUpload) -> Stored:
        """See `HeldStore.publish`."""
        _check_place(held)
        upload = upload_of_fields(held.upload)
        body = await self._in_thread(lambda: self._move(upload, held.bytes))
        if body is None:
            return await self._published(held)
        failpoints.hit("after held publish move")
        request = CommitRequest(
            upload, body, media_type(upload), dict(held.digests), from_client=True, was_held=True
        )
        return await self._committer.commit(request)

    def _move(self, upload: Upload, size: int) -> IncomingFile | None:
        """Move a body to where it is committed; None where it is not here any more."""
        incoming = self._disk.incoming
        try:
            fd = self._folder.give(incoming.fd, upload.id)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_size != size:
                raise Refusal("not_found", f"the body of this upload is damaged: {size} bytes were held")
            if replace_xattr(fd, xattr_of(upload)) and self._disk.durable:
                os.fsync(fd)
        except BaseException:
            os.close(fd)
            incoming.withdraw(upload.id)
            raise
        return incoming.attach(upload.id, fd, size)

    async def _published(self, held: HeldUpload) -> Stored:
        """Return what an earlier call has published, made durable; `not_found` where nothing was."""
        recorded = await asyncio.wrap_future(self._outbox.recorded_uploads([held.id]))
        if held.id not in recorded:
            raise Refusal("not_found", "the body of this upload is gone")
        if self._disk.durable:
            await self._in_thread(lambda: sync_file_system(self._disk.incoming.fd))
        path, identity = recorded[held.id]
        return Stored(
            held.id, path, identity.size, held.mime, False, dict(held.digests), identity=identity
        )

    async def remove(self, held: HeldUpload) -> None:
        """See `HeldStore.remove`."""
        _check_place(held)
        await self._in_thread(lambda: self._remove(held.id))

    def _remove(self, upload_id: str) -> None:
        self._folder.remove(upload_id)
        self._disk.incoming.remove(upload_id)  # where it could not be moved back

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await finish_in_thread(work, executor=self._disk.executor)
        except OSError as error:
            raise refusal_of(error) from error


def _check_place(held: HeldUpload) -> None:
    if held.place is not None:
        raise Refusal(
            "storage_unavailable",
            "its body is in the bucket of an earlier --storage, which it waits for",
        )
