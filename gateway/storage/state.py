"""Storage room: the state folder `DIRECTORY/.gateway`, and whose it is.

    .gateway/            0700
      slots/<n>          the lock of a slot: whoever holds it owns the three below
      incoming/<n>/      bodies on their way
      journal-<n>.db     uploads and deliveries
      owner-<n>.sock     where the owner answers the command line

The flock goes with the process, however it ends. May import `errors`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import ConfigError


class OwnedError(ConfigError):
    """Somebody else holds the slot."""


class State:
    """The places of one slot below `folder`. Creating the object touches nothing."""

    def __init__(self, folder: Path, slot: int = 0) -> None:
        self.folder = folder
        self.slot = slot
        self.journal = folder / f"journal-{slot}.db"
        self.incoming = folder / "incoming" / str(slot)
        self.socket = folder / f"owner-{slot}.sock"
        self._lock_file = folder / "slots" / str(slot)
        self._lock_fd = -1

    def prepare(self) -> None:
        """Create the folders. Raises `ConfigError` where that is not allowed."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.incoming, self._lock_file.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as fault:
            raise ConfigError(
                f"the state folder cannot be made ({fault.strerror}): let the user of this process "
                "write to --directory",
                str(self.folder),
            ) from fault

    def sync(self) -> None:
        """Make the folders' own entries durable, up to DIRECTORY's."""
        for folder in (self.incoming.parent, self.folder, self.folder.parent):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def lock(self) -> None:
        """Become the owner until `unlock` or the end of the process.

        Raises `OwnedError` when somebody else is, `ConfigError` where nobody can become it.
        """
        try:
            fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise self._unlockable(fault) from fault
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            owner = os.read(fd, 20).decode(errors="replace").strip() or "?"
            os.close(fd)
            raise OwnedError(
                f"another gateway (process {owner}) serves this directory: stop it, or give this "
                "one a --directory of its own",
                str(self.folder),
            ) from None
        except OSError as fault:
            os.close(fd)
            raise self._unlockable(fault) from fault
        self._lock_fd = fd

    def _unlockable(self, fault: OSError) -> ConfigError:
        return ConfigError(
            f"the directory cannot be locked ({fault.strerror}): its file system must know flock, "
            "have room, and let the user of this process write there",
            str(self._lock_file),
        )

    def unlock(self) -> None:
        """Give the slot up; a second call does nothing."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    @contextlib.contextmanager
    def short_socket_path(self) -> Iterator[str]:
        """Give the socket a path that fits: the kernel takes 108 bytes, DIRECTORY may be longer."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            through_fd = Path(f"/proc/self/fd/{fd}")
            folder = through_fd if through_fd.exists() else self.folder
            yield str(folder / self.socket.name)
        finally:
            os.close(fd)
