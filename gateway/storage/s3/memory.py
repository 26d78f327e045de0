"""The memory that the buffered parts of all uploads of a process may take, and whose turn it is.

Each client gets a fair share (`limits.shares`), and memory that is given back goes to the clients in
turn (`limits.turns`): a client that trickles delays its own uploads only. On one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, NamedTuple

from gateway.errors import Refusal
from gateway.limits import RETRY_AFTER_SECONDS, ClientTurns, fits

_MIB: Final = 1 << 20


class _Waiting(NamedTuple):
    """Bytes that an upload waits for."""

    size: int
    turn: asyncio.Future[None]


class MemoryBudget:
    """`total` bytes for the buffered parts of all uploads of a process.

    A part that can be streamed never waits. Bodies of unknown length wait, and half is kept for them.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.left = total
        self._kept = total // 2
        self._held: Counter[str] = Counter()
        self._turns: ClientTurns[_Waiting] = ClientTurns()

    def try_reserve(self, client: str, size: int) -> bool:
        """Reserve `size` bytes, if that leaves the half for bodies of unknown length."""
        if not fits(self._held[client], size, self.left - self._kept):
            return False
        self._take(client, size)
        return True

    async def reserve(self, client: str, size: int, max_wait: float) -> None:
        """Wait up to `max_wait` seconds for `size` bytes.

        Raises `Refusal`: `too_many_requests` where the client holds its share, else `overloaded`.
        """
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        self._turns.add(client, waiting)
        self._serve()
        try:
            async with asyncio.timeout(max_wait):
                await asyncio.shield(waiting.turn)
        except BaseException as error:
            if waiting.turn.done():
                self.release(client, size)
            else:
                self._turns.remove(client, waiting)
                self._serve()  # what waited behind it may need less
            if isinstance(error, TimeoutError):
                raise self._refusal(client) from None
            raise

    def release(self, client: str, size: int) -> None:
        """Give bytes of a client back."""
        self.left += size
        self._held[client] -= size
        if not self._held[client]:
            del self._held[client]
        self._serve()

    def _take(self, client: str, size: int) -> None:
        self._held[client] += size
        self.left -= size

    def _serve(self) -> None:
        """Give what is left to those who wait and whose share allows it, one client after the other."""
        while (served := self._turns.take(self._may_go)) is not None:
            client, waiting = served
            self._take(client, waiting.size)
            waiting.turn.set_result(None)

    def _may_go(self, client: str, waiting: _Waiting) -> bool:
        return fits(self._held[client], waiting.size, self.left)

    def _refusal(self, client: str) -> Refusal:
        advice = "say Content-Length, or try again when some of them have ended"
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        if held := self._held[client]:
            return Refusal(
                "too_many_requests",
                f"uploads of this client hold {held // _MIB} of the {self.total // _MIB} MiB of memory"
                f" for uploads into the bucket: {advice}",
                headers,
            )
        return Refusal("overloaded", f"too many uploads of unknown length: {advice}", headers)
