"""Returns deliveries to the queue that have not run, or not to their end: no attempt is used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Final

from gateway.domain.model import Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events.handler_consumer import EngineBackoff
from gateway.events.protocols import Queue
from gateway.telemetry.logs import event

RETURN_TIMEOUT: Final = 2.0
"""Seconds that a reload or the end waits for what is being returned."""

log = logging.getLogger("gateway.runner")


class QueueReturns:
    """Returns deliveries, again and again while the engine is unavailable, unless `stopping` is set."""

    def __init__(self, queue: Queue, backoff: EngineBackoff) -> None:
        self.stopping = False
        self._queue = queue
        self._backoff = backoff
        self._tasks: set[asyncio.Task[None]] = set()

    async def requeue(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Return deliveries, due in `delay` seconds."""
        count = len(deliveries)
        returned = "%d unfinished deliveries go back to the queue"
        log.info(returned, count, extra=event("delivery.returned", count=count, delay=delay))
        while True:
            try:
                await self._queue.requeue(deliveries, delay)
            except EventEngineUnavailable as error:
                if self.stopping:
                    return  # the next start makes them ready
                await self._backoff.wait(error)
            else:
                return

    def requeue_soon(self, deliveries: Sequence[Delivery]) -> None:
        """Return deliveries in the background."""
        self.run(self.requeue(deliveries))

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Return deliveries with `work`, in the background."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Wait until all that is being returned is in the queue, up to `RETURN_TIMEOUT` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RETURN_TIMEOUT)
