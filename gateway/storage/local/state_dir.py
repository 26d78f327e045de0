"""The state folder `DIRECTORY/.gateway`, and whose it is.

    .gateway/            0700
      slots/all          the lock of the directory: who serves it, or looks into it, holds this first
      slots/<n>          the lock of a slot: whoever holds it owns the three below
      incoming/<n>/      bodies on their way
      journal-<n>.db     uploads and deliveries
      owner-<n>.sock     where the owner answers the command line and its siblings
      once/              the one-time URLs that are used up (`storage.once`), of all slots
      records.db         what scripts keep (`records`), all slots; `records.turns` lets them in turn
      leaving-<n>.db     a journal on its way into another one (`commit.adopt`)
      gate, turnstile    lock between processes that publish files and one that removes some

The flocks go with the processes that hold them, however they end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.storage.local.fsync import sync_folder

DEAD_OWNER_TIMEOUT: Final = 5.0
"""How long a lock may outlive the process that took it: its children are about to follow."""

SLOT_LOCK_TIMEOUT: Final = 10.0
"""How long the lock of a slot is waited for: a look into its journal takes some milliseconds."""

_POLL: Final = 0.02
_SIGNATURE_BYTES: Final = 12
_JOURNAL: Final = re.compile(r"journal-(\d{1,4})\.db")


class LockHeldError(ConfigError):
    """Somebody else holds the lock."""


class FileLock:
    """An flock on a file. Processes that are forked meanwhile hold it too, until the last has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, timeout: float = 0.0) -> None:
        """Hold it until `release` or the end of the process; wait `timeout` seconds at the most.

        Where the process that took it has died, its children are given time to do the same.
        Raises `LockHeldError` when somebody else holds it, `ConfigError` where nobody can.
        """
        fd = self._opened()
        started = time.monotonic()
        try:
            while not self._taken(fd):
                waited, owner = time.monotonic() - started, _owner(fd)
                if waited >= (timeout if _alive(owner) else max(timeout, DEAD_OWNER_TIMEOUT)):
                    raise LockHeldError(
                        f"another gateway (process {owner or '?'}) serves this directory: stop it, or "
                        "give this one a --directory of its own",
                        str(self._path.parent.parent),
                    )
                time.sleep(_POLL)
            os.pwrite(fd, _signature(os.getpid()), 0)
        except OSError as fault:
            os.close(fd)
            raise self._unlockable(fault) from fault
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Give it up; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise self._unlockable(fault) from fault

    @staticmethod
    def _taken(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlockable(self, fault: OSError) -> ConfigError:
        return ConfigError(
            f"the directory cannot be locked ({fault.strerror}): its file system must know flock, "
            "have room, and let the user of this process write there",
            str(self._path),
        )


def directory_lock(folder: Path) -> FileLock:
    """Return the lock of a whole state folder: one gateway, of however many processes, holds it."""
    return FileLock(folder / "slots" / "all")


def existing_slots(folder: Path) -> list[int]:
    """Return the slots of which there is a journal in the state folder, in order."""
    found = (_JOURNAL.fullmatch(path.name) for path in folder.glob("journal-*.db"))
    return sorted(int(match[1]) for match in found if match)


class StateDirectory:
    """The places of one slot below `folder`. Creating the object touches nothing."""

    def __init__(self, folder: Path, slot: int = 0) -> None:
        self.folder = folder
        self.slot = slot
        self.journal = folder / f"journal-{slot}.db"
        self.incoming = folder / "incoming" / str(slot)
        self.once = folder / "once"
        self.socket = folder / f"owner-{slot}.sock"
        self._lock = FileLock(folder / "slots" / str(slot))

    def prepare(self) -> None:
        """Create the folders. Raises `ConfigError` where that is not allowed."""
        try:
            directory = self.folder.parent
            made = [one for one in (directory, *directory.parents) if not one.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            for one in made:  # else a power loss may take DIRECTORY itself, with all that was answered
                sync_folder(one.parent)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.incoming, self.folder / "slots"):
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
            sync_folder(folder)

    def lock(self, timeout: float = 0.0) -> None:
        """Become the owner of the slot until `unlock` or the end of the process.

        Waits `timeout` seconds at the most. Raises `LockHeldError` when somebody else is,
        `ConfigError` where nobody can become it.
        """
        self._lock.acquire(timeout)

    def unlock(self) -> None:
        """Give the slot up; a second call does nothing."""
        self._lock.release()

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


def _signature(pid: int) -> bytes:
    """Return what an owner writes: as long as every other, so that who reads meanwhile finds one whole.

    Line ends fill it up, since a shell's `$(cat ...)` drops them.
    """
    return str(pid).encode().ljust(_SIGNATURE_BYTES, b"\n")


def _owner(fd: int) -> str:
    return os.pread(fd, _SIGNATURE_BYTES, 0).decode(errors="replace").strip()


def _alive(owner: str) -> bool:
    """Tell whether the process that took a lock still runs, as far as can be seen from here."""
    try:
        os.kill(int(owner), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
