"""How many requests are in flight at the same time, over all processes of a gateway.

Each process has a row of counts in memory that all share, and writes no other one. When a process ends,
its row is cleared: its requests have ended with it. A count takes 20 us for several processes, 7 us for
one.
"""

from __future__ import annotations

import mmap
from typing import Final

from gateway.errors import Refusal
from gateway.limits.locks import MemoryLocks
from gateway.limits.shares import RETRY_AFTER_SECONDS, fits

MAX_KEYS: Final = 32_768
"""Names, and clients of names, of which requests are counted at the same time: 8 bytes and more each."""

_WAYS: Final = 8
"""Cells in a bucket. Where all are in use, the first one is shared, and so counts too much."""


class InFlightLease:
    """A request that is counted."""

    __slots__ = ("_cells", "_counts")

    def __init__(self, counts: memoryview[int], cells: tuple[int, ...]) -> None:
        self._counts = counts
        self._cells = cells

    def close(self) -> None:
        """Count it no more. A second call does nothing."""
        cells, self._cells = self._cells, ()
        for cell in cells:
            self._counts[cell] -= 1


class InFlightTable:
    """Counts of requests by name and by client, of `processes` that are forked after this.

    Forked processes hash alike, so a key has the same bucket in all of them. A cell whose counts are 0
    is free for another key.
    """

    def __init__(self, processes: int = 1, max_keys: int = MAX_KEYS) -> None:
        self._buckets = max(max_keys // _WAYS, 1)
        self._row = _WAYS * self._buckets
        self._keys = memoryview(mmap.mmap(-1, 8 * self._row)).cast("q")
        self._counts = memoryview(mmap.mmap(-1, 8 * self._row * processes)).cast("q")
        self._locks = MemoryLocks("in flight") if processes > 1 else None

    def close(self) -> None:
        """Close the locks."""
        if self._locks is not None:
            self._locks.close()

    def clear(self, slot: int) -> None:
        """Forget the requests of a process that has ended."""
        start = slot * self._row
        self._counts[start : start + self._row] = memoryview(bytes(8 * self._row)).cast("q")

    def acquire(self, slot: int, name: str, client: str, limit: int) -> InFlightLease:
        """Count a request of a process until the lease is closed.

        A client may have as many as would still be free afterwards, as of a `FairShare`. Raises
        `Refusal`: `overloaded` where nothing is free, `too_many_requests` where the client has its
        share.
        """
        locked = self._locks is not None and self._locks.lock(0)
        try:
            name_cell = self._cell_of(hash(name))
            client_cell = self._cell_of(hash((name, client)), name_cell)
            free, held = limit - self.count(name_cell), self.count(client_cell)
            if not fits(held, 1, free):
                raise _refusal(held, free, limit)
            cells = slot * self._row + name_cell, slot * self._row + client_cell
            for cell in cells:
                self._counts[cell] += 1
            return InFlightLease(self._counts, cells)
        finally:
            if self._locks is not None and locked:
                self._locks.unlock(0)

    def count(self, cell: int) -> int:
        """Return what all processes have counted in a cell."""
        return sum(self._counts[cell :: self._row])

    def _cell_of(self, key: int, other: int = -1) -> int:
        """Return the cell of a key: one that has it, or a free one of its bucket not `other`."""
        start = key % self._buckets * _WAYS
        keys = self._keys[start : start + _WAYS].tolist()
        if key in keys:
            return start + keys.index(key)
        for cell in range(start, start + _WAYS):
            if cell != other and not self.count(cell):
                self._keys[cell] = key
                return cell
        return start


def _refusal(held: int, free: int, limit: int) -> Refusal:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if free < 1:
        message = f"this path serves all {limit} requests at the same time that it can: try again later"
        return Refusal("overloaded", message, headers)
    message = (
        f"this client has {held} of at most {limit} requests to this path at the same time: "
        "try again when some of them have ended"
    )
    return Refusal("too_many_requests", message, headers)
