"""One partial upload on the local disk that a request has open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from gateway.commit.batched_write import BatchedWrite
from gateway.commit.committer import Committer
from gateway.commit.disk import Reservation
from gateway.commit.held.local_holder import HoldRequest, hold_body
from gateway.commit.local_writer import LocalWriter, xattr_of
from gateway.commit.partials import OpenPartial
from gateway.commit.publish import check_target
from gateway.commit.records import CommitRequest, LocalDisk
from gateway.commit.running_digests import RunningDigests
from gateway.commit.writer import media_type
from gateway.domain import failpoints, paths
from gateway.domain.digests import SIZES, RunningDigest, algorithms_of, new_digest
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored
from gateway.domain.partial import PartialHead
from gateway.errors import Refusal
from gateway.storage.local.incoming import IncomingFile
from gateway.storage.local.partial_files import PartialFile
from gateway.storage.waiting import finish

COPY_BYTES: Final = 64 << 20
HASH_BYTES: Final = 8 << 20
"""Bytes that a thread copies or hashes before others get a turn: a tenth of a second at most here."""


class LocalOpenPartial(BatchedWrite):
    """A `PartialFile` as an `OpenPartial`, for the event loop."""

    def __init__(
        self,
        file: PartialFile,
        disk: LocalDisk,
        committer: Committer,
        writer: LocalWriter,
        digests: RunningDigests,
    ) -> None:
        super().__init__(writer.buffers, disk.executor)
        self._file = file
        self._disk = disk
        self._committer = committer
        self._digests = digests
        self._kept = writer.computed_digest
        self._holder = writer.holder
        self._reservation: Reservation | None = None
        expected = [digest.algorithm for digest in file.head.digests]
        computed = None if file.head.part_of_concat else self._kept
        algorithms = algorithms_of(expected, computed)
        file.running = digests.take(file.upload_id, file.received, algorithms)

    @property
    def head(self) -> PartialHead:
        """See `OpenPartial.head`."""
        return self._file.head

    @property
    def offset(self) -> int:
        """See `OpenPartial.offset`."""
        return self._file.offset

    @property
    def received(self) -> int:
        """See `OpenPartial.received`."""
        return self._file.received + self._buffered

    @property
    def length(self) -> int | None:
        """See `OpenPartial.length`."""
        return self._file.length

    async def set_length(self, length: int) -> None:
        """See `OpenPartial.set_length`."""
        await self._in_thread(partial(self._file.set_length, length))

    async def begin(self, declared: int | None, *, all_or_nothing: bool = False) -> None:
        """See `OpenPartial.begin`."""
        self._release_space()
        await self._in_thread(partial(self._begin, declared, all_or_nothing))

    def _begin(self, declared: int | None, all_or_nothing: bool) -> None:
        if declared != 0:  # what is whole can be committed on a full disk too
            self._reservation = self._disk.space.reserve(declared, self.head.client)
        self._file.begin(unchecked=all_or_nothing)

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """See `ThreadedWrite.append`."""
        self._use(sum(map(len, chunks)))
        self._file.write(chunks)

    async def finish(self) -> None:
        """See `OpenPartial.finish`."""
        if self._chunks:
            await self._flush()

    def digest(self, algorithm: str) -> bytes:
        """See `OpenPartial.digest`."""
        return self._file.digest(algorithm)

    def expect_body_digests(self, algorithms: Sequence[str]) -> None:
        """See `OpenPartial.expect_body_digests`."""
        self._file.expect_digests(algorithms)

    async def settle(self) -> int:
        """See `OpenPartial.settle`. What cannot be written is dropped; what was written is settled."""
        await self._work_ended()
        try:
            await self.finish()
        finally:
            offset = await self._in_thread(self._file.settle)
            self._release_space()
        return offset

    async def revert(self) -> None:
        """See `OpenPartial.revert`."""
        self._release_buffer()
        await self._work_ended()
        await self._in_thread(self._file.revert)
        self._release_space()

    async def append_parts(self, parts: Sequence[OpenPartial]) -> None:
        """See `OpenPartial.append_parts`."""
        files = [part._file for part in parts if isinstance(part, LocalOpenPartial)]
        if len(files) != len(parts):
            raise AssertionError("the parts are of the same store")
        await self.begin(sum(file.offset for file in files))
        for file in files:
            start = 0
            while start < file.offset:
                start += await self._in_thread(partial(self._copy, file, start))
        await self.settle()

    def _copy(self, source: PartialFile, start: int) -> int:
        count = min(source.offset - start, COPY_BYTES)
        self._use(count)
        done = 0
        while done < count:
            done += self._file.copy(source, start + done, count - done)
        return done

    async def last_byte(self) -> bytes | None:
        """See `OpenPartial.last_byte`."""
        return await self._in_thread(self._file.last_byte)

    def can_digest(self, algorithm: str) -> bool:
        """See `OpenPartial.can_digest`: all bytes can be read back."""
        return algorithm in SIZES

    async def digest_of_whole(self, algorithms: Sequence[str]) -> Mapping[str, bytes]:
        """See `OpenPartial.digest_of_whole`. Other work of the disk's threads gets its turns."""
        running = self._file.running
        digests = {name: running.get(name) or new_digest(name) for name in algorithms}
        missing = {name: digest for name, digest in digests.items() if name not in running}
        await self._read_back(missing)
        return {name: digest.digest() for name, digest in digests.items()}

    async def _read_back(self, digests: Mapping[str, RunningDigest]) -> None:
        start = 0
        while digests and start < self._file.received:
            start += await self._in_thread(partial(self._hash, digests, start))

    def _hash(self, digests: Mapping[str, RunningDigest], start: int) -> int:
        return self._file.hash(digests, start, HASH_BYTES)

    async def stage(self) -> PrivateFile:
        """See `OpenPartial.stage`. The bytes are in the file that the partial upload has."""
        size = await self.settle()
        return PrivateFile(size, self._file.path)

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `OpenPartial.hold`. A caller that is cancelled waits for the outcome."""
        return await finish(asyncio.ensure_future(self._hold(digests, handlers)))

    async def _hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        body = await self._whole_body(digests)
        request = HoldRequest(self.head.upload, body, dict(digests), handlers)
        held = await hold_body(self._holder, request)
        failpoints.hit("before partial end")
        await self._end(completed=True)
        return held

    async def commit(self, digests: Mapping[str, str]) -> Stored:
        """See `OpenPartial.commit`. A caller that is cancelled waits for the outcome."""
        return await finish(asyncio.ensure_future(self._commit(digests)))

    async def _commit(self, digests: Mapping[str, str]) -> Stored:
        upload, body = self.head.upload, await self._whole_body(digests)
        stored = await self._committer.commit(
            CommitRequest(upload, body, media_type(upload), dict(digests), from_client=True)
        )
        failpoints.hit("before partial end")
        await self._end(completed=True)
        return stored

    async def _whole_body(self, digests: Mapping[str, str]) -> IncomingFile:
        """Move the whole body to where it is committed, or held; `digests` are those of it."""
        await self.settle()
        body = await self._in_thread(self._move)
        body.digests.keep_named(self._kept, digests)
        return body

    def _move(self) -> IncomingFile:
        """Move the body to where it is committed; the target is checked as when it was created."""
        head = self.head
        upload = head.upload
        exists = self._disk.tree.lstat_target(paths.check_path(upload.path)) is not None
        check_target(upload, exists=exists, must_exist=head.must_exist)
        return self._file.move_to(self._disk.incoming, xattr_of(upload))

    async def remove(self) -> bool:
        """See `OpenPartial.remove`."""
        self._release_buffer()
        await self._work_ended()
        return await self._end(completed=False)

    async def _end(self, *, completed: bool) -> bool:
        self._release_space()
        try:
            await self._in_thread(partial(self._file.remove, completed=completed))
        except Refusal:  # it is logged
            return False
        return True

    async def close(self) -> None:
        """See `OpenPartial.close`."""
        self._release_buffer()
        await self._work_ended()
        self._release_space()
        with contextlib.suppress(Refusal):  # what could not be reverted is cut off by who opens it next
            await self._in_thread(self._close)

    def _close(self) -> None:
        if self._file.is_open:
            self._digests.keep(self._file.upload_id, self._file.received, self._file.running)
            self._file.close()

    def _use(self, amount: int) -> None:
        if not amount:
            return
        if self._reservation is None:
            raise AssertionError("a body is begun, with its bytes declared, before it is written")
        self._reservation.use(amount)

    def _release_space(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.close()
