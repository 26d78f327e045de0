"""Looks for objects that were to come, and whose notification may have been lost.

One rule: whoever takes a look moves the next one first, so that of many processes and machines one
looks; a look that fails is made good by the next. What can no longer come is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.endpoints.notifications.presigned_uploads import PresignedUpload, PresignedUploads
from gateway.endpoints.notifications.processor import NotificationProcessor
from gateway.errors import EventEngineUnavailable, RecordsUnavailable, Refusal
from gateway.storage.protocols import Storage
from gateway.telemetry.metrics import LoopCounter

PAGE: Final = 100
LONGEST_PAUSE: Final = 30.0
"""Seconds between two looks at what is due."""

log = logging.getLogger("gateway.notifications")


class PresignedUploadReconciler:
    """Looks for what is due, often beside the `after` seconds of a first look. On the server's loop."""

    def __init__(
        self,
        initiated: PresignedUploads,
        arrivals: NotificationProcessor,
        shelf: Storage,
        ends: LoopCounter,
        after: float,
    ) -> None:
        self._initiated = initiated
        self._arrivals = arrivals
        self._shelf = shelf
        self._ends = ends
        self._every = min(after / 4, LONGEST_PAUSE)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                while await self.look() == PAGE:
                    pass
            except (EventEngineUnavailable, RecordsUnavailable, Refusal) as fault:
                log.warning("objects that were to come are looked for later: %s", fault)
            except Exception:
                log.exception("looking for objects that were to come failed")

    async def look(self) -> int:
        """Look for all that is due, a page of it; return how many those were.

        Raises `RecordsUnavailable`, `EventEngineUnavailable`, `Refusal` where something cannot
        be reached.
        """
        page = await self._initiated.due(PAGE)
        for initiation in page:
            now = self._initiated.now()
            taken = initiation.later(now)
            if await self._initiated.change(initiation, taken):
                await self._look_for(taken, last=now >= taken.until)
        return len(page)

    async def _look_for(self, initiation: PresignedUpload, *, last: bool) -> None:
        try:
            stat = await self._shelf.stat(initiation.path)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
        else:
            if await self._arrivals.find(initiation, stat):
                log.warning(
                    "no notification came of %s: handlers were told without one", initiation.path
                )
                last = last and initiation.told is not None
        if last:
            await self._initiated.forget(initiation)
            if initiation.told is None:
                self._ends.add("expired")
