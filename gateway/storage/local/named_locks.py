"""Locks by name between the processes of one gateway: a byte of one file each ("record locks").

They go with the process, however it ends, and leave no files. Within one process they exclude nothing.
The file must be opened here only: closing any descriptor of it frees all of them. Source: fcntl(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
from pathlib import Path
from typing import Final

_OWNER_BYTES: Final = 32


class NamedLocks:
    """Locks on the file `path`, which is made on first use. Blocking, briefly."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._owner = ""
        self._opening = threading.Lock()

    def try_acquire(self, name: str) -> bool:
        """Take the lock of a name; False where another process has it. Raises `OSError`."""
        try:
            fcntl.lockf(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _position(name))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, name: str) -> None:
        """Give the lock of a name back."""
        with contextlib.suppress(OSError):
            fcntl.lockf(self._open(), fcntl.LOCK_UN, 1, _position(name))

    def owner(self) -> str:
        """Return a random name that all who share the file have in common. Raises `OSError`."""
        if not self._owner:
            fd = self._open()
            fcntl.lockf(fd, fcntl.LOCK_EX, _OWNER_BYTES, 0)
            try:
                if os.fstat(fd).st_size < _OWNER_BYTES:
                    os.pwrite(fd, secrets.token_hex(_OWNER_BYTES // 2).encode(), 0)
                self._owner = os.pread(fd, _OWNER_BYTES, 0).decode("ascii", "replace")
            finally:
                fcntl.lockf(fd, fcntl.LOCK_UN, _OWNER_BYTES, 0)
        return self._owner

    def close(self) -> None:
        """Free all locks of this process."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        with self._opening:
            if self._fd < 0:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            return self._fd


def _position(name: str) -> int:
    """Return the byte that stands for a name: two names share one in 2**55 cases."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return _OWNER_BYTES + (number >> 1)
