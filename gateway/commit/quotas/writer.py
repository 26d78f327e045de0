"""A storage writer whose uploads count for quotas, around the one that stores them.

The bytes of an upload are reserved before its body is begun; of unknown ones as many as have come, and
some more. What does not count goes to the inner writer as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from gateway.commit.quotas.quotas import Quotas
from gateway.commit.writer import PendingWrite, StorageWriter, ThreadedWrite
from gateway.domain import failpoints
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.errors import Refusal
from gateway.storage.waiting import finish

T = TypeVar("T")

MIN_STEP_BYTES: Final = 1 << 20
MAX_STEP_BYTES: Final = 64 << 20
"""How far a reservation of unknown length is ahead of its body: as far again, within these bounds."""


class QuotaWriter:
    """A `StorageWriter` around another one."""

    def __init__(self, writer: StorageWriter, quotas: Quotas) -> None:
        self._writer = writer
        self._quotas = quotas
        self._ending: set[asyncio.Task[Any]] = set()

    def begin(
        self,
        upload: Upload,
        algorithms: Sequence[str] = (),
        *,
        must_exist: bool = False,
        staged: bool = False,
    ) -> Coroutine[Any, Any, PendingWrite]:
        """See `StorageWriter.begin`. Raises as `Quotas.reserve` too."""
        if not self._quotas.count(upload):
            return self._writer.begin(upload, algorithms, must_exist=must_exist, staged=staged)
        return self._begin(upload, algorithms, must_exist=must_exist, staged=staged)

    def store(self, upload: Upload, content: bytes, *, from_client: bool) -> Coroutine[Any, Any, Stored]:
        """See `StorageWriter.store`. Raises as `Quotas.reserve` too."""
        if not self._quotas.count(upload):
            return self._writer.store(upload, content, from_client=from_client)
        return self._store(upload, content, from_client=from_client)

    @property
    def inner(self) -> StorageWriter:
        """The writer that stores."""
        return self._writer

    def count(self, upload: Upload) -> bool:
        """Tell whether an upload may count for a quota."""
        return self._quotas.count(upload)

    async def close(self) -> None:
        """Wait for the ends of uploads whose callers were cancelled."""
        while self._ending:
            await asyncio.wait(self._ending)

    async def _begin(
        self, upload: Upload, algorithms: Sequence[str], *, must_exist: bool, staged: bool
    ) -> QuotaPendingWrite:
        size = upload.content_length
        await self._quotas.reserve(upload, 1 if size is None else size)
        failpoints.hit("after quota reserved")
        try:
            pending = await self._writer.begin(upload, algorithms, must_exist=must_exist, staged=staged)
        except BaseException:
            await self.end(free_active(self._quotas, upload))
            raise
        return QuotaPendingWrite(upload, pending, self._quotas, self)

    async def _store(self, upload: Upload, content: bytes, *, from_client: bool) -> Stored:
        await self._quotas.reserve(upload, len(content))
        failpoints.hit("after quota reserved")
        storing = self._writer.store(upload, content, from_client=from_client)
        return await self.end(settled(self._quotas, upload, storing))

    async def end(self, work: Coroutine[Any, Any, T]) -> T:
        """Let `work` come to its end, also where the caller is cancelled."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # mark it as retrieved


async def free_active(quotas: Quotas, upload: Upload) -> None:
    """Give back what an upload has reserved here, if any quota covers it."""
    if upload.id in quotas.active:
        await quotas.free(upload.id)


async def settled(quotas: Quotas, upload: Upload, committing: Awaitable[Stored]) -> Stored:
    """Return what a commit has stored, settled. A refused upload is freed, a doubtful one stays."""
    try:
        stored = await committing
    except Refusal:
        await free_active(quotas, upload)
        raise
    except BaseException:
        quotas.leave(upload.id)
        raise
    failpoints.hit("before quota settled")
    return await quotas.settle(upload, stored)


class QuotaPendingWrite:
    """A body whose bytes are reserved."""

    def __init__(
        self, upload: Upload, pending: PendingWrite, quotas: Quotas, writer: QuotaWriter
    ) -> None:
        self._upload = upload
        self._pending = pending
        self._quotas = quotas
        self._writer = writer
        self._received = 0
        self._reserved = upload.content_length or 1
        self._counted_for = _counted_for(upload)

    @property
    def threaded(self) -> ThreadedWrite | None:
        """See `PendingWrite.threaded`."""
        return self._pending.threaded

    async def write(self, chunk: bytes) -> None:
        """See `PendingWrite.write`. Raises as `Quotas.reserve` too."""
        self._received += len(chunk)
        if self._upload.content_length is None and self._received > self._reserved:
            ahead = min(max(self._received, MIN_STEP_BYTES), MAX_STEP_BYTES)
            self._reserved = await self._quotas.reserve_ahead(self._upload, self._received, ahead)
        await self._pending.write(chunk)

    async def finish(self) -> None:
        """See `PendingWrite.finish`."""
        await self._pending.finish()

    def digest(self, algorithm: str) -> bytes:
        """See `PendingWrite.digest`."""
        return self._pending.digest(algorithm)

    async def stage(self) -> PrivateFile:
        """See `PendingWrite.stage`."""
        return await self._pending.stage()

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `PendingWrite.hold`. What is held stays reserved."""
        await self._reserve_whole()
        holding = self._pending.hold(digests, handlers)
        return await self._writer.end(kept(self._quotas, self._upload, holding))

    async def commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        """See `PendingWrite.commit`. Raises as `Quotas.reserve` too."""
        await self._reserve_whole()
        committing = self._pending.commit(digests, from_client=from_client)
        return await self._writer.end(settled(self._quotas, self._upload, committing))

    async def discard(self) -> None:
        """See `PendingWrite.discard`."""
        await self._writer.end(self._discard())

    async def _discard(self) -> None:
        try:
            await self._pending.discard()
        finally:
            await free_active(self._quotas, self._upload)

    async def _reserve_whole(self) -> None:
        """Reserve the true size, where it was unknown, and where handlers have changed the upload."""
        upload, size = self._upload, self._upload.content_length
        if size is not None and self._counted_for == _counted_for(upload):
            return
        try:
            await self._quotas.reserve(upload, self._received if size is None else size)
        except BaseException:
            # From here on the body would be the inner writer's: its caller discards it no more.
            await finish(asyncio.ensure_future(self.discard()))
            raise


async def kept(quotas: Quotas, upload: Upload, holding: Awaitable[Held]) -> Held:
    """Return an upload that is held: it stays reserved. A refused one is freed."""
    try:
        held = await holding
    except Refusal:
        await free_active(quotas, upload)
        raise
    except BaseException:
        quotas.leave(upload.id)
        raise
    quotas.leave(upload.id)
    with contextlib.suppress(Refusal):  # it is held, whatever is left
        held = held._replace(quotas=tuple(await quotas.left(upload)))
    return held


def _counted_for(upload: Upload) -> tuple[object, ...]:
    """Return what says for whom an upload counts, and how."""
    return upload.path, upload.on_conflict, tuple(upload.quotas.items())
