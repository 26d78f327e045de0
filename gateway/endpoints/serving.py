"""The requests that are being served: a stop waits for them."""

from __future__ import annotations

import asyncio
import contextlib


class ServingCount:
    """Counts requests of the network, on both paths. On the server's loop."""

    def __init__(self) -> None:
        self.count = 0
        self._idle: asyncio.Event | None = None

    def begin(self) -> None:
        """Count a request in."""
        self.count += 1

    def end(self) -> None:
        """Count a request out."""
        self.count -= 1
        if self._idle is not None and not self.count:
            self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Wait at most `seconds` until no request is being served; tell whether none is."""
        self._idle = asyncio.Event()
        if self.count:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
        return not self.count
