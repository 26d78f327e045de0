"""An open folder into which a file is published, and how its entries become durable.

A folder is known by its descriptor, never by its name, which other processes may change. Blocking.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final, Self

from gateway.errors import Refusal

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_REMEMBERED: Final = 65_536

Inode = tuple[int, int]


def inode(status: os.stat_result) -> Inode:
    """Return what identifies a file: device and inode."""
    return status.st_dev, status.st_ino


class DurableFolders(set[tuple[Inode, int]]):
    """Remembers folders whose entry in the parent folder is known to be on stable storage.

    Without it the second of two uploads into a new folder could be answered while the first has yet to
    sync that folder's own entry. Each is kept with the mtime (nanoseconds) of its parent folder: inode
    numbers are used again, but not without a change there. Forgetting costs a sync, never a promise.
    """

    def add(self, entry: tuple[Inode, int]) -> None:
        """Remember a folder's (device, inode) and the mtime of its parent folder."""
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        super().add(entry)


class OpenDirectory:
    """An open parent folder and the last segment `name` of a path in it. Close it, or use `with`.

    `fd` stays valid, and stays this very folder, whatever happens to the names above it.
    `folder` is its (device, inode): equal for two uploads into one folder. `target_stat` is the lstat
    that `name` had when the tree was walked, None when there was no such entry. `unsynced` tells which
    entries may not be on stable storage: 1 for that of this folder, 2 for that of the one above it.
    """

    def __init__(
        self, fd: int, name: str, folder: Inode, unsynced: Collection[int], durable: DurableFolders
    ) -> None:
        self.fd = fd
        self.name = name
        self.folder = folder
        self.target_stat: os.stat_result | None = None
        self._unsynced = unsynced
        self._durable = durable

    def sibling(self, name: str) -> OpenDirectory:
        """Return this folder with another name in it; the descriptor stays this one's to close."""
        return OpenDirectory(self.fd, name, self.folder, self._unsynced, self._durable)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stat(self) -> os.stat_result | None:
        """Return the lstat of `name`, None when there is no such entry."""
        try:
            return os.stat(self.name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise name_error(error) from None

    def sync(self, synced: set[Inode] | None = None) -> None:
        """Put this folder's entries on stable storage, and the entry of every new folder above it.

        Each folder is synced once; `synced` holds those that a batch has synced since its last
        `open_parent()` and its last rename, and is added to. Raises `OSError` when the disk refuses.
        """
        synced = set() if synced is None else synced
        if not self._unsynced and self.folder in synced:
            return
        _sync_once(self.fd, synced)
        self.sync_above(synced)

    def sync_above(self, synced: set[Inode]) -> None:
        """Put the entry of every new folder, of this one too, on stable storage. Raises `OSError`."""
        below = os.dup(self.fd)
        try:
            for step in range(1, max(self._unsynced, default=0) + 1):
                # A descriptor's ".." is the folder that holds its entry now, whatever its name.
                above = os.open("..", FOLDER_FLAGS, dir_fd=below)
                entered, below = below, above
                try:
                    if step in self._unsynced:
                        changed = os.fstat(above).st_mtime_ns
                        _sync_once(above, synced)
                        self._durable.add((inode(os.fstat(entered)), changed))
                finally:
                    os.close(entered)
            self._unsynced = ()
        finally:
            os.close(below)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _sync_once(fd: int, synced: set[Inode]) -> None:
    folder = inode(os.fstat(fd))
    if folder not in synced:
        os.fsync(fd)
        synced.add(folder)


def sync_folder(folder: Path) -> None:
    """Put the entries of a folder on stable storage. Blocking. Raises `OSError`."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(fd: int) -> None:
    """Put all of the file system that `fd` is on onto stable storage: no other one is waited for.

    Blocking. Raises `OSError` when the disk refuses (syncfs(2), since Linux 5.8). Where the C library
    has no such call, all file systems are synced, and no error is reported.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def name_error(error: OSError) -> Exception:
    """Return the refusal of a name that is too long, or the error as it is."""
    if error.errno == errno.ENAMETOOLONG:
        return Refusal("bad_path", "a segment of the path is too long for the file system")
    return error
