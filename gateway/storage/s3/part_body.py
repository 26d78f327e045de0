"""S3 room: the two shapes in which a part's bytes go out: gathered first, or as they come.

One rule: what was gathered can be sent again, what streams cannot. A request that the storage takes
nothing of for a while is given up, however long the client takes. On one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

Piece = bytes | memoryview

SILENCE_SECONDS: Final = 30.0
"""How long the storage may take nothing of a request, or not answer it."""

_PIECE_BYTES: Final = 128 << 10

_AHEAD: Final = 2
"""Pieces of a stream that may wait to be sent; a piece is half a megabyte at the most."""


class StallTimeout:
    """The end of a request that makes no progress, put off while it does."""

    def __init__(self) -> None:
        self._limit = asyncio.timeout(SILENCE_SECONDS)
        self._over = False

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        await self._limit.__aexit__(kind, fault, traceback)

    def renew(self) -> None:
        """The storage takes something: count anew."""
        self._until(asyncio.get_running_loop().time() + SILENCE_SECONDS)

    def suspend(self) -> None:
        """It is not the storage that is waited for."""
        self._until(None)

    def _until(self, when: float | None) -> None:
        # The body is written by a task of the client's, which may end a little later than the request.
        if not self._over and not self._limit.expired():
            self._limit.reschedule(when)


class BufferedPart:
    """A part, or a whole small body, in memory. Can be sent any number of times.

    With `room` it is one block of so many bytes, however small the pieces are that come: thousands of
    pieces would leave holes in the memory of the process.
    """

    def __init__(self, room: int = 0) -> None:
        self.size = 0
        self.patience: StallTimeout | None = None
        self._block = bytearray(room)

    def add(self, piece: Piece) -> None:
        """Keep the next bytes."""
        self._block[self.size : self.size + len(piece)] = piece
        self.size += len(piece)

    def free(self) -> None:
        """Let the bytes go at once: the client's own objects may hold this one for a while."""
        self._block, self.size = bytearray(), 0

    async def read(self) -> bytes:
        """Return all of it (what the client looks for to know that this is a body)."""
        return bytes(self._block[: self.size])

    def seek(self, _place: int) -> None:
        """Begin anew: each iteration does."""

    def tell(self) -> int:
        """Return the place of the next byte, which is the first one."""
        return 0

    async def __aiter__(self) -> AsyncIterator[Piece]:
        whole = memoryview(self._block)
        for start in range(0, self.size, _PIECE_BYTES):
            yield whole[start : min(start + _PIECE_BYTES, self.size)]
            if self.patience is not None:
                self.patience.renew()


class StreamedPart:
    """A part that is sent while it comes, from `add` to the one request that iterates over it."""

    def __init__(self) -> None:
        self.patience: StallTimeout | None = None
        self._queue: asyncio.Queue[Piece] = asyncio.Queue(_AHEAD)

    async def add(self, piece: Piece, request: asyncio.Task[str]) -> None:
        """Hand the next bytes to the request; returns at once where that has ended already."""
        if not self._queue.full():
            self._queue.put_nowait(piece)
            return
        adding = asyncio.ensure_future(self._queue.put(piece))
        try:
            await asyncio.wait({adding, request}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            adding.cancel()

    async def read(self) -> bytes:
        """Return the next bytes (what the client looks for to know that this is a body)."""
        return bytes(await self._queue.get())

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while True:
            if self._queue.empty() and self.patience is not None:
                self.patience.suspend()
            piece = await self._queue.get()
            if self.patience is not None:
                self.patience.renew()
            if not piece:
                return
            yield piece
