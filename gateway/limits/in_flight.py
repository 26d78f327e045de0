"""How many requests are in flight at the same time, over all processes of a gateway.

Each process has a row of counts in memory that all share, and writes no other one. When a process ends,
its row is cleared: its requests have ended with it. A count takes 10 us for several processes.
"""

from __future__ import annotations

import mmap
from typing import Final

from gateway.errors import Refusal
from gateway.limits.locks import MemoryLocks
from gateway.limits.shares import RETRY_AFTER_SECONDS, fits

MAX_NAMES: Final = 1024
"""Names of which requests are counted at the same time."""

CLIENT_CELLS: Final = 4096
"""Cells in which the requests of clients are counted; two clients of one cell share it."""

_ROW: Final = MAX_NAMES + CLIENT_CELLS


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

    Forked processes hash alike, so a name has the same cell in all of them.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._names = memoryview(mmap.mmap(-1, 8 * MAX_NAMES)).cast("q")
        self._counts = memoryview(mmap.mmap(-1, 8 * _ROW * processes)).cast("q")
        self._locks = MemoryLocks("in flight") if processes > 1 else None

    def close(self) -> None:
        """Close the locks."""
        if self._locks is not None:
            self._locks.close()

    def clear(self, slot: int) -> None:
        """Forget the requests of a process that has ended."""
        for cell in range(slot * _ROW, (slot + 1) * _ROW):
            self._counts[cell] = 0

    def acquire(self, slot: int, name: str, client: str, limit: int) -> InFlightLease:
        """Count a request of a process until the lease is closed.

        A client may have as many as would still be free afterwards, as of a `FairShare`. Raises
        `Refusal`: `overloaded` where nothing is free, `too_many_requests` where the client has its
        share.
        """
        locked = self._locks is not None and self._locks.lock(0)
        try:
            name_cell = self._cell_of(name)
            client_cell = MAX_NAMES + hash((name, client)) % CLIENT_CELLS
            free, held = limit - self._sum(name_cell), self._sum(client_cell)
            if not fits(held, 1, free):
                raise _refusal(held, free, limit)
            cells = slot * _ROW + name_cell, slot * _ROW + client_cell
            for cell in cells:
                self._counts[cell] += 1
            return InFlightLease(self._counts, cells)
        finally:
            if self._locks is not None and locked:
                self._locks.unlock(0)

    def _sum(self, cell: int) -> int:
        return self._counts[cell] if self._processes == 1 else sum(self._counts[cell::_ROW])

    def _cell_of(self, name: str) -> int:
        """Return the cell of a name: the first from its hash on that has it, or that nothing uses."""
        key, unused = hash(name) or 1, None
        for step in range(MAX_NAMES):
            cell = (key + step) % MAX_NAMES
            if self._names[cell] == key:
                return cell
            if unused is None and not self._sum(cell):
                unused = cell
            if not self._names[cell]:
                break
        if unused is None:
            return key % MAX_NAMES  # shared with another name
        self._names[unused] = key
        return unused


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
