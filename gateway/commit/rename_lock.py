"""A readers-writer lock between processes: many publish files at once, one removes a file alone.

Between the check of a file and its removal another process could publish a newer file of that name.
So files are published under `shared()` and removed under `exclusive()`. A process that wants to be
exclusive closes the turnstile first, so that a busy gateway does not starve it. A process that was
stopped while it holds the lock delays the others for a bounded time only. Blocking; one thread of
each process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import Refusal

LOCK_TIMEOUT: Final = 15.0
"""Seconds to wait for the lock: what is done under it takes milliseconds."""

_POLL_INTERVAL: Final = 0.002


class RenameLock:
    """Two flocks in the state folder, which end with the process that holds them.

    Both modes raise `Refusal("process_unavailable")` when another holds the lock for `timeout` seconds.
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
