"""Several processes give names to files; one that removes a file must be alone.

Between a look at a file and its removal another process could put a newer file there. So names are
given inside `passing()`, by any number of processes at once, and files are removed inside
`alone()`. Who wants to be alone closes the turnstile first: a busy gateway does not starve it. A
process that was stopped in the gate holds the others up for a while only. Blocking; one thread of
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

PATIENCE_SECONDS: Final = 15.0
"""How long a process may stand in the gate: what is done there takes milliseconds."""

_PAUSE_SECONDS: Final = 0.002


class RenameLock:
    """Two flocks in the state folder, which end with the process that holds them.

    Both ways raise `Refusal("process_unavailable")` when another process keeps us out for
    `patience` seconds.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._turnstile = _opened(folder / "turnstile")
        self._gate = _opened(folder / "gate")

    def close(self) -> None:
        """Close both files."""
        os.close(self._gate)
        os.close(self._turnstile)

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Keep those out who must be alone; does not keep others out who pass."""
        with self._held(self._turnstile, fcntl.LOCK_SH):
            pass
        with self._held(self._gate, fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everybody else out."""
        with self._held(self._turnstile, fcntl.LOCK_EX), self._held(self._gate, fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _held(self, fd: int, how: int) -> Iterator[None]:
        _take(fd, how, time.monotonic() + self._patience)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(fd: int, how: int, until: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise Refusal(
                    "process_unavailable", "another process of this gateway has stopped; try again later"
                ) from None
        time.sleep(_PAUSE_SECONDS)
