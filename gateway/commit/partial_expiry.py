"""Which partial uploads are removed: expired ones, those that no request can reach, and old idle ones.

Idle ones go where the disk is full, the oldest first. A gateway that is killed between creating an
upload and giving its identity leaves one that no request can reach.

A wall clock may jump, and a machine may start with its clock ahead. So what is expired by it is removed
only if an earlier sweep has found it expired too, some time before by a clock that is never set; and
what has had no byte for its whole life by that clock is removed whatever the wall clock says.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.commit.disk import DiskSpace
from gateway.domain.partial import PARTIAL_TTL, PartialStatus
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.partial_opening import remove_idle

CONFIRM_INTERVAL: Final = 1800.0
"""Seconds between two sweeps that find an upload expired, before it is removed."""

MIN_IDLE: Final = 600.0
"""Seconds without a byte after which an upload may be removed where the disk is full."""

MAX_CANDIDATES: Final = 100
"""The oldest idle ones that one sweep removes where the disk is full."""


@dataclass(slots=True, frozen=True)
class _Seen:
    """An upload as sweeps found it: its latest byte, and since when, by the steady clock.

    `expired_since` is when a sweep first found it expired, also by the steady clock.
    """

    latest: float
    since: float
    expired_since: float | None
    is_due: bool


class PartialExpiry:
    """What earlier sweeps found. One sweep at a time.

    `see` and `end` belong to the sweep; `remove_next` blocks.
    """

    def __init__(
        self,
        folder: PartialDirectory,
        space: DiskSpace,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._space = space
        self._steady = steady
        self._seen: dict[str, _Seen] = {}
        self._current: dict[str, _Seen] = {}
        self._due: deque[tuple[float, str]] = deque()
        self._idle: deque[tuple[float, str]] = deque()

    def see(
        self, upload_id: str, latest: float, *, is_expired: bool, is_unreachable: bool = False
    ) -> None:
        """Take note of an upload, the Unix time of its latest byte, and what the wall clock says.

        One that is unreachable is removed at once, unless it is open: a request is creating it.
        """
        steady = self._steady()
        before = self._seen.get(upload_id)
        since, expired_since, is_due = steady, None, is_unreachable
        if before is not None and before.latest == latest:
            since = before.since
            is_due = is_due or steady - since >= PARTIAL_TTL
        if is_expired:
            expired_since = steady
            if before is not None and before.expired_since is not None:
                expired_since = before.expired_since
                is_due = is_due or steady - expired_since >= CONFIRM_INTERVAL
        self._current[upload_id] = _Seen(latest, since, expired_since, is_due)

    def end(self) -> None:
        """Decide, once all have been seen, what is to be removed."""
        steady = self._steady()
        self._seen, self._current = self._current, {}
        self._due = deque((seen.latest, key) for key, seen in self._seen.items() if seen.is_due)
        idle = ((s.latest, key) for key, s in self._seen.items() if steady - s.since >= MIN_IDLE)
        self._idle = deque(heapq.nsmallest(MAX_CANDIDATES, idle))

    def remove_next(self) -> PartialStatus | None:
        """Remove the next one that is not open; return what it was, None at the end. Blocking."""
        while self._due or self._idle:
            if self._due:
                latest, upload_id = self._due.popleft()
            elif not self._space.accepts_uploads():
                latest, upload_id = self._idle.popleft()
            else:
                return None
            with contextlib.suppress(OSError):
                if (removed := remove_idle(self._folder, upload_id, latest)) is not None:
                    return removed
        return None
