"""Commit room: several processes give names to files; one that removes a file must be alone.

Between a look at a file and its removal another process could put a newer file there. So names are
given inside `passing()`, by any number of processes at once, and files are removed inside
`alone()`. Who wants to be alone closes the turnstile first: a busy gateway does not starve it.
Blocking; one thread of each process. May import the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Gate:
    """Two flocks in the state folder, which end with the process that holds them."""

    def __init__(self, folder: Path) -> None:
        self._turnstile = _opened(folder / "turnstile")
        self._gate = _opened(folder / "gate")

    def close(self) -> None:
        """Close both files."""
        os.close(self._gate)
        os.close(self._turnstile)

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Keep those out who must be alone; does not keep others out who pass."""
        with _held(self._turnstile, fcntl.LOCK_SH):
            pass
        with _held(self._gate, fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everybody else out."""
        with _held(self._turnstile, fcntl.LOCK_EX), _held(self._gate, fcntl.LOCK_EX):
            yield


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _held(fd: int, how: int) -> Iterator[None]:
    fcntl.flock(fd, how)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
