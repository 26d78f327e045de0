"""The disk as the processes of a gateway share it: space is reserved, and names are given under a lock.

An upload that does not fit is refused before its bytes come, and those that will come soon, of every
admitted upload in all processes, count against the free space and the watermark. No client can reserve
more than its share. Each new file needs an inode too, which a file system can run out of first.

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
from gateway.limits.shares import RETRY_AFTER_SECONDS

LOCK_TIMEOUT: Final = 15.0
"""Seconds to wait for the lock: what is done under it takes milliseconds."""

MAX_RESERVED_BYTES: Final = 1 << 30
"""What is kept free for one upload ahead of what has come: nine seconds of a network of 1 Gbit/s.

The rest of a larger one is not: else one connection that declares all free space, and then sends a
byte now and then, would keep everybody out.
"""

CLIENT_CELLS: Final = 1023
"""Cells in which the reservations of clients are counted."""

_ROW: Final = CLIENT_CELLS + 1
_POLL_INTERVAL: Final = 0.002


class ReservationTable:
    """The bytes that each of `count` processes has reserved, also by client, in memory that they share.

    A process writes only its own row, under its own lock; reading needs none. Forked processes hash
    alike, so that what a client holds is the same for all of them; two clients of one cell share it.
    """

    def __init__(self, count: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * _ROW * count)).cast("q")

    def add(self, slot: int, client: str, amount: int) -> None:
        """Count `amount` more bytes, or fewer if it is negative."""
        self._cells[slot * _ROW] += amount
        self._cells[slot * _ROW + _cell(client)] += amount

    def clear(self, slot: int) -> None:
        """Forget what a process had reserved that has ended."""
        for cell in range(slot * _ROW, (slot + 1) * _ROW):
            self._cells[cell] = 0

    def reserved(self, slot: int) -> int:
        """Return the bytes that one process has reserved."""
        return self._cells[slot * _ROW]

    def held_by(self, client: str) -> int:
        """Return the bytes that all processes have reserved for a client; may be a moment old."""
        return sum(self._cells[_cell(client) :: _ROW])

    def total(self) -> int:
        """Return the bytes that all processes have reserved; may be a moment old."""
        return sum(self._cells[::_ROW])


def _cell(client: str) -> int:
    return 1 + hash(client) % CLIENT_CELLS


class DiskSpace:
    """Space of the file system under `folder_fd`; `min_free` bytes of it are never used.

    `table` is shared with the other processes; this process writes its row `slot`. Thread-safe;
    what raises `Refusal` asks the file system: call it in a thread.
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
        """Bytes that are kept free for uploads which this process has admitted."""
        return self._table.reserved(self._slot)

    def free(self) -> int:
        """Return the bytes that an unprivileged process may write."""
        return _free_bytes(os.fstatvfs(self._fd))

    def size(self) -> int:
        """Return the size of the file system in bytes."""
        status = os.fstatvfs(self._fd)
        return status.f_blocks * status.f_frsize

    def accepts_uploads(self) -> bool:
        """Tell whether new uploads can be accepted at all: whether bytes and inodes are left."""
        status = os.fstatvfs(self._fd)
        return self._available(_free_bytes(status)) > 0 and _has_inodes(status)

    def reserve(self, size: int | None, client: str = "") -> Reservation:
        """Admit a new file of `size` bytes (None: not declared), all of which must fit now.

        What is kept free for it is a part that grows as its bytes come, see `Reservation`.
        Raises `Refusal("no_space")`.
        """
        free, wanted = self._free_for_new_file(), size or 0
        with self._lock:
            if self._available(free) < max(wanted, 1):
                raise self._no_space(free, wanted, client)
            reservation = Reservation(self, client, wanted)
            reservation.left = self._take(free, min(wanted, MAX_RESERVED_BYTES), client)
        return reservation

    def check(self, wanted: int, client: str = "", *, new_file: bool) -> None:
        """Check that `wanted` more bytes, which are not reserved, fit. Raises `Refusal`."""
        free = self._free_for_new_file() if new_file else self.free()
        if self._available(free) < wanted:
            raise self._no_space(free, wanted, client)

    def extend(self, wanted: int, client: str) -> int:
        """Reserve up to `wanted` more bytes; return how many."""
        free = self.free()
        with self._lock:
            return self._take(free, wanted, client)

    def release(self, amount: int, client: str) -> None:
        """Stop keeping bytes free."""
        with self._lock:
            self._table.add(self._slot, client, -amount)

    def _available(self, free: int) -> int:
        return free - self._table.total() - self._min_free

    def _take(self, free: int, wanted: int, client: str) -> int:
        """Reserve what leaves as much available as the client then holds: its fair share, or less."""
        share = (self._available(free) - self._table.held_by(client)) // 2
        amount = max(min(wanted, share), 0)
        self._table.add(self._slot, client, amount)
        return amount

    def _free_for_new_file(self) -> int:
        """Return the free bytes. Raises `Refusal` where no file can be created, whatever its size."""
        status = os.fstatvfs(self._fd)
        if not _has_inodes(status):
            raise Refusal("no_space", "no space: the file system has no inode left for another file")
        return _free_bytes(status)

    def _no_space(self, free: int, wanted: int, client: str) -> Refusal:
        """Say whose limit it is, and not how much is free: that is no stranger's business."""
        message = f"no space for {wanted} more bytes: "
        if wanted > free - self._min_free:
            return Refusal("no_space", f"{message}the disk of the gateway is full, or too small")
        own = wanted <= self._available(free) + self._table.held_by(client)
        whose = "this client's other uploads" if own else "other uploads"
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        message += f"it is kept for {whose}, try again when some of them have ended"
        return Refusal("no_space", message, headers)


class Reservation:
    """The space of one upload: `left` bytes are kept free for it and not written yet.

    They are a window ahead of what has come. A client that declares much and sends little holds little.
    """

    def __init__(self, space: DiskSpace, client: str, declared: int) -> None:
        self.left = 0
        self._space = space
        self._client = client
        self._to_come = declared

    def covers(self, amount: int) -> bool:
        """Tell whether `use` of the last `amount` bytes will not have to ask the file system."""
        return amount <= self.left

    def use(self, amount: int) -> None:
        """Turn `amount` reserved bytes into written ones, just before they are written.

        Bytes beyond the reservation are checked against the file system, which blocks, as does moving
        the window on. Raises `Refusal("no_space")`.
        """
        covered = min(amount, self.left)
        if amount > covered:
            self._space.check(amount - covered, self._client, new_file=False)
        self.left -= covered
        self._to_come = max(self._to_come - amount, 0)
        try:
            if self.left < min(self._to_come, MAX_RESERVED_BYTES // 2):
                # Before the release: what is about to be written is not free.
                wanted = min(self._to_come, MAX_RESERVED_BYTES) - self.left
                self.left += self._space.extend(wanted, self._client)
        finally:
            self._space.release(covered, self._client)

    def close(self) -> None:
        """Release what was not used. A second call does nothing."""
        left, self.left, self._to_come = self.left, 0, 0
        self._space.release(left, self._client)


def _free_bytes(status: os.statvfs_result) -> int:
    return status.f_bavail * status.f_frsize


def _has_inodes(status: os.statvfs_result) -> bool:
    """Tell whether an inode is free; file systems that allocate inodes on demand report no total."""
    return status.f_favail > 0 or status.f_files == 0


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
