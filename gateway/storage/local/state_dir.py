"""The state folder `DIRECTORY/.gateway`, and the locks that say which process owns what.

    .gateway/            0700
      slots/all          the lock of the directory: a gateway or an offline command holds this first
      slots/<n>          the lock of a slot: its holder owns the three below
      incoming/<n>/      bodies that are being received
      journal-<n>.db     uploads and deliveries
      owner-<n>.sock     where the owner answers the command line and the other processes
      partials/          partial uploads, of all slots
      held/              whole uploads that wait for a decision, of all slots
      once/              the one-time URLs that are used up, of all slots
      keys.db            the API keys, of all slots; the command line writes it too
      relay-address      the address that deliveries in NATS name, of the latest start
      multipart/         the multipart uploads that this machine has begun
      records.db         the records of scripts, of all slots; `records.turns` orders their writers
      leaving-<n>.db     a journal whose deliveries are being moved into another one
      gate, turnstile    lock between processes that publish files and one that removes some

A flock ends with the processes that hold it, however they end.
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
from gateway.storage.local.directory import sync_folder
from gateway.storage.local.lock_holders import lock_holders

DEAD_OWNER_TIMEOUT: Final = 5.0
"""Seconds that a lock may outlive the process that acquired it: its children are about to end."""

SLOT_LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for the lock of a slot: an offline command reads its journal in milliseconds."""

_POLL_INTERVAL: Final = 0.02
_SIGNATURE_BYTES: Final = 12
_JOURNAL: Final = re.compile(r"journal-(\d{1,4})\.db")


class LockHeldError(ConfigError):
    """Another process holds the lock."""


class FileLock:
    """An flock on a file. Processes that are forked meanwhile hold it too, until the last one ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, timeout: float = 0.0) -> None:
        """Hold it until `release` or the end of the process; wait up to `timeout` seconds.

        Where the process that acquired it has died, its children are given time to end as well.
        Raises `LockHeldError` when another process holds it, `ConfigError` where it cannot be held.
        """
        fd = self._open()
        started = time.monotonic()
        try:
            while not self._try_lock(fd):
                waited, owner = time.monotonic() - started, _owner(fd)
                if waited >= (timeout if _alive(owner) else max(timeout, DEAD_OWNER_TIMEOUT)):
                    raise LockHeldError(_held_by(fd, owner), str(self._path.parent.parent))
                time.sleep(_POLL_INTERVAL)
            os.pwrite(fd, _signature(os.getpid()), 0)
        except OSError as error:
            os.close(fd)
            raise self._lock_error(error) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Release it; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._lock_error(error) from error

    @staticmethod
    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _lock_error(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the directory cannot be locked ({error.strerror}): its file system must know flock, "
            "have room, and let the user of this process write there",
            str(self._path),
        )


def directory_lock(folder: Path) -> FileLock:
    """Return the lock of a whole state folder. One gateway, of any number of processes, holds it."""
    return FileLock(folder / "slots" / "all")


def existing_slots(folder: Path) -> list[int]:
    """Return the slots that have a journal in the state folder, in order."""
    matches = (_JOURNAL.fullmatch(path.name) for path in folder.glob("journal-*.db"))
    return sorted(int(match[1]) for match in matches if match)


class StateDirectory:
    """The paths of one slot below `folder`, and its lock. Creating the object touches nothing."""

    def __init__(self, folder: Path, slot: int = 0) -> None:
        self.folder = folder
        self.slot = slot
        self.journal = folder / f"journal-{slot}.db"
        self.incoming = folder / "incoming" / str(slot)
        self.one_time_marks = folder / "once"
        self.partials = folder / "partials"
        self.held = folder / "held"
        self.socket = folder / f"owner-{slot}.sock"
        self.lock = FileLock(folder / "slots" / str(slot))

    def prepare(self) -> None:
        """Create the folders. Raises `ConfigError` where that is not allowed."""
        try:
            directory = self.folder.parent
            missing = [path for path in (directory, *directory.parents) if not path.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            for path in missing:  # else a power loss may take DIRECTORY itself, with answered uploads
                sync_folder(path.parent)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.incoming, self.folder / "slots"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the state folder cannot be created ({error.strerror}): let the user of this process "
                "write to --directory",
                str(self.folder),
            ) from error

    def sync(self) -> None:
        """Make the folders' own entries durable, up to DIRECTORY's."""
        for folder in (self.incoming.parent, self.folder, self.folder.parent):
            sync_folder(folder)

    @contextlib.contextmanager
    def short_socket_path(self) -> Iterator[str]:
        """Yield a path of the socket that fits: the kernel takes 108 bytes, DIRECTORY may be longer."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            through_fd = Path(f"/proc/self/fd/{fd}")
            folder = through_fd if through_fd.exists() else self.folder
            yield str(folder / self.socket.name)
        finally:
            os.close(fd)


def _signature(pid: int) -> bytes:
    """Return what an owner writes: of fixed length, so that a concurrent read returns a whole one.

    Line ends pad it, since a shell's `$(cat ...)` drops them.
    """
    return str(pid).encode().ljust(_SIGNATURE_BYTES, b"\n")


def _owner(fd: int) -> str:
    return os.pread(fd, _SIGNATURE_BYTES, 0).decode(errors="replace").strip()


def _held_by(fd: int, owner: str) -> str:
    """Return who holds a lock that the process `owner` acquired, and what to do about it."""
    holders = lock_holders(fd)
    if holders and owner not in map(str, holders):
        pid, command = min(holders.items())
        return (
            f"process {pid} (`{command}`) still holds this directory for a gateway that has ended"
            f" (process {owner or '?'}): end it with `kill {pid}`, or give this one a --directory of"
            " its own"
        )
    return (
        f"another gateway (process {owner or '?'}) serves this directory: stop it, or give this one a"
        " --directory of its own"
    )


def _alive(owner: str) -> bool:
    """Tell whether the process that acquired a lock still runs, as far as this process can see."""
    try:
        os.kill(int(owner), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
