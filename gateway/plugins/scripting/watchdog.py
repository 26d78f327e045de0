"""Names the script that blocks its executor.

It probes from another thread, which is not blocked, and costs nothing while no call is in flight.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from gateway.plugins.scripting.trace import frame_of, outermost_and_innermost, place_of_frame
from gateway.telemetry.logs import event

PROBE_INTERVAL: Final = 0.05
"""Seconds between two probes."""

REPORT_DELAYS: Final = (0.1, 1.0, 10.0)
"""A block is reported when it has lasted this many seconds."""

log = logging.getLogger("gateway.executor")


class Watchdog:
    """Watches one executor thread: call `probe()` every `PROBE_INTERVAL` seconds from another one."""

    def __init__(self, executor: str, loop: asyncio.AbstractEventLoop) -> None:
        self._executor = executor
        self._loop = loop
        self._probed_at: float | None = None
        self._reports = 0
        self._suspect: int | None = None

    def probe(self, thread_id: int | None) -> None:
        """Send the loop a callback, or report the script that has kept it from running the last one."""
        if self._probed_at is None:
            self._probed_at, self._reports, self._suspect = time.monotonic(), 0, None
            self._loop.call_soon_threadsafe(self._note_alive)
            return
        frames = outermost_and_innermost(frame_of(thread_id))
        # The same call of the same script in two probes: not many short ones of one loop iteration.
        suspect = id(frames[0]) if frames else None
        blocked = time.monotonic() - self._probed_at
        if frames and suspect == self._suspect:
            self._report(blocked, place_of_frame(frames[1]))
        self._suspect = suspect

    def _note_alive(self) -> None:
        self._probed_at = None

    def _report(self, seconds: float, place: str) -> None:
        if self._reports >= len(REPORT_DELAYS) or seconds < REPORT_DELAYS[self._reports]:
            return
        while self._reports < len(REPORT_DELAYS) and seconds >= REPORT_DELAYS[self._reports]:
            self._reports += 1
        log.warning(
            "%s blocks its script executor: all other scripts there wait. Await, or use"
            " asyncio.to_thread()",
            place,
            extra=event(
                "executor.blocked",
                executor=self._executor,
                place=place,
                blocked_ms=round(seconds * 1000),
            ),
        )
