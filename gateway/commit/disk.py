"""The disk as the processes of a gateway share it: space is reserved, and names are given under a lock.

Space is reserved before the bytes come, so that an accepted upload can finish: the bytes still to come
of every admitted upload, in all processes, are counted against the free space and the watermark. Each
new file needs an inode too, which a file system can run out of first.

Between the check of a file and its removal another process could publish a newer file of that name. So
files are published under `RenameLock.shared()`, many at once, and removed under `exclusive()`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import Refusal

LOCK_TIMEOUT: Final = 15.0
"""Seconds to wait for the lock: what is done under it takes milliseconds."""

_POLL_INTERVAL: Final = 0.002


class ReservationTable:
    """The bytes that each of `count` processes has reserved, in memory that forked processes share.

    A process writes only its own cell, under its own lock; reading needs none. A crash costs nothing.
    """

    def __init__(self, count: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * count)).cast("q")

    def __getitem__(self, slot: int) -> int:
        return self._cells[slot]

    def __setitem__(self, slot: int, amount: int) -> None:
        self._cells[slot] = amount

    def total(self) -> int:
        """Return the bytes that all processes have reserved; may be a moment old."""
        return sum(self._cells)


class DiskSpace:
    """Space of the file system under `folder_fd`; `min_free` bytes of it are never used.

    `table` is shared with the other processes; this process writes its cell `slot`. Thread-safe;
    `reserve` and `check` ask the file system: call them in a thread.
    """

    def __init__(
        self, folder_fd: int, min_free: int, table: ReservationTable | None = None, slot: int = 0
    ) -> None:
        self._fd = folder_fd
        self._min_free = min_free
        self._table = table or ReservationTable(slot + 1)
        self._slot = slot
        self._lock = threading.Lock()

    @property
    def reserved(self) -> int:
        """Bytes that uploads admitted by this process may still write."""
        return self._table[self._slot]

    def free(self) -> int:
        """Return the bytes that an unprivileged process may write."""
        return _free_bytes(os.fstatvfs(self._fd))

    def accepts_uploads(self) -> bool:
        """Tell whether new uploads can be accepted at all: whether bytes and inodes are left."""
        status = os.fstatvfs(self._fd)
        return _free_bytes(status) > self._min_free and _has_inodes(status)

    def reserve(self, size: int | None) -> Reservation:
        """Reserve `size` bytes (None: not declared) of a new file. Raises `Refusal("no_space")`."""
        wanted = size or 0
        free = self._free_for_new_file()
        with self._lock:
            available = free - self._table.total() - self._min_free
            if available < max(wanted, 1):
                raise _no_space(wanted, available)
            self._table[self._slot] += wanted
        return Reservation(self, wanted)

    def check(self, wanted: int, *, new_file: bool) -> None:
        """Check that `wanted` more bytes, which are not reserved, fit. Raises `Refusal`."""
        free = self._free_for_new_file() if new_file else self.free()
        available = free - self._table.total() - self._min_free
        if available < wanted:
            raise _no_space(wanted, available)

    def _free_for_new_file(self) -> int:
        """Return the free bytes. Raises `Refusal` where no file can be created, whatever its size."""
        status = os.fstatvfs(self._fd)
        if not _has_inodes(status):
            raise Refusal("no_space", "no space: the file system has no inode left for another file")
        return _free_bytes(status)

    def _release(self, amount: int) -> None:
        with self._lock:
            self._table[self._slot] -= amount


class Reservation:
    """The space reserved for one upload; `left` bytes of it are not written yet."""

    def __init__(self, space: DiskSpace, left: int) -> None:
        self._space = space
        self._left = left

    def covers(self, amount: int) -> bool:
        """Tell whether `use` will not have to ask the file system."""
        return amount <= self._left

    def use(self, amount: int) -> None:
        """Turn `amount` reserved bytes into written ones, just before they are written.

        Bytes beyond the reservation are checked against the file system, which blocks.
        """
        covered = min(amount, self._left)
        if amount > covered:
            self._space.check(amount - covered, new_file=False)
        self._left -= covered
        self._space._release(covered)

    def close(self) -> None:
        """Release what was not used. A second call does nothing."""
        left, self._left = self._left, 0
        self._space._release(left)


def _free_bytes(status: os.statvfs_result) -> int:
    return status.f_bavail * status.f_frsize


def _has_inodes(status: os.statvfs_result) -> bool:
    """Tell whether an inode is free; file systems that allocate inodes on demand report no total."""
    return status.f_favail > 0 or status.f_files == 0


def _no_space(wanted: int, available: int) -> Refusal:
    return Refusal(
        "no_space", f"no space: {wanted} more bytes are needed, {max(available, 0)} are available"
    )


class RenameLock:
    """A readers-writer lock between processes: two flocks in the state folder, which end with a process.

    A process that wants to be exclusive closes the turnstile first, so that a busy gateway does not
    starve it. One that was stopped while it holds the lock delays the others for a bounded time only:
    both modes raise `Refusal("process_unavailable")` after `timeout` seconds. Blocking; one thread each.
    """

    def __init__(self, folder: Path, timeout: float = LOCK_TIMEOUT) -> None:
        self._timeout = timeout
        self._turnstile = _open(folder / "turnstile")
        self._lock = _open(folder / "gate")

    def close(self) -> None:
        """Close both files."""
        os.close(self._lock)
        os.close(self._turnstile)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Exclude `exclusive` holders, not other `shared` ones."""
        with self._locked(self._turnstile, fcntl.LOCK_SH):
            pass
        with self._locked(self._lock, fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Exclude every other holder."""
        with self._locked(self._turnstile, fcntl.LOCK_EX), self._locked(self._lock, fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _locked(self, fd: int, mode: int) -> Iterator[None]:
        _acquire(fd, mode, time.monotonic() + self._timeout)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _acquire(fd: int, mode: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Refusal(
                    "process_unavailable",
                    "another process of this gateway does not respond: try again later",
                ) from None
        time.sleep(_POLL_INTERVAL)
