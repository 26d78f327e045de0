"""Disk space is promised before the bytes come, so that what is accepted can finish.

Counts the bytes still to come of every admitted upload, in all processes of the gateway, against
the free space and the watermark. Thread-safe; `admit` and `check` ask the file system and so belong
into a thread.
"""

from __future__ import annotations

import os
import threading

from gateway.commit.reservation_table import ReservationTable
from gateway.errors import Refusal


class DiskSpace:
    """Space of the file system under `folder_fd`; `min_free` bytes of it are never touched.

    `promises` is shared with the other processes, ours stand at `slot`.
    """

    def __init__(
        self, folder_fd: int, min_free: int, promises: ReservationTable | None = None, slot: int = 0
    ) -> None:
        self._fd = folder_fd
        self._min_free = min_free
        self._promises = promises or ReservationTable(slot + 1)
        self._slot = slot
        self._lock = threading.Lock()

    @property
    def promised(self) -> int:
        """Bytes that uploads admitted by this process may still write."""
        return self._promises[self._slot]

    def free(self) -> int:
        """Return the bytes an unprivileged process may write, as the file system tells."""
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def above_watermark(self) -> bool:
        """Tell whether new uploads can be taken at all."""
        return self.free() > self._min_free

    def admit(self, size: int | None) -> Reservation:
        """Promise `size` bytes (None: not declared). Raises `Refusal("no_space")`."""
        wanted = size or 0
        free = self.free()
        with self._lock:
            room = free - self._promises.total() - self._min_free
            if room < max(wanted, 1):
                raise Refusal("no_space", _message(wanted, room))
            self._promises[self._slot] += wanted
        return Reservation(self, wanted)

    def check(self, wanted: int) -> None:
        """See that `wanted` more bytes, promised to nobody, still fit. Raises `Refusal`."""
        room = self.free() - self._promises.total() - self._min_free
        if room < wanted:
            raise Refusal("no_space", _message(wanted, room))

    def _give_back(self, amount: int) -> None:
        with self._lock:
            self._promises[self._slot] -= amount


class Reservation:
    """One upload's part of the promise."""

    def __init__(self, reserve: DiskSpace, left: int) -> None:
        self._reserve = reserve
        self._left = left

    def use(self, amount: int) -> None:
        """Turn `amount` promised bytes into written ones; beyond the promise, check the disk.

        To be called just before the bytes are written; in a thread where the size was not
        declared, for then the file system is asked.
        """
        covered = min(amount, self._left)
        if amount > covered:
            self._reserve.check(amount - covered)
        self._left -= covered
        self._reserve._give_back(covered)

    def close(self) -> None:
        """Give back what was not used. Calling it again does nothing."""
        left, self._left = self._left, 0
        self._reserve._give_back(left)


def _message(wanted: int, room: int) -> str:
    return f"no space: {wanted} more bytes are needed, {max(room, 0)} can be taken"
