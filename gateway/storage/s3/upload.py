"""S3 room: one body on its way into the bucket: small ones in memory, others as parts while they come.

One rule: nothing is visible before `publish`. All parts but the last are of one size (some stores
demand it), chosen so that the declared length fits into the parts that S3 takes. A part is gathered
where memory is left, so that several are in flight and each can be sent again; where none is left
it streams. On the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.domain import failpoints
from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.memory_budget import MemoryBudget
from gateway.storage.s3.multipart_log import MultipartLog, UnfinishedMultipart
from gateway.storage.s3.part_body import BufferedPart, Piece, StreamedPart
from gateway.storage.s3.parts import (
    MAX_BUFFERED_PART_BYTES,
    MAX_PARTS,
    UNRESERVED_BYTES,
    ObjectTarget,
    part_bytes,
)

if TYPE_CHECKING:
    from hashlib import _Hash

T = TypeVar("T")

MAX_PARTS_IN_FLIGHT: Final = 4
"""Parts of one upload that are sent at once."""


@dataclass(slots=True, frozen=True)
class UploadContext:
    """What all bodies of a process share. `memory_timeout`: seconds that one may wait for memory."""

    objects: BucketClient
    memory: MemoryBudget
    threads: Executor
    notes: MultipartLog
    memory_timeout: float = 60.0


class _PartBuffer:
    """The part that is being filled. `length` is its size in bytes, the last one's may turn out less."""

    def __init__(self, number: int, length: int) -> None:
        self.number = number
        self.length = length
        self.filled = 0
        self.taken = 0
        self.gathered: BufferedPart | None = None
        self.stream: StreamedPart | None = None
        self.request: asyncio.Task[str] | None = None


