"""How many partial uploads a bucket has: in all, and of one client.

The bucket is listed at most once a minute, in the background, and heads are read that this process has
not seen. In between a process counts its own. What other processes and gateways create within a minute
is not counted yet: caps may be exceeded by that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Final

from gateway.domain.partial import MAX_PARTIALS, MAX_PARTIALS_PER_CLIENT
from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.partial_objects import PartialObjects
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

COUNT_INTERVAL: Final = 60.0
"""Seconds between two listings."""


class PartialCounts:
    """Counts the partial uploads of a bucket. On the server's event loop."""

    def __init__(self, store: PartialObjects) -> None:
        self._store = store
        self._clients: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._counted = float("-inf")
        self._counting: asyncio.Task[None] | None = None

    def check(self, client: str) -> None:
        """Raise `Refusal` where a client may not create another one now."""
        self._count_again()
        if len(self._clients) >= MAX_PARTIALS:
            raise Refusal("overloaded", f"{MAX_PARTIALS} unfinished uploads are kept: try again later")
        if self._counts[client] >= MAX_PARTIALS_PER_CLIENT:
            raise Refusal(
                "too_many_requests",
                f"this client has {MAX_PARTIALS_PER_CLIENT} unfinished uploads: finish some",
            )

    def add(self, upload_id: str, client: str) -> None:
        """Count an upload."""
        if upload_id not in self._clients:
            self._clients[upload_id] = client
            self._counts[client] += 1

    def remove(self, upload_id: str) -> None:
        """Count an upload no more."""
        client = self._clients.pop(upload_id, None)
        if client is not None:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]

    async def close(self) -> None:
        """End a listing that is under way."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    def _count_again(self) -> None:
        is_counting = self._counting is not None and not self._counting.done()
        if not is_counting and time.monotonic() - self._counted >= COUNT_INTERVAL:
            self._counted = time.monotonic()
            self._counting = asyncio.create_task(self._count())

    async def _count(self) -> None:
        try:
            own, present = set(self._clients), set()
            async for upload_id, _ in self._store.ids():
                present.add(upload_id)
                if upload_id not in self._clients:
                    head = await self._store.head(upload_id)
                    self.add(upload_id, "" if head is None else head.client)
            for upload_id in own - present:
                self.remove(upload_id)
        except GatewayError as error:
            log.warning(
                "partial uploads could not be counted: %s", error, extra=event("partials.uncounted")
            )
