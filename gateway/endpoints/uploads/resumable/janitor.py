"""Removes partial uploads that have expired, or that a full disk has no room for, and counts the rest.

One process of a gateway does it for all. On the server's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from gateway.commit.partials import PartialStore
from gateway.endpoints.uploads.resumable.completion import PartialCompletion
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.uploads")

SWEEP_INTERVAL: Final = 600.0
"""Seconds between two sweeps. The store removes what two of them have found expired."""

COUNT_INTERVAL: Final = 60.0
"""Seconds between two counts for the metrics: 10,000 partial uploads take a thread a second.

In a bucket each takes two requests: there they are counted with each sweep only."""


class PartialJanitor:
    """Sweeps at the start, and then every ten minutes, until it is cancelled.

    `count_interval` is in seconds.
    """

    def __init__(
        self,
        store: PartialStore,
        completion: PartialCompletion,
        count_interval: float = COUNT_INTERVAL,
    ) -> None:
        self._store = store
        self._completion = completion
        self._count_interval = count_interval
        self._swept: float | None = None

    async def run(self) -> None:
        """Sweep and count, again and again. An error is logged: the next time is soon."""
        while True:
            try:
                now = time.monotonic()
                if self._swept is None or now - self._swept >= SWEEP_INTERVAL:
                    self._swept = now
                    await self.sweep(time.time())
                await self.count()
            except Exception:
                log.exception("partial uploads were not swept", extra=event("partial.unswept"))
            await asyncio.sleep(self._count_interval)

    async def sweep(self, now: float) -> None:
        """Remove what is due at the Unix time `now`."""
        async for status in self._store.remove_expired(now):
            self._completion.ended(status.head.upload, "expired", status.offset, "expired")

    async def count(self) -> None:
        """Count what is kept, and its bytes."""
        uploads = size = 0
        async for status in self._store.list():
            uploads += 1
            size += status.offset
        self._completion.outcomes.metrics.partials.kept = uploads, size
