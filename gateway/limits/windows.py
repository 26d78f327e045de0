"""Counts within windows of time, which all processes of a gateway share.

The counters are in memory that forked processes share, in buckets of a fixed number. A bucket is changed
under a lock of the kernel, a POSIX record lock, which ends with the process that holds it. A count takes
4 us for several processes, 2 us for one, which needs no lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable, Hashable
from typing import Final

MAX_COUNTERS: Final = 100_000
"""Counters in all, 24 bytes each. In a full bucket a new one takes the place of the next to end."""

LOCK_TIMEOUT: Final = 0.02
"""Seconds to wait for a bucket. It is locked for microseconds, unless a process is stopped just then."""

UNLOCKED_TIME: Final = 1.0
"""Seconds after such a wait without another: counts may get lost, but the event loop runs on."""

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
        self._locks = os.memfd_create("counters") if processes > 1 else None
        self._unlocked_until = 0.0

    def close(self) -> None:
        """Close the file whose bytes are locked."""
        if self._locks is not None:
            os.close(self._locks)

    def increment(self, key: Hashable, seconds: float) -> tuple[int, float]:
        """Count once; return the count in the window of `seconds`, and the seconds left of it."""
        name = hash(key) or 1  # forked processes hash alike; 0 marks a free counter
        bucket = name % self._buckets
        if self._locks is None or not self._lock(self._locks, bucket):
            return self._count(name, bucket * _CELLS, seconds)
        try:
            return self._count(name, bucket * _CELLS, seconds)
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, bucket)

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

    def _lock(self, locks: int, bucket: int) -> bool:
        """Tell whether the bucket is locked now."""
        deadline = None
        while True:
            try:
                fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, bucket)
            except BlockingIOError:
                now = time.monotonic()
                deadline = deadline or now + LOCK_TIMEOUT
            else:
                return True
            if now < self._unlocked_until:
                return False
            if now >= deadline:
                self._unlocked_until = now + UNLOCKED_TIME
                return False
            os.sched_yield()