class MultipartUpload:
    """One body. `size` is its declared length in bytes, None where it is not known.

    `done` is called when it is discarded, and by whoever has published it.
    """

    def __init__(
        self,
        means: UploadContext,
        target: ObjectTarget,
        size: int | None,
        algorithms: Sequence[str] = (),
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self.target = target
        self.done = done
        self.received = 0
        self.multipart: str | None = None
        self._means = means
        self._size = size
        self._part_bytes = part_bytes(size)
        self._part: _PartBuffer | None = None
        self._count = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._tags: dict[int, str] = {}
        self._held = 0
        self._fault: Exception | None = None
        self._hashes: dict[str, _Hash] = {
            name: hashlib.new(name, usedforsecurity=False) for name in algorithms
        }

    @property
    def can_retarget(self) -> bool:
        """Tell whether the body can still go to another key: nothing of it has been sent."""
        return self.multipart is None

    def retarget(self, target: ObjectTarget) -> None:
        """Send it to another key. Only where it is `can_retarget`."""
        self.target = target

    async def write(self, piece: Piece) -> None:
        """Take the next bytes; waits while too much is on its way. Raises `Refusal`."""
        if self._size is not None and self.received + len(piece) > self._size:
            # No part has room for them.
            raise Refusal("incomplete_body", "more bytes came than the declared length")
        if self._hashes:
            await self._hash(piece)
        self.received += len(piece)
        rest = memoryview(piece)
        while rest:
            part = self._part or self._open()
            some = rest[: part.length - part.filled]
            await self._fill(part, some)
            rest = rest[len(some) :]
            if part.filled == part.length and not self._is_whole(part):
                await self._close(part)
        self._complain()

    async def finish(self) -> None:
        """All bytes are here: send the rest, see that every part has arrived. Raises `Refusal`."""
        part = self._part
        if part is not None and part.filled and not self._is_small(part):
            await self._close(part)
        while self._sending:
            await asyncio.wait(self._sending)
        self._complain()

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of all bytes so far, by its `hashlib` name."""
        return self._hashes[algorithm].digest()

    async def publish(self, *, new: bool) -> str:
        """Make the object visible; return its entity tag.

        Raises `TakenError` (`new`, and there is one), `Refusal`, or `DoubtfulError`.
        """
        target, objects = self.target, self._means.objects
        failpoints.hit("before complete")
        if self.multipart is not None:
            tag = await objects.complete_multipart(target.key, self.multipart, self._tags, new=new)
        else:
            content = self._part.gathered if self._part else None
            tag = await objects.put_object(target.key, content or BufferedPart(), target.said, new=new)
        failpoints.hit("after complete")
        return tag

    def release_memory(self) -> None:
        """Give the memory back; nothing can be sent again."""
        held, self._held = self._held, 0
        self._means.memory.release(held)
        self._part = None

    async def discard(self) -> None:
        """Take back what was sent. Never raises for a storage that is away: the sweep is for that."""
        running: list[asyncio.Task[Any]] = [*self._sending]
        if self._part is not None and self._part.request is not None:
            running.append(self._part.request)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self.release_memory()
        if self.multipart is not None:
            with contextlib.suppress(GatewayError):
                await self._means.objects.abort_multipart(self.target.key, self.multipart, 0)
                await self._noting(self._means.notes.remove, self.target.upload_id)
        self.done()

    # -- parts

    def _open(self) -> _PartBuffer:
        """Begin the next part."""
        if self._count == MAX_PARTS:
            raise Refusal(
                "too_large",
                f"a body of unknown length may have {MAX_PARTS * self._part_bytes} bytes here:"
                " say Content-Length for more",
            )
        self._count += 1
        left = self._part_bytes if self._size is None else self._size - self.received_before
        part = self._part = _PartBuffer(self._count, min(self._part_bytes, left))
        if self._size is None or part.length <= UNRESERVED_BYTES:
            part.gathered = BufferedPart()
        elif part.length <= MAX_BUFFERED_PART_BYTES and self._means.memory.try_reserve(part.length):
            part.taken = part.length
            self._held += part.length
            part.gathered = BufferedPart(part.length)
        return part

    @property
    def received_before(self) -> int:
        """Bytes of the parts before the one that is opened."""
        return (self._count - 1) * self._part_bytes

    async def _fill(self, part: _PartBuffer, piece: Piece) -> None:
        part.filled += len(piece)
        if part.gathered is not None:
            if not part.taken and part.filled > UNRESERVED_BYTES:
                await self._means.memory.reserve(part.length, self._means.memory_timeout)
                part.taken = part.length
                self._held += part.length
            part.gathered.add(piece)
            return
        if part.stream is None or part.request is None:
            part.stream = StreamedPart()
            part.request = asyncio.create_task(
                self._send(part.number, await self._begun(), part.stream, part.length)
            )
        await part.stream.add(piece, part.request)
        if part.request.done():
            part.request.result()  # raises what is wrong

    async def _close(self, part: _PartBuffer) -> None:
        """The part is full: let it go its way."""
        self._part = None
        multipart = await self._begun()
        if part.stream is not None and part.request is not None:
            await part.stream.add(b"", part.request)
        elif part.gathered is not None:
            content = part.gathered
            part.request = asyncio.create_task(self._send(part.number, multipart, content, content.size))
        self._sending.add(task := asyncio.create_task(self._arrive(part)))
        task.add_done_callback(self._sending.discard)
        failpoints.hit("mid body")
        while len(self._sending) >= MAX_PARTS_IN_FLIGHT:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
        self._complain()

    async def _send(
        self, number: int, multipart: str, body: BufferedPart | StreamedPart, size: int
    ) -> str:
        return await self._means.objects.upload_part(self.target.key, multipart, number, body, size)

    async def _arrive(self, part: _PartBuffer) -> None:
        """Wait for the answer to one part, then give its memory back."""
        request = part.request
        if request is None:
            return
        try:
            self._tags[part.number] = await request
        except Exception as fault:
            self._fault = self._fault or fault
        except asyncio.CancelledError:
            request.cancel()
            raise
        finally:
            if part.gathered is not None:
                part.gathered.free()
            part.gathered = part.stream = None
            taken, part.taken = part.taken, 0
            taken = min(taken, self._held)
            self._held -= taken
            self._means.memory.release(taken)

    async def _begun(self) -> str:
        """Return the id of the multipart upload, which is begun where it is not yet."""
        if self.multipart is None:
            self.multipart = await self._means.objects.create_multipart(
                self.target.key, self.target.said
            )
            target, bucket = self.target, self._means.objects.bucket
            note = UnfinishedMultipart(target.upload_id, bucket, target.key, self.multipart)
            await self._noting(self._means.notes.record, note)
        return self.multipart

    async def _noting(self, work: Callable[[T], None], what: T) -> None:
        await asyncio.get_running_loop().run_in_executor(self._means.threads, work, what)

    def _is_small(self, part: _PartBuffer) -> bool:
        """Tell whether the part is the whole body, and in memory: one request will store it."""
        return part.number == 1 and part.gathered is not None and self.multipart is None

    def _is_whole(self, part: _PartBuffer) -> bool:
        return self._is_small(part) and self._size == part.length

    def _complain(self) -> None:
        if self._fault is not None:
            raise self._fault

    async def _hash(self, piece: Piece) -> None:
        def feed() -> None:
            for digest in self._hashes.values():
                digest.update(piece)

        await asyncio.get_running_loop().run_in_executor(self._means.threads, feed)
