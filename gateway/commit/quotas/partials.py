"""Partial uploads that count for quotas, around the store that keeps them.

A partial upload reserves its whole length when it is created, and keeps that until it ends; one of
unknown length reserves what has come. Parts of a file that is joined later (tus) do not count: the file
does.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from gateway.commit.partials import OpenPartial, PartialStore
from gateway.commit.quotas.quotas import Quotas
from gateway.commit.quotas.writer import MAX_STEP_BYTES, MIN_STEP_BYTES, QuotaWriter
from gateway.commit.writer import ThreadedWrite
from gateway.domain import failpoints
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.domain.partial import PartialHead, PartialStatus
from gateway.errors import Refusal


class QuotaPartialStore:
    """A `PartialStore` around another one; `writer` lets ends come to their end."""

    def __init__(self, store: PartialStore, quotas: Quotas, writer: QuotaWriter) -> None:
        self._store = store
        self._quotas = quotas
        self._writer = writer

    async def create(self, head: PartialHead) -> OpenPartial:
        """See `PartialStore.create`. Raises as `Quotas.reserve` too."""
        if not self._counts(head):
            return await self._store.create(head)
        upload = head.upload
        size = upload.content_length
        await self._quotas.reserve(upload, 1 if size is None else size)
        failpoints.hit("after quota reserved")
        try:
            opened = await self._store.create(head)
        except BaseException:
            await self._writer.end(self._quotas.free(upload.id))
            raise
        return QuotaOpenPartial(opened, self._quotas, self._writer)

    async def status(self, upload_id: str) -> PartialStatus | None:
        """See `PartialStore.status`."""
        return await self._store.status(upload_id)

    async def open(self, upload_id: str) -> OpenPartial:
        """See `PartialStore.open`."""
        opened = await self._store.open(upload_id)
        if not self._counts(opened.head):
            return opened
        return QuotaOpenPartial(opened, self._quotas, self._writer)

    async def resolve(self, identity: str) -> str | None:
        """See `PartialStore.resolve`."""
        return await self._store.resolve(identity)

    def list(self) -> AsyncIterator[PartialStatus]:
        """See `PartialStore.list`."""
        return self._store.list()

    async def remove_expired(self, now: float) -> AsyncIterator[PartialStatus]:
        """See `PartialStore.remove_expired`. What is removed counts no more."""
        async for status in self._store.remove_expired(now):
            if self._counts(status.head):
                await self._quotas.free(status.head.upload.id)
            yield status

    def _counts(self, head: PartialHead) -> bool:
        return not head.part_of_concat and self._quotas.count(head.upload)


class QuotaOpenPartial:
    """An open partial upload whose bytes are reserved."""

    def __init__(self, opened: OpenPartial, quotas: Quotas, writer: QuotaWriter) -> None:
        self._opened = opened
        self._quotas = quotas
        self._writer = writer
        self._reserved = opened.length or opened.offset
        self._is_ended = False
        quotas.active.add(self._upload.id)

    @property
    def _upload(self) -> Upload:
        return self._opened.head.upload

    @property
    def head(self) -> PartialHead:
        """See `OpenPartial.head`."""
        return self._opened.head

    @property
    def offset(self) -> int:
        """See `OpenPartial.offset`."""
        return self._opened.offset

    @property
    def received(self) -> int:
        """See `OpenPartial.received`."""
        return self._opened.received

    @property
    def length(self) -> int | None:
        """See `OpenPartial.length`."""
        return self._opened.length

    @property
    def threaded(self) -> ThreadedWrite | None:
        """See `OpenPartial.threaded`."""
        return self._opened.threaded

    async def set_length(self, length: int) -> None:
        """See `OpenPartial.set_length`. Raises as `Quotas.reserve` too."""
        await self._reserve(length)
        await self._opened.set_length(length)

    async def begin(self, declared: int | None, *, all_or_nothing: bool = False) -> None:
        """See `OpenPartial.begin`. Raises as `Quotas.reserve` too."""
        if self.length is None and declared is not None:
            await self._reserve(self.offset + declared)
        await self._opened.begin(declared, all_or_nothing=all_or_nothing)

    async def write(self, chunk: bytes) -> None:
        """See `OpenPartial.write`. Raises as `Quotas.reserve` too."""
        size = self.received + len(chunk)
        if self.length is None and size > self._reserved:
            ahead = min(max(size, MIN_STEP_BYTES), MAX_STEP_BYTES)
            self._reserved = await self._quotas.reserve_ahead(self._upload, size, ahead)
        await self._opened.write(chunk)

    async def finish(self) -> None:
        """See `OpenPartial.finish`."""
        await self._opened.finish()

    def digest(self, algorithm: str) -> bytes:
        """See `OpenPartial.digest`."""
        return self._opened.digest(algorithm)

    def expect_body_digests(self, algorithms: Sequence[str]) -> None:
        """See `OpenPartial.expect_body_digests`."""
        self._opened.expect_body_digests(algorithms)

    async def settle(self) -> int:
        """See `OpenPartial.settle`."""
        return await self._opened.settle()

    async def revert(self) -> None:
        """See `OpenPartial.revert`."""
        await self._opened.revert()

    async def append_parts(self, parts: Sequence[OpenPartial]) -> None:
        """See `OpenPartial.append_parts`."""
        await self._opened.append_parts([_inner(part) for part in parts])

    async def last_byte(self) -> bytes | None:
        """See `OpenPartial.last_byte`."""
        return await self._opened.last_byte()

    def can_digest(self, algorithm: str) -> bool:
        """See `OpenPartial.can_digest`."""
        return self._opened.can_digest(algorithm)

    async def digest_of_whole(self, algorithms: Sequence[str]) -> Mapping[str, bytes]:
        """See `OpenPartial.digest_of_whole`."""
        return await self._opened.digest_of_whole(algorithms)

    async def stage(self) -> PrivateFile:
        """See `OpenPartial.stage`."""
        return await self._opened.stage()

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `OpenPartial.hold`. What is held stays reserved."""
        await self._reserve(self.offset)
        held = await self._writer.end(self._hold(digests, handlers))
        self._is_ended = True
        return held

    async def commit(self, digests: Mapping[str, str]) -> Stored:
        """See `OpenPartial.commit`. Raises as `Quotas.reserve` too."""
        # Here too where it is reserved already: from now on this process settles it.
        await self._reserve(self.offset)
        return await self._writer.end(self._commit(digests))

    async def remove(self) -> bool:
        """See `OpenPartial.remove`. What is removed counts no more."""
        return await self._writer.end(self._remove())

    async def close(self) -> None:
        """See `OpenPartial.close`. It stays reserved."""
        if not self._is_ended:
            self._quotas.leave(self._upload.id)
        await self._opened.close()

    async def _reserve(self, size: int) -> None:
        await self._quotas.reserve(self._upload, size)
        self._reserved = size

    async def _commit(self, digests: Mapping[str, str]) -> Stored:
        try:
            stored = await self._opened.commit(digests)
        except Refusal:
            raise  # it is a partial upload again, which counts
        except BaseException:
            self._is_ended = True
            self._quotas.leave(self._upload.id)
            raise
        self._is_ended = True
        failpoints.hit("before quota settled")
        return await self._quotas.settle(self._upload, stored)

    async def _hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        held = await self._opened.hold(digests, handlers)
        self._quotas.leave(self._upload.id)
        with contextlib.suppress(Refusal):  # it is held, whatever is left
            held = held._replace(quotas=tuple(await self._quotas.left(self._upload)))
        return held

    async def _remove(self) -> bool:
        removed = await self._opened.remove()
        if removed:
            self._is_ended = True
            await self._quotas.free(self._upload.id)
        return removed


def _inner(part: OpenPartial) -> OpenPartial:
    return part._opened if isinstance(part, QuotaOpenPartial) else part
