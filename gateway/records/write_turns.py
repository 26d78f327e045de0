"""How readers and writers of one file let each other in.

One rule: nobody is waited for without end. Who finds the file busy raises a flag (a shared lock on
`records.turns`) and looks again every millisecond; who writes one transaction behind the other
pauses where a flag is up. SQLite's own waiting would sleep ever longer, and starve.
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

BUSY_SECONDS: Final = 10.0
"""How long others are waited for, who read or write just now."""

LOOK: Final = 0.001
PAUSE: Final = 0.003
"""Long enough for a look to fall into it."""


class WriteTurns:
    """One connection's part in it."""

    def __init__(self, database: Path) -> None:
        path = database.with_suffix(".turns")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def retry_busy(self, operation: Callable[[], T]) -> T:
        """Return what `operation` does, tried while the file is busy, for `BUSY_SECONDS` at the most."""
        started = time.monotonic()
        try:
            while True:
                try:
                    return operation()
                except sqlite3.OperationalError as fault:
                    if not _busy(fault) or time.monotonic() - started > BUSY_SECONDS:
                        raise
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                time.sleep(LOOK)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def yield_turn(self) -> None:
        """Let those in who wait, before the next transaction."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE)
        else:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave."""
        os.close(self._fd)


def _busy(fault: sqlite3.OperationalError) -> bool:
    """Tell whether it is SQLITE_BUSY, in any of its extended forms."""
    return fault.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
