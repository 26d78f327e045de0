"""S3 room: what all uploads of a process on their way into the bucket may hold in memory.

One rule: nobody waits for anybody who does not wait himself: who is refused sends as bytes come,
and only bodies of unknown length, which cannot, queue for room. On one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from gateway.errors import Refusal


class MemoryBudget:
    """`total` bytes, given out in pieces of what one part needs."""

    def __init__(self, total: int) -> None:
        self.left = total
        self._kept = total // 2
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_reserve(self, size: int) -> bool:
        """Take `size` bytes if nobody waits for some; half of all is kept for who cannot stream."""
        return self._took(size, self._kept)

    def _took(self, size: int, kept: int = 0) -> bool:
        if self._queue or size > self.left - kept:
            return False
        self.left -= size
        return True

    async def reserve(self, size: int, max_wait: float) -> None:
        """Wait up to `max_wait` seconds for `size` bytes. Raises `Refusal("overloaded")`."""
        if self._took(size):
            return
        turn = asyncio.get_running_loop().create_future()
        place = size, turn
        self._queue.append(place)
        try:
            async with asyncio.timeout(max_wait):
                await asyncio.shield(turn)
        except BaseException as fault:
            if turn.done():
                self.release(size)
            else:
                with contextlib.suppress(ValueError):
                    self._queue.remove(place)
                self._serve()
            if isinstance(fault, TimeoutError):
                raise Refusal(
                    "overloaded",
                    "too many uploads of unknown length: say Content-Length, or try later",
                ) from None
            raise

    def release(self, size: int) -> None:
        """Give bytes back."""
        self.left += size
        self._serve()

    def _serve(self) -> None:
        while self._queue and self._queue[0][0] <= self.left:
            size, turn = self._queue.popleft()
            self.left -= size
            turn.set_result(None)
