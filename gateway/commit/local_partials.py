"""Partial uploads on the local disk: files in `.gateway/partials/`, committed by the committer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from gateway.commit.committer import Committer
from gateway.commit.failures import refusal_of
from gateway.commit.local_open_partial import LocalOpenPartial
from gateway.commit.local_writer import LocalWriter
from gateway.commit.partial_caps import PartialCaps
from gateway.commit.partial_expiry import PartialExpiry
from gateway.commit.partials import PartialBusy
from gateway.commit.publish import check_target
from gateway.commit.records import LocalDisk
from gateway.commit.running_digests import RunningDigests
from gateway.domain import paths
from gateway.domain.partial import MAX_PARTIAL_AGE, PartialHead, PartialStatus
from gateway.errors import Refusal
from gateway.storage.local.partial_directory import (
    PartialCommittingError,
    PartialDirectory,
    PartialLockedError,
)
from gateway.storage.local.partial_files import PartialFile
from gateway.storage.local.partial_opening import create_partial, open_partial, remove_idle
from gateway.storage.waiting import finish_in_thread

T = TypeVar("T")

PAGE: Final = 100
"""Partial uploads that are described in one visit of a thread."""


class LocalPartialStore:
    """The folder of partial uploads as a `PartialStore`, for one event loop.

    `writer` is that of whole uploads: mode, digest and memory are the same.
    """

    def __init__(
        self,
        folder: PartialDirectory,
        disk: LocalDisk,
        committer: Committer,
        writer: LocalWriter,
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._committer = committer
        self._writer = writer
        self._caps = PartialCaps(folder)
        self._expiry = PartialExpiry(folder, disk.space)
        self._digests = RunningDigests()

    async def create(self, head: PartialHead) -> LocalOpenPartial:
        """See `PartialStore.create`."""
        opened = await self._opened(partial(self._create, head))
        if opened is None:
            raise AssertionError("a partial upload that is created is open")
        return opened

    async def status(self, upload_id: str) -> PartialStatus | None:
        """See `PartialStore.status`."""
        return await self._in_thread(partial(self._folder.status, upload_id))

    async def open(self, upload_id: str) -> LocalOpenPartial:
        """See `PartialStore.open`."""
        opening = partial(open_partial, self._folder, upload_id)
        try:
            try:
                opened = await self._opened(opening)
            except PartialCommittingError:
                await self._committer.clean_up()  # it is undone now, if this process has tried to
                opened = await self._opened(opening)
        except PartialLockedError:
            raise PartialBusy(f"partial upload {upload_id} is open elsewhere") from None
        if opened is None:
            raise Refusal("not_found", "there is no such upload, or it has ended")
        return opened

    async def resolve(self, identity: str) -> str | None:
        """See `PartialStore.resolve`."""
        return await self._in_thread(partial(self._folder.identities.resolve, identity))

    async def list(self) -> AsyncIterator[PartialStatus]:
        """See `PartialStore.list`."""
        async for page in self._pages():
            for status in await self._in_thread(partial(self._statuses, page)):
                yield status

    async def remove_expired(self, now: float) -> AsyncIterator[PartialStatus]:
        """See `PartialStore.remove_expired`. What crashes left goes too."""
        await self._in_thread(self._folder.remove_rests)
        await self._in_thread(partial(self._folder.identities.remove_ended, now))
        async for page in self._pages():
            await self._in_thread(partial(self._see, page, now))
        self._expiry.end()
        while (removed := await self._in_thread(self._expiry.remove_next)) is not None:
            yield removed

    async def _pages(self) -> AsyncIterator[Sequence[str]]:
        """Iterate over the ids of all partial uploads, as many at once as a thread may take."""
        ids = await self._in_thread(lambda: list(self._folder.upload_ids()))
        for start in range(0, len(ids), PAGE):
            yield ids[start : start + PAGE]

    def _statuses(self, upload_ids: Sequence[str]) -> Sequence[PartialStatus]:
        statuses = (self._folder.status(upload_id, durable=False) for upload_id in upload_ids)
        return [status for status in statuses if status is not None]

    def _see(self, upload_ids: Sequence[str], now: float) -> None:
        """Note which uploads a sweep found, and what is to become of them at the Unix time `now`.

        One whose head cannot be read, say of a newer version of the gateway, is kept for a week.
        """
        for upload_id in upload_ids:
            latest = self._folder.latest(upload_id)
            status = self._folder.status(upload_id, durable=False)
            if status is not None:
                is_expired, is_unreachable = status.expires <= now, self._is_unreachable(status.head)
                self._expiry.see(
                    upload_id, status.latest, is_expired=is_expired, is_unreachable=is_unreachable
                )
            elif latest is not None:
                self._expiry.see(upload_id, latest, is_expired=latest + MAX_PARTIAL_AGE <= now)

    def _is_unreachable(self, head: PartialHead) -> bool:
        """Tell whether no request can go on with an upload: a ranged one has no URL, but an identity."""
        if head.protocol != "ranged" or head.identity is None:
            return False
        with contextlib.suppress(OSError):  # it cannot be read now: the upload stays
            return self._folder.identities.resolve(head.identity) != head.upload.id
        return False

    def _create(self, head: PartialHead) -> PartialFile:
        upload, folder = head.upload, self._folder
        if not head.part_of_concat:
            exists = self._disk.tree.lstat_target(paths.check_path(upload.path)) is not None
            check_target(upload, exists=exists, must_exist=head.must_exist)
        self._caps.check(head.client)
        self._disk.space.check(max(upload.content_length or 0, 1), head.client, new_file=True)
        file = create_partial(folder, head, self._writer.file_mode, self._disk.incoming.umask)
        self._caps.add(upload.id, head.client)
        if head.identity is not None:
            try:
                self._give_identity(head.identity, upload.id)
            except BaseException:
                file.remove()
                raise
        return file

    def _give_identity(self, identity: str, upload_id: str) -> None:
        """Let an identity pass to a new upload. The one that had it is removed, unless it is open."""
        before = self._folder.identities.give(identity, upload_id)
        if before is not None:
            remove_idle(self._folder, before)

    async def _opened(self, work: Callable[[], PartialFile | None]) -> LocalOpenPartial | None:
        """Open a file in a thread; one that is opened for a cancelled caller is closed again."""
        opening = asyncio.get_running_loop().run_in_executor(self._disk.executor, work)
        try:
            file = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise
        except OSError as error:
            raise refusal_of(error) from error
        if file is None:
            return None
        return LocalOpenPartial(file, self._disk, self._committer, self._writer, self._digests)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await finish_in_thread(work, executor=self._disk.executor)
        except OSError as error:
            raise refusal_of(error) from error


def _close_opened(opening: asyncio.Future[PartialFile | None]) -> None:
    """Let go of what a cancelled caller did not wait for."""
    if (
        not opening.cancelled()
        and opening.exception() is None
        and (file := opening.result()) is not None
    ):
        file.close()
