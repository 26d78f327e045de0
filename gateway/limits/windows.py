"""Counts within windows of time, which all processes of a gateway share.

The counters are in memory that forked processes share, in buckets of a fixed number. A bucket is changed
under a lock. A count takes 4 us for several processes, 2 us for one, which needs no lock.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Hashable
from typing import Final

from gateway.limits.locks import MemoryLocks

MAX_COUNTERS: Final = 100_000
"""Counters in all, 24 bytes each. In a full bucket a new one takes the place of the next to end."""

_WAYS: Final = 8
"""Counters in a bucket."""

_CELLS: Final = 3 * _WAYS
"""A bucket has the names of its counters, then their counts, then the ends of their windows."""


class FixedWindowCounters:
    """Counts by key, each within a window of seconds that begins with its first count.

    Of `processes` that are forked after this, each counts on its event loop only. `clock` returns
    nanoseconds and is the same for all.
    """

    def __init__(
        self,
        processes: int = 1,
        max_counters: int = MAX_COUNTERS,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._buckets = max(max_counters // _WAYS, 1)
        self._cells = memoryview(mmap.mmap(-1, 8 * _CELLS * self._buckets)).cast("q")
        self._clock = clock
        self._locks = MemoryLocks("counters") if processes > 1 else None

    def close(self) -> None:
        """Close the locks."""
        if self._locks is not None:
            self._locks.close()

    def increment(self, key: Hashable, seconds: float) -> tuple[int, float]:
        """Count once; return the count in the window of `seconds`, and the seconds left of it."""
        name = hash(key) or 1  # forked processes hash alike; 0 marks a free counter
        bucket = name % self._buckets
        if self._locks is None or not self._locks.lock(bucket):
            return self._count(name, bucket * _CELLS, seconds)
        try:
            return self._count(name, bucket * _CELLS, seconds)
        finally:
            self._locks.unlock(bucket)

    def read(self, key: Hashable) -> tuple[int, float]:
        """Return what `increment` has returned last for a key; nothing is counted."""
        name = hash(key) or 1
        start = name % self._buckets * _CELLS
        names = self._cells[start : start + _WAYS].tolist()
        if name not in names:
            return 0, 0.0
        at, now = start + names.index(name), self._clock()
        count, end = self._cells[at + _WAYS], self._cells[at + 2 * _WAYS]
        return (count, (end - now) / 1e9) if end > now else (0, 0.0)

    def _count(self, name: int, start: int, seconds: float) -> tuple[int, float]:
        cells, now = self._cells, self._clock()
        names = cells[start : start + _WAYS].tolist()
        if name in names:
            at = start + names.index(name)
            count, end = cells[at + _WAYS], cells[at + 2 * _WAYS]
        else:
            ends = cells[start + 2 * _WAYS : start + 3 * _WAYS].tolist()
            at, count, end = start + ends.index(min(ends)), 0, 0
        if end <= now:
            count, end = 0, now + int(seconds * 1e9)
            # A process that is killed in between leaves a counter that begins anew.
            cells[at] = 0
            cells[at + 2 * _WAYS] = end
            cells[at + _WAYS] = 0
            cells[at] = name
        cells[at + _WAYS] = count + 1
        return count + 1, (end - now) / 1e9
