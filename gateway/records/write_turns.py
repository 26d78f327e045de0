"""Lets several processes take turns on one SQLite file.

A connection that finds the file busy holds a shared lock on `records.turns` and tries again every
millisecond; a writer pauses between two transactions while such a lock is held. SQLite's own waiting
sleeps longer each time, and starves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

RETRY_TIMEOUT: Final = 10.0
"""Seconds that a busy file is tried again."""

RETRY_INTERVAL: Final = 0.001
YIELD_DELAY: Final = 0.003
"""Seconds that a writer pauses: long enough for a retry to fall into it."""


class WriteTurns:
    """The turns of one connection."""

    def __init__(self, database: Path) -> None:
        path = database.with_suffix(".turns")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def retry_busy(self, operation: Callable[[], T]) -> T:
        """Return the result of `operation`, tried again while the file is busy, up to
        `RETRY_TIMEOUT`."""
        started = time.monotonic()
        try:
            while True:
                try:
                    return operation()
                except sqlite3.OperationalError as error:
                    if not _is_busy(error) or time.monotonic() - started > RETRY_TIMEOUT:
                        raise
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                time.sleep(RETRY_INTERVAL)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def yield_turn(self) -> None:
        """Let waiting connections in, before the next transaction."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(YIELD_DELAY)
        else:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file of the locks."""
        os.close(self._fd)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Return whether it is SQLITE_BUSY, in any of its extended forms."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
