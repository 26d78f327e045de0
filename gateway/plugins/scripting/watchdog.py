"""Names the script that blocks its lane.

One rule: it looks from outside, from a thread that is not blocked, and costs nothing while no call
is in flight.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from gateway.plugins.scripting.trace import frame_of, outermost_and_innermost, place_of_frame

TICK: Final = 0.05
"""Seconds between two looks."""

STAGES: Final = (0.1, 1.0, 10.0)
"""A block is reported when it has lasted this many seconds."""

log = logging.getLogger("gateway.lane")


class Watchdog:
    """Watches one lane thread: call `look()` every `TICK` seconds from another thread."""

    def __init__(self, lane: str, loop: asyncio.AbstractEventLoop) -> None:
        self._lane = lane
        self._loop = loop
        self._asked: float | None = None
        self._reported = 0
        self._suspect: int | None = None

    def look(self, thread_id: int | None) -> None:
        """Ask the lane's loop for a sign of life; report the script that keeps it from giving one."""
        if self._asked is None:
            self._asked, self._reported, self._suspect = time.monotonic(), 0, None
            self._loop.call_soon_threadsafe(self._alive)
            return
        frames = outermost_and_innermost(frame_of(thread_id))
        # The same call of the same script at two looks: not many short ones that share a turn.
        suspect = id(frames[0]) if frames else None
        blocked = time.monotonic() - self._asked
        if frames and suspect == self._suspect:
            self._report(blocked, place_of_frame(frames[1]))
        self._suspect = suspect

    def _alive(self) -> None:
        self._asked = None

    def _report(self, seconds: float, place: str) -> None:
        if self._reported >= len(STAGES) or seconds < STAGES[self._reported]:
            return
        while self._reported < len(STAGES) and seconds >= STAGES[self._reported]:
            self._reported += 1
        log.warning(
            "%s blocks its lane: everything else there waits. Await, or use asyncio.to_thread()",
            place,
            extra={"facts": {"lane": self._lane, "place": place, "blocked_ms": round(seconds * 1000)}},
        )
