"""The bytes that each process of a gateway has promised to its uploads, seen by all.

The rule: a process writes its own cell only, under its own lock; reading needs none. The memory is
shared with what is forked later and holds nothing that a crash would have to save.
"""

from __future__ import annotations

import mmap


class ReservationTable:
    """One cell for each of `count` processes, in bytes."""

    def __init__(self, count: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * count)).cast("q")

    def __getitem__(self, slot: int) -> int:
        return self._cells[slot]

    def __setitem__(self, slot: int, amount: int) -> None:
        self._cells[slot] = amount

    def total(self) -> int:
        """Return what all processes together have promised. May be a moment old."""
        return sum(self._cells)
