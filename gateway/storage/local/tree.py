"""DIRECTORY as a tree in which no symlink is followed and no protected place is touched.

One rule: every folder is entered through the descriptor of the one above it, so what another
process renames meanwhile cannot lead out of the tree. All calls block; they are made from threads.
Messages speak of paths as the client knows them, never of the server's. `OSError`s that tell of the
machine (EACCES, EROFS, ENOSPC, EIO) pass through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.domain import paths
from gateway.errors import ConfigError, Refusal
from gateway.storage.local.directory import ENTER, Durable, Inode, OpenDirectory, inode, too_long_or

FOLDER_MODE: Final = 0o750

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ATTEMPTS: Final = 3


def _shown(names: Sequence[str]) -> str:
    return "/" + "/".join(names)


@dataclass(slots=True, frozen=True)
class _Protected:
    """Protected places twice: as inodes, and as spelled for those that are absent or made anew."""

    inodes: frozenset[Inode]
    spelled: frozenset[tuple[str, ...]]

    def refuse(self, names: tuple[str, ...], found: os.stat_result | None = None) -> None:
        if names in self.spelled or (found is not None and inode(found) in self.inodes):
            raise Refusal("forbidden", f"{_shown(names)} belongs to the gateway itself")


def _protect(root: Path, places: Iterable[Path]) -> _Protected:
    inodes, spelled = set(), set()
    for place in places:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            inodes.add(inode(place.stat()))
        for spelling in (place.resolve(), place.parent.resolve() / place.name):
            if root.is_relative_to(spelling):
                raise ConfigError(f"the directory {root} lies in the protected folder {place}")
            if spelling.is_relative_to(root):
                spelled.add(spelling.relative_to(root).parts)
    return _Protected(frozenset(inodes), frozenset(spelled))


class DirectoryTree:
    """DIRECTORY, held open. `segments` are what `paths.check_path` returns.

    `protected` names files and folders that no client may reach; `device` (a `st_dev`) is where
    bodies are received: a file can be renamed only within it. Every method may raise
    `Refusal`: `bad_path` (a symlink on the way, a name too long for the file system), `conflict`
    (something that is no folder on the way, or no regular file at its end), `forbidden` (protected).
    """

    def __init__(self, root: Path, protected: Iterable[Path], device: int | None = None) -> None:
        self._root = root.resolve()
        self._device = device
        self._durable = Durable()
        self._protected = _protect(self._root, protected)
        self._fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def reload_protected(self, protected: Iterable[Path]) -> None:
        """Look at the protected places anew, after a reload.

        Raises `ConfigError`, and keeps the old ones, when one of them holds the tree itself.
        """
        self._protected = _protect(self._root, protected)

    def close(self) -> None:
        """Close the root; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def lstat(self, segments: Sequence[str]) -> os.stat_result | None:
        """Return the lstat of the file that stands there, None if there is none; creates nothing.

        Raises also `Refusal("other_file_system")`.
        """
        try:
            with self._walk(_checked(segments), create=False, device=self._device) as parent:
                return parent.target_stat
        except FileNotFoundError:
            return None

    def open_parent(self, segments: Sequence[str]) -> OpenDirectory:
        """Walk from the root, creating missing folders (0750), and return the open parent.

        Raises also `Refusal("other_file_system")`.
        """
        return self._walk(_checked(segments), create=True, device=self._device)

    def sibling(self, parent: OpenDirectory, segments: Sequence[str]) -> OpenDirectory:
        """Return a parent for another name in the folder that `parent` holds open.

        `segments` but for the last must be those that led there. Raises as `parent` does.
        """
        names = _checked(segments)
        self._protected.refuse(names)
        sibling = parent.sibling(names[-1])
        self._look(sibling, names)
        return sibling

    def open_file(self, segments: Sequence[str]) -> int:
        """Return a read-only descriptor of a regular file. Raises also `FileNotFoundError`."""
        names = _checked(segments)
        with self._walk(names, create=False, device=None) as parent:
            fd = _enter(parent.fd, names, len(names), _READ)
        try:
            self._refuse_target(names, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_folder(self, segments: Sequence[str]) -> int:
        """Return a descriptor of a folder, of the root for no segments. Raises as `open` does."""
        fd = os.dup(self._fd)
        try:
            names = _checked(segments) if segments else ()
            for depth in range(1, len(names) + 1):
                below = self.open_subfolder(fd, names[:depth])
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_subfolder(self, fd: int, names: tuple[str, ...]) -> int:
        """Return a descriptor of the folder `names[-1]` in the folder `fd`. Raises as `open` does."""
        self._protected.refuse(names)
        child = _enter(fd, names, len(names), ENTER)
        try:
            self._protected.refuse(names, os.fstat(child))
        except BaseException:
            os.close(child)
            raise
        return child

    def refuse_protected(self, names: tuple[str, ...], found: os.stat_result) -> None:
        """Raise `Refusal("forbidden")` for a place of the gateway's own, by name or by inode."""
        self._protected.refuse(names, found)

    def _walk(self, names: tuple[str, ...], *, create: bool, device: int | None) -> OpenDirectory:
        """Enter folder after folder, holding one descriptor, and look at the target."""
        for depth in range(len(names)):
            # By spelling, before a folder is made: a protected place need not exist yet.
            self._protected.refuse(names[: depth + 1])
        fd = os.dup(self._fd)
        unsynced = 0
        try:
            found = self._admitted(fd, (), device)
            for depth in range(1, len(names)):
                fd, changed = _descend(fd, names, depth, create=create), found.st_mtime_ns
                found = self._admitted(fd, names[:depth], device)
                # Counts from the highest folder in doubt: everything below it is synced again.
                if unsynced or (inode(found), changed) not in self._durable:
                    unsynced += 1
            parent = OpenDirectory(fd, names[-1], inode(found), unsynced, self._durable)
            self._look(parent, names)
        except BaseException:
            os.close(fd)
            raise
        return parent

    def _look(self, parent: OpenDirectory, names: tuple[str, ...]) -> None:
        parent.target_stat = parent.stat()
        self._refuse_target(names, parent.target_stat)

    def _admitted(self, fd: int, names: tuple[str, ...], device: int | None) -> os.stat_result:
        found = os.fstat(fd)
        self._protected.refuse(names, found)
        if device is not None and found.st_dev != device:
            raise Refusal("other_file_system", f"{_shown(names)} is on another file system")
        return found

    def _refuse_target(self, names: tuple[str, ...], found: os.stat_result | None) -> None:
        self._protected.refuse(names, found)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise Refusal("conflict", f"{_shown(names)} is there and is not a file")


def _checked(segments: Sequence[str]) -> tuple[str, ...]:
    """Return `segments` after the check of every path: this room trusts no caller with a `..`."""
    names = tuple(segments)
    if paths.check_path("/" + "/".join(names)) != names:
        raise Refusal("bad_path", "a segment of the path contains a slash")
    return names


def _descend(fd: int, names: tuple[str, ...], depth: int, *, create: bool) -> int:
    """Exchange the descriptor of a folder for that of `names[depth - 1]` in it.

    On a fault `fd` stays open. A folder that somebody removes meanwhile is made again, a few times.
    """
    for remaining in reversed(range(_ATTEMPTS)):
        try:
            child = _enter(fd, names, depth, ENTER)
            break
        except FileNotFoundError:
            if not create or not remaining:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(names[depth - 1], FOLDER_MODE, dir_fd=fd)
    os.close(fd)
    return child


def _enter(fd: int, names: tuple[str, ...], depth: int, flags: int) -> int:
    try:
        return os.open(names[depth - 1], flags, dir_fd=fd)
    except OSError as fault:
        if fault.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise _obstacle(fd, names[:depth]) from None
        raise too_long_or(fault) from None


def _obstacle(fd: int, names: tuple[str, ...]) -> Refusal:
    """Say why a name could not be entered."""
    found = os.stat(names[-1], dir_fd=fd, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        return Refusal("bad_path", f"{_shown(names)} is a symbolic link")
    return Refusal("conflict", f"{_shown(names)} is a file, not a folder")
