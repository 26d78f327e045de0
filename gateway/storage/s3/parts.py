"""The parts of an upload: their size, and their bytes (buffered or streamed).

All parts but the last are of one size (some stores demand it), and the declared length fits into as
many as S3 takes. A buffered part can be sent again, a streamed one cannot. On one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from gateway.errors import Refusal

Piece = bytes | memoryview

PART_BYTES: Final = 8 << 20
"""A part, unless the declared length needs larger ones; a smaller body is stored in one request."""

MAX_PARTS: Final = 10_000
MAX_PART_BYTES: Final = 5 << 30
"""Amazon S3 user guide, "Multipart upload limits"."""

MAX_BUFFERED_PART_BYTES: Final = 16 << 20
"""Larger parts, those of files beyond 156 GiB, are always streamed."""

UNRESERVED_BYTES: Final = 64 << 10
"""What a body may hold without a reservation: large bodies never delay small ones."""

STALL_TIMEOUT: Final = 30.0
"""Seconds in which the storage must take some bytes of a request, or answer it."""

_MIB: Final = 1 << 20
_PIECE_BYTES: Final = 128 << 10

_MAX_QUEUED: Final = 2
"""Pieces of a stream that may wait to be sent; a piece has at most half a megabyte."""


def part_bytes(size: int | None) -> int:
    """Return the part size of a body, None: undeclared length. Raises `Refusal("too_large")`."""
    if size is None:
        return PART_BYTES
    part = max(PART_BYTES, -(-size // (MAX_PARTS * _MIB)) * _MIB)
    if part > MAX_PART_BYTES:
        raise Refusal("too_large", f"the storage takes {MAX_PARTS * MAX_PART_BYTES} bytes at the most")
    return part


class StallTimeout:
    """Ends a request that makes no progress. It is moved on while the request does."""

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(STALL_TIMEOUT)
        self._over = False

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        self._over = True
        await self._timeout.__aexit__(*exc_info)

    def renew(self) -> None:
        """Start again: the storage takes bytes."""
        self._reschedule(asyncio.get_running_loop().time() + STALL_TIMEOUT)

    def suspend(self) -> None:
        """Stop the clock: the client is waited for, not the storage."""
        self._reschedule(None)

    def _reschedule(self, when: float | None) -> None:
        # The body is written by a task of the S3 client, which may end a little after the request.
        if not self._over and not self._timeout.expired():
            self._timeout.reschedule(when)


class BufferedPart:
    """A part, or a whole small body, in memory. Can be sent any number of times.

    With `capacity` it is one block of so many bytes, however small the pieces are that come: thousands
    of pieces would fragment the memory of the process.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.size = 0
        self.stall_timeout: StallTimeout | None = None
        self._block = bytearray(capacity)

    def add(self, piece: Piece) -> None:
        """Append the next bytes."""
        self._block[self.size : self.size + len(piece)] = piece
        self.size += len(piece)

    def view(self, start: int, end: int) -> memoryview:
        """Return a range of the bytes, without a copy. What is growing cannot grow while it is there."""
        return memoryview(self._block)[start:end]

    def free(self) -> None:
        """Drop the bytes at once: objects of the S3 client may refer to this one for a while."""
        self._block, self.size = bytearray(), 0

    async def read(self) -> bytes:
        """Return all of it (by this method the S3 client recognises a body)."""
        return bytes(self._block[: self.size])

    def seek(self, _position: int) -> None:
        """Begin again: each iteration does."""

    def tell(self) -> int:
        """Return the position of the next byte, which is the first one."""
        return 0

    async def __aiter__(self) -> AsyncIterator[Piece]:
        whole = memoryview(self._block)
        for start in range(0, self.size, _PIECE_BYTES):
            yield whole[start : min(start + _PIECE_BYTES, self.size)]
            if self.stall_timeout is not None:
                self.stall_timeout.renew()


class StreamedPart:
    """A part that is sent while it comes, from `add` to the one request that iterates over it."""

    def __init__(self) -> None:
        self.stall_timeout: StallTimeout | None = None
        self._queue: asyncio.Queue[Piece] = asyncio.Queue(_MAX_QUEUED)

    async def add(self, piece: Piece, request: asyncio.Task[str]) -> None:
        """Queue the next bytes for the request; returns at once where that has ended already."""
        if not self._queue.full():
            self._queue.put_nowait(piece)
            return
        adding = asyncio.ensure_future(self._queue.put(piece))
        try:
            await asyncio.wait({adding, request}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            adding.cancel()

    async def read(self) -> bytes:
        """Return the next bytes (by this method the S3 client recognises a body)."""
        return bytes(await self._queue.get())

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while True:
            if self._queue.empty() and self.stall_timeout is not None:
                self.stall_timeout.suspend()
            piece = await self._queue.get()
            if self.stall_timeout is not None:
                self.stall_timeout.renew()
            if not piece:
                return
            yield piece
