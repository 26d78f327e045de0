"""One partial upload in a bucket that a request has open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.commit.objects.body import ObjectCommit
from gateway.commit.objects.committer import ObjectCommitter
from gateway.commit.objects.partial_counts import PartialCounts
from gateway.commit.objects.partial_ends import PartialEnds
from gateway.commit.objects.partial_hold import hold_partial
from gateway.commit.objects.staging import ObjectStaging, StagedPartial
from gateway.commit.partials import OpenPartial, PartialLost
from gateway.commit.publish import check_target
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored
from gateway.domain.partial import PartialHead
from gateway.errors import GatewayError, Refusal
from gateway.events.pending_uploads import PendingUpload
from gateway.limits import FairShare, Lease
from gateway.storage.s3.partial_body import PartialBody
from gateway.storage.s3.private_objects import ChangedError
from gateway.storage.waiting import finish


@dataclass(slots=True, frozen=True)
class PartialServices:
    """What all open partial uploads of a process share.

    `streams` are bodies into the bucket. `check_space` is that of the local disk, for the journal.
    """

    ends: PartialEnds
    committer: ObjectCommitter
    staging: ObjectStaging
    counts: PartialCounts
    streams: FairShare
    check_space: Callable[[], Awaitable[None]]


class ObjectOpenPartial:
    """A `PartialBody` as an `OpenPartial` of the gateway `writer`. `let_go` gives its lock back.

    `row` is there where an earlier commit has no known outcome: all that can be done is to commit again.
    """

    threaded = None
    """All bytes go through the event loop: there the requests to S3 run."""

    def __init__(
        self,
        services: PartialServices,
        head: PartialHead,
        body: PartialBody,
        writer: str,
        let_go: Callable[[], Awaitable[None]],
        row: PendingUpload | None = None,
    ) -> None:
        self._services = services
        self._head = head
        self._body = body
        self._writer = writer
        self._let_go = let_go
        self._row = row
        self._lease: Lease | None = None
        self._body_digests: tuple[str, ...] = ()
        self._is_closed = False

    @property
    def head(self) -> PartialHead:
        """See `OpenPartial.head`."""
        return self._head

    @property
    def offset(self) -> int:
        """See `OpenPartial.offset`."""
        return self._body.state.offset

    @property
    def received(self) -> int:
        """See `OpenPartial.received`."""
        return self._body.received

    @property
    def length(self) -> int | None:
        """See `OpenPartial.length`."""
        return self._body.length

    async def set_length(self, length: int) -> None:
        """See `OpenPartial.set_length`."""
        with _lost():
            await self._body.load(self._writer)
            await self._body.set_length(length)

    async def begin(self, declared: int | None, *, all_or_nothing: bool = False) -> None:
        """See `OpenPartial.begin`. The local disk needs space for the journal."""
        if self._lease is None and declared != 0:
            self._lease = self._services.streams.acquire(self._head.client)
        await self._services.check_space()
        with _lost():
            await self._body.load(self._writer)
        self._body.hashes.begin_body(self._body_digests if all_or_nothing else ())

    async def write(self, chunk: bytes) -> None:
        """See `OpenPartial.write`."""
        with _lost():
            await self._body.write(chunk)

    async def finish(self) -> None:
        """See `OpenPartial.finish`."""
        await self._body.hash_rest()

    def digest(self, algorithm: str) -> bytes:
        """See `OpenPartial.digest`."""
        return self._body.hashes.digest_of_body(algorithm)

    def expect_body_digests(self, algorithms: Sequence[str]) -> None:
        """See `OpenPartial.expect_body_digests`."""
        self._body_digests = tuple(algorithms)

    async def settle(self) -> int:
        """See `OpenPartial.settle`."""
        with _lost():
            await self._body.settle()
        return self.offset

    async def revert(self) -> None:
        """See `OpenPartial.revert`."""
        if self.received != self.offset:
            with _lost():
                await self._body.reload()

    async def append_parts(self, parts: Sequence[OpenPartial]) -> None:
        """See `OpenPartial.append_parts`. The bytes pass through this process once more."""
        with _lost():
            await self._body.load(self._writer)
            for part in parts:
                if not isinstance(part, ObjectOpenPartial):
                    raise TypeError("a part that is kept elsewhere cannot be appended")
                async for piece in part.read_whole():
                    await self._body.write(piece)
            await self._body.settle()

    async def read_whole(self) -> AsyncIterator[bytes]:
        """Iterate over all bytes of a part of a concatenation; it takes no more from then on."""
        body, store = self._body, self._services.ends.store
        await body.load(self._writer)
        await body.seal()
        if not body.state.sealed:
            yield body.tail()
            return
        count = 0
        async for piece in store.objects.stream(f"{self._head.upload.id}.part"):
            count += len(piece)
            yield piece
        if count != body.state.offset:
            raise Refusal("storage_unavailable", "a part of the file could not be read to its end")

    async def last_byte(self) -> bytes | None:
        """See `OpenPartial.last_byte`."""
        return None if self._body.last is None else bytes([self._body.last])

    def can_digest(self, algorithm: str) -> bool:
        """See `OpenPartial.can_digest`."""
        return algorithm in self._body.hashes.algorithms

    async def digest_of_whole(self, algorithms: Sequence[str]) -> Mapping[str, bytes]:
        """See `OpenPartial.digest_of_whole`: they are computed while the bytes come.

        S3 returns no bytes of an unfinished upload. Raises `Refusal` for those that were not asked
        for at the creation.
        """
        with _lost():
            await self._body.load(self._writer)
        await self._body.hash_rest()
        for name in algorithms:
            if not self.can_digest(name):
                raise Refusal(
                    "bad_digest",
                    f"the {name} of the whole file is known here only where the request that creates"
                    " the upload asks for it",
                )
        return {name: self._body.hashes.digest_of_whole(name) for name in algorithms}

    async def stage(self) -> PrivateFile:
        """See `OpenPartial.stage`. What began without handlers can be staged while it has no parts."""
        with _lost():
            await self._stage()
        return self._services.staging.private_file(self._head.upload.id, self.received)

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """See `OpenPartial.hold`. A cancelled caller waits for its end."""
        holding = self._services.committer.run(self._hold(digests, handlers))
        with _lost():
            return await finish(asyncio.ensure_future(holding))

    async def _hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        await self._body.load(self._writer)
        await self._check_existing()
        await self._stage()
        staging, upload = self._services.staging, self._head.upload
        held = await hold_partial(staging, upload, self._body, digests, handlers)
        self._services.counts.remove(upload.id)
        return held

    async def commit(self, digests: Mapping[str, str]) -> Stored:
        """See `OpenPartial.commit`."""
        body, services = self._body, self._services
        with _lost():
            try:
                await body.load(self._writer)
                await self._check_existing()
                if body.state.staged and self._row is None:
                    await self._stage()
                await body.finish()
                stored = await services.committer.commit(self._commit(dict(digests)))
            except Refusal:
                with contextlib.suppress(GatewayError):
                    await body.reload()
                raise
        await services.ends.completed(self._head, staged=body.state.staged)
        services.counts.remove(self._head.upload.id)
        return stored

    async def _stage(self) -> None:
        """Let the private object of the upload exist. Raises `Refusal`, `ChangedError`."""
        body = self._body
        if self._row is not None:
            raise Refusal("locked", "an earlier commit of this upload is not settled: try again")
        await body.load(self._writer)
        if not body.state.staged:
            if body.multipart is not None:
                raise Refusal(
                    "superseded",
                    "this upload began when no handlers read whole files here: begin it anew",
                )
            body.target = self._services.staging.target(self._head.upload)
        await body.stage()

    async def remove(self) -> bool:
        """See `OpenPartial.remove`. One whose commit has no known outcome is not removed."""
        upload_id = self._head.upload.id
        is_removed = self._row is None and await self._services.ends.remove(upload_id)
        if is_removed:
            self._services.counts.remove(upload_id)
        await self.close()
        return is_removed

    async def close(self) -> None:
        """See `OpenPartial.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._lease is not None:
            self._lease.close()
        await self._body.close()
        if self._row is not None:
            self._services.committer.add_pending(self._row)
        await self._let_go()

    def _commit(self, digests: dict[str, str]) -> ObjectCommit:
        upload, body, row = self._head.upload, self._body, self._row
        commit = ObjectCommit(upload, body, digests, from_client=True)
        if body.state.staged:
            staging, path = self._services.staging, upload.path if row is None else row.path
            target = staging.final_target(upload, path)
            commit.body = StagedPartial(staging, target, body, staging.kept_digest(digests))
        if row is not None:  # from here on it is the committer's
            commit.row, commit.is_resumed, self._row = row, True, None
        return commit

    async def _check_existing(self) -> None:
        """Raise `Refusal("precondition_failed")` where a file must exist, and does no more."""
        if self._head.must_exist and self._row is None:
            ends, upload = self._services.ends, self._head.upload
            exists = await ends.objects.head_object(ends.keys.key_of(upload.path)) is not None
            check_target(upload, exists=exists, must_exist=True)


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except ChangedError as error:
        raise PartialLost("another gateway has taken the partial upload over") from error
