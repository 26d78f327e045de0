"""The bytes of a partial upload in a bucket, while one request has it open.

Full parts go to a multipart upload. What is left, the tail, lies in memory, and in the state object once
it is settled. What S3 has not acknowledged is never told. A cancelled `write` has taken as many bytes as
`received` says. On the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gateway.domain import failpoints
from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.encoding import ObjectTarget
from gateway.storage.s3.part_sender import OpenPart, PartSender, UploadContext
from gateway.storage.s3.partial_hashes import PartialHashes
from gateway.storage.s3.partial_objects import PartialObjects, PartialState, StoredState
from gateway.storage.s3.parts import MAX_PARTS, UNRESERVED_BYTES, BufferedPart, Piece
from gateway.storage.s3.private_objects import ChangedError
from gateway.storage.waiting import finish

_NO_BYTES: Final = memoryview(b"")


class PartialAppender:
    """Appends to the upload of `target`, of a `client`, from the `stored` state on.

    `choose_target` returns where a multipart upload goes to, which it keeps. `done` is called at the
    end.
    """

    def __init__(
        self,
        context: UploadContext,
        store: PartialObjects,
        target: ObjectTarget,
        client: str,
        stored: StoredState,
        choose_target: Callable[[], Awaitable[ObjectTarget]],
    ) -> None:
        self.target = target
        self.done: Callable[[], None] = lambda: None
        self.claim: str | None = None
        self.state = stored.state
        self.received = stored.state.offset
        self.last = stored.state.last
        self.hashes = PartialHashes(stored.state, context.executor)
        self._context = context
        self._store = store
        self._client = client
        self._choose_target = choose_target
        self._stored: StoredState | None = stored
        self._etag: str | None = stored.etag or None
        self._sender = PartSender(context, client)
        self._part: OpenPart | None = None
        self._sent = len(stored.state.tags)
        self._loaded = False

    @property
    def multipart(self) -> str | None:
        """S3's id of the multipart upload; None while all bytes lie in the state object."""
        return self.state.multipart

    @property
    def can_retarget(self) -> bool:
        """Tell whether `target` can still be changed: a multipart upload keeps its key."""
        return self.multipart is None

    @property
    def length(self) -> int | None:
        """The length of the whole, None while it is not known."""
        return self.state.length

    async def create(self) -> None:
        """Store the first state; what needs several parts begins its multipart upload before."""
        self._loaded, self._stored, length = True, None, self.length
        if length is not None and length > self.state.part_bytes:
            await self._begin_multipart()
        else:
            await self._store_state(self.state, _NO_BYTES)

    async def load(self, writer: str) -> None:
        """Read the tail, once; take the upload over where another gateway wrote to it last.

        Raises `ChangedError`, `Refusal`.
        """
        if self._loaded:
            return
        await self._read_tail()
        if self.state.writer != writer:
            await self._write_state(writer=writer)
        self._loaded = True

    async def write(self, piece: Piece) -> None:
        """Take the next bytes; waits while too many are in flight. Raises `Refusal`, `ChangedError`."""
        if self.length is not None and self.received + len(piece) > self.length:
            raise Refusal("incomplete_body", "more bytes came than the declared length")
        rest = memoryview(piece)
        while rest:
            await self._send_full_part()
            part = self._part or self._open_part()
            fitting = rest[: part.length - part.filled]
            buffer = await self._buffer_for(part, len(fitting))
            buffer.add(fitting)
            part.filled += len(fitting)
            self.received += len(fitting)
            self.last = fitting[-1]
            rest = rest[len(fitting) :]
            await self.hashes.update_often(self._unhashed())
        await self._send_full_part()
        self._sender.raise_error()

    async def settle(self) -> None:
        """Make durable what has come. Raises `Refusal`, `ChangedError`."""
        await self._send_full_part()
        await self._sender.wait_sent()
        if self.received != self.state.offset:
            failpoints.hit("before partial settle")
            await self._write_state(latest=time.time())
            failpoints.hit("after partial settle")

    async def reload(self) -> None:
        """Drop what has come since the last settle. Raises `Refusal`, `ChangedError`."""
        await self._sender.cancel()
        self._sender.release_all()
        self._sender, self._part = PartSender(self._context, self._client), None
        self._sent, self.received = len(self.state.tags), self.state.offset
        self.last = self.state.last
        self.hashes = PartialHashes(self.state, self._context.executor)
        await self._read_tail()

    async def set_length(self, length: int) -> None:
        """Fix the length of the whole, durably; settles. Raises `Refusal`, `ChangedError`."""
        if length > MAX_PARTS * self.state.part_bytes:
            raise self._too_large()
        await self._send_full_part()
        await self._sender.wait_sent()
        await self._write_state(length=length)
        if self._part is not None:
            start = (self._part.number - 1) * self.state.part_bytes
            self._part.length = min(self.state.part_bytes, length - start)

    async def close(self) -> None:
        """Let go of it; nothing more is settled."""
        await finish(asyncio.create_task(self._sender.cancel()))
        self.release_memory()
        self.done()

    async def hash_rest(self) -> None:
        """Let the digests take all bytes that have come."""
        await self.hashes.update(self._unhashed())

    def tail(self) -> bytes:
        """Return the bytes that are in no part."""
        part = self._part
        return b"" if part is None or part.buffer is None else bytes(part.buffer.view(0, part.filled))

    def release_memory(self) -> None:
        """Give the memory back; nothing can be sent again."""
        self._sender.release_all()
        self._part = None

    # -- parts

    async def _read_tail(self) -> None:
        """Load the tail into a part."""
        upload_id, etag = self.target.upload_id, self._etag
        stored, self._stored = self._stored, None
        if stored is None:
            stored = await self._store.read(upload_id)
        if stored is None or stored.etag != etag:
            raise ChangedError("the partial upload was changed meanwhile")
        size = self.state.tail
        if not size:
            return
        part = self._open_part()
        buffer = await self._buffer_for(part, size)
        if len(stored.tail) == size:
            buffer.add(stored.tail)
        else:
            await self._store.objects.read_into(upload_id, stored.tail_start, stored.etag, buffer)
        if buffer.size != size:
            raise Refusal("internal", "the state of a partial upload has another number of bytes")
        part.filled = size

    def _open_part(self) -> OpenPart:
        number, size = self._sent + 1, self.state.part_bytes
        if number > MAX_PARTS:
            raise self._too_large()
        left = size if self.length is None else self.length - self._sent * size
        self._part = OpenPart(number, min(size, left))
        self._part.buffer = BufferedPart()
        return self._part

    def _too_large(self) -> Refusal:
        most = MAX_PARTS * self.state.part_bytes
        return Refusal(
            "too_large",
            f"an upload that begins without its length may have {most} bytes in this storage",
        )

    async def _buffer_for(self, part: OpenPart, more: int) -> BufferedPart:
        """Return the buffer of a part, with space for more bytes. Raises `Refusal`."""
        if part.buffer is None:
            raise Refusal("internal", "a part that was sent takes no more bytes")
        if not part.reserved and part.filled + more > UNRESERVED_BYTES:
            await self._sender.reserve(part)
            # One block: it must not grow while a settle has a view of it.
            block = BufferedPart(part.length)
            block.add(part.buffer.view(0, part.filled))
            part.buffer = block
        return part.buffer

    async def _send_full_part(self) -> None:
        """Send the part that is being filled where it is full, but for a file that is a single one."""
        part = self._part
        if part is not None and part.filled == part.length and part.length != self.length:
            await self._send_part(part)

    async def _send_part(self, part: OpenPart) -> None:
        await self.hashes.update(self._unhashed())
        if self.multipart is None:
            await finish(asyncio.create_task(self._begin_multipart()))
        self._part, self._sent = None, part.number
        await self._sender.send(part, self.target.key, str(self.multipart))

    async def _begin_multipart(self) -> None:
        """Begin the multipart upload; the state names it before it gets a part."""
        objects, target = self._context.objects, await self._choose_target()
        multipart = await objects.create_multipart(target.key, target.params)
        failpoints.hit("after multipart begun")
        self.target, part = target, self._part
        state = dataclasses.replace(self.state, multipart=multipart, path=target.path)
        settled = _NO_BYTES
        if part is not None and part.buffer is not None:
            settled = part.buffer.view(0, self.state.tail)
        try:
            await self._store_state(state, settled)
        except GatewayError:
            with contextlib.suppress(GatewayError):
                await objects.abort_multipart(target.key, multipart, 0)
            raise

    def _unhashed(self) -> memoryview:
        """Return the bytes that the digests have not taken: all of them are in the part."""
        part, count = self._part, self.received - self.hashes.position
        if part is None or part.buffer is None or not count:
            return _NO_BYTES
        return part.buffer.view(part.filled - count, part.filled)

    # -- the state

    async def _write_state(self, **changes: Any) -> None:
        """Store the state of all bytes that have come; every part has arrived."""
        await self.hashes.update(self._unhashed())
        sent = [self._sender.tags[n] for n in range(len(self.state.tags) + 1, self._sent + 1)]
        state = dataclasses.replace(
            self.state,
            offset=self.received,
            last=self.last,
            sequence=self.state.sequence + 1,
            tags=(*self.state.tags, *sent),
            digests=self.hashes.save(),
            **changes,
        )
        part, tail = self._part, _NO_BYTES
        if part is not None and part.buffer is not None:
            tail = part.buffer.view(0, part.filled)
            if not part.reserved:
                tail = memoryview(bytes(tail))  # its buffer grows
        await self._store_state(state, tail)

    async def _store_state(self, state: PartialState, tail: memoryview) -> None:
        """Store a state. A cancelled caller waits for its end, else its tag would be unknown."""
        upload_id = self.target.upload_id
        storing = self._store.write(upload_id, state, tail, self._etag)
        self._etag = await finish(asyncio.create_task(storing))
        self.state = state
