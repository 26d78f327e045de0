"""Locks of places in memory that processes share.

They are locks of the kernel, POSIX record locks, which end with the process that holds them.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

LOCK_TIMEOUT: Final = 0.02
"""Seconds to wait for a lock. It is held for microseconds, unless a process is stopped just then."""

UNLOCKED_TIME: Final = 1.0
"""Seconds after such a wait without another: counts may get lost, but the event loop runs on."""


class MemoryLocks:
    """Locks by number, for processes that are forked after this, each on its event loop only."""

    def __init__(self, name: str) -> None:
        self._file = os.memfd_create(name)
        self._unlocked_until = 0.0

    def close(self) -> None:
        """Close the file whose bytes are locked."""
        os.close(self._file)

    def lock(self, number: int) -> bool:
        """Lock, unless another process keeps it for too long; tell whether it is locked now."""
        deadline = None
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
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

    def unlock(self, number: int) -> None:
        """Unlock."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
