"""One body that is being uploaded into the bucket: a small one in memory, others as parts.

Nothing is visible before `publish`. A part is buffered where memory is left, so that several are in
flight and each can be sent again; where none is left it is streamed. On the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from gateway.domain import failpoints
from gateway.domain.digests import algorithms_of, digest_field, named_digests, new_digest
from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.encoding import ObjectTarget, with_digest
from gateway.storage.s3.multiparts import UnfinishedMultipart
from gateway.storage.s3.part_sender import OpenPart, PartSender, UploadContext
from gateway.storage.s3.parts import (
    MAX_BUFFERED_PART_BYTES,
    MAX_PARTS,
    UNRESERVED_BYTES,
    BufferedPart,
    Piece,
    StreamedPart,
    part_bytes,
)
from gateway.storage.waiting import finish, finish_in_thread

MAX_HASHED_ON_LOOP: Final = 16 << 10
"""Bytes that are hashed on the loop: a SHA-256 of them takes 15 us, a thread's turn some 60."""


class MultipartUpload:
    """One body of a `client`. `size` is its declared length in bytes, None where it is not known.

    `done` is called when it is discarded; who publishes it calls it as well. `algorithms` are digests to
    compute, beside that of the context. The metadata of an object tells that one if one request stores
    it: of others it is fixed before their bytes are known.
    """

    def __init__(
        self,
        context: UploadContext,
        target: ObjectTarget,
        client: str,
        size: int | None,
        algorithms: Sequence[str] = (),
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self.target = target
        self.done = done
        self.claim: str | None = None
        self.received = 0
        self.multipart: str | None = None
        self._context = context
        self._size = size
        self._part_bytes = part_bytes(size)
        self._part: OpenPart | None = None
        self._count = 0
        self._beginning: asyncio.Task[str] | None = None
        self._sender = PartSender(context, client)
        self._kept = context.digest
        self._hashes = {name: new_digest(name) for name in algorithms_of(algorithms, context.digest)}

    staged_at = None
    """Its bytes are published themselves."""

    @property
    def can_retarget(self) -> bool:
        """Tell whether `target` can still be changed: nothing of the body has been sent."""
        return self.multipart is None

    async def write(self, piece: Piece) -> None:
        """Take the next bytes; waits while too many are in flight. Raises `Refusal`."""
        if self._size is not None and self.received + len(piece) > self._size:
            # No part has space for them.
            raise Refusal("incomplete_body", "more bytes came than the declared length")
        if self._hashes and len(piece) <= MAX_HASHED_ON_LOOP:
            self._hash(piece)
        elif self._hashes:
            await finish_in_thread(self._hash, piece, executor=self._context.executor)
        self.received += len(piece)
        rest = memoryview(piece)
        while rest:
            part = self._part or self._open_part()
            fitting = rest[: part.length - part.filled]
            await self._fill(part, fitting)
            rest = rest[len(fitting) :]
            whole_body = part.length == self._size and self._fits_one_request(part)
            if part.filled == part.length and not whole_body:
                await self._send_part(part)
        self._sender.raise_error()

    async def finish(self) -> None:
        """Send the rest, and wait until every part has arrived. Raises `Refusal`."""
        part = self._part
        if part is not None and part.filled and not self._fits_one_request(part):
            await self._send_part(part)
        await self._sender.wait_sent()

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of all bytes so far, by its name in `domain.digests`."""
        return self._hashes[algorithm].digest()

    def kept_digest(self) -> dict[str, bytes]:
        """Return the digest that is kept, by its algorithm; nothing where none is."""
        return {} if self._kept is None else {self._kept: self.digest(self._kept)}

    async def publish(self, *, new: bool) -> str:
        """Publish the object; return its etag. With `new` it replaces none. Raises as `put_object`."""
        failpoints.hit("before complete")
        tag = await self.complete(new=new)
        failpoints.hit("after complete")
        return tag

    async def complete(self, *, new: bool) -> str:
        """Make one object of what was sent, see `publish`."""
        target, objects = self.target, self._context.objects
        if self.multipart is not None:
            return await objects.complete_multipart(
                target.key, self.multipart, self._sender.tags, new=new
            )
        content = (self._part and self._part.buffer) or BufferedPart()
        params = with_digest(target.params, digest_field(named_digests(self.kept_digest())))
        return await objects.put_object(target.key, content, params, new=new)

    def release_memory(self) -> None:
        """Give the memory back; nothing can be sent again."""
        self._sender.release_all()
        self._part = None

    async def withdraw(self) -> None:
        """Do nothing: no other process knows of it."""

    async def discard(self) -> None:
        """Abort what was sent. Never raises for an unavailable storage: the sweep aborts it later.

        A cancelled caller waits for the end too: the requests use the body's memory.
        """
        await finish(asyncio.create_task(self._discard()))

    async def _discard(self) -> None:
        beginning = () if self._beginning is None else (self._beginning,)
        await self._sender.cancel(*beginning)
        self.release_memory()
        if self.multipart is not None:
            with contextlib.suppress(GatewayError):
                await self._context.objects.abort_multipart(self.target.key, self.multipart, 0)
                remove, executor = self._context.multiparts.remove, self._context.executor
                await finish_in_thread(remove, self.target.upload_id, executor=executor)
        self.done()

    # -- parts

    def _open_part(self) -> OpenPart:
        if self._count == MAX_PARTS:
            raise Refusal(
                "too_large",
                f"a body of unknown length may have {MAX_PARTS * self._part_bytes} bytes here:"
                " say Content-Length for more",
            )
        left = self._part_bytes if self._size is None else self._size - self._count * self._part_bytes
        self._count += 1
        part = self._part = OpenPart(self._count, min(self._part_bytes, left))
        if self._size is None or part.length <= UNRESERVED_BYTES:
            part.buffer = BufferedPart()
        elif part.length <= MAX_BUFFERED_PART_BYTES and self._sender.try_reserve(part):
            part.buffer = BufferedPart(part.length)
        return part

    async def _fill(self, part: OpenPart, piece: Piece) -> None:
        part.filled += len(piece)
        if part.buffer is not None:
            if not part.reserved and part.filled > UNRESERVED_BYTES:
                await self._sender.reserve(part)
            part.buffer.add(piece)
            return
        if part.stream is None or part.request is None:
            multipart, part.stream = await self._multipart_id(), StreamedPart()
            self._sender.start(part, self.target.key, multipart, part.stream, part.length)
        request = part.request
        if request is not None:
            await part.stream.add(piece, request)
            if request.done():
                request.result()  # raises its error

    async def _send_part(self, part: OpenPart) -> None:
        """Begin to send a full part, or end its stream; wait while too many are in flight."""
        self._part = None
        multipart = await self._multipart_id()
        await self._sender.send(part, self.target.key, multipart)

    async def _multipart_id(self) -> str:
        """Return S3's id of the multipart upload, which is begun where it is not yet.

        Where the caller is cancelled meanwhile it is begun all the same, for `discard` to abort it.
        """
        if self._beginning is None:
            self._beginning = asyncio.create_task(self._begin_multipart())
        return await asyncio.shield(self._beginning)

    async def _begin_multipart(self) -> str:
        target, objects = self.target, self._context.objects
        multipart = self.multipart = await objects.create_multipart(target.key, target.params)
        entry = UnfinishedMultipart(target.upload_id, objects.bucket, target.key, multipart)
        await finish_in_thread(self._context.multiparts.record, entry, executor=self._context.executor)
        return multipart

    def _fits_one_request(self, part: OpenPart) -> bool:
        """Tell whether the part is all of the body so far, and in memory."""
        return part.number == 1 and part.buffer is not None and self.multipart is None

    def _hash(self, piece: Piece) -> None:
        for digest in self._hashes.values():
            digest.update(piece)
