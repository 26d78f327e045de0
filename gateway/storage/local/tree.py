"""DIRECTORY as a tree in which no symlink is followed and no protected place is touched.

Every folder is entered through the descriptor of its parent, so what another process renames meanwhile
cannot lead out of the tree. All calls block; they are made from threads. Messages name paths as clients
know them, never as the server does. `OSError`s about the machine (EACCES, EROFS, ENOSPC, EIO) pass.
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
from gateway.storage.local.directory import (
    FOLDER_FLAGS,
    DurableFolders,
    Inode,
    OpenDirectory,
    inode,
    name_error,
)

FOLDER_MODE: Final = 0o750

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_ATTEMPTS: Final = 3
"""How often a folder is created that other processes remove meanwhile."""


def _client_path(names: Sequence[str]) -> str:
    return "/" + "/".join(names)


@dataclass(slots=True, frozen=True)
class _Protected:
    """Protected places twice: as inodes, and as paths for those that do not exist or are replaced."""

    inodes: frozenset[Inode]
    paths: frozenset[tuple[str, ...]]

    def refuse(self, names: tuple[str, ...], status: os.stat_result | None = None) -> None:
        if names in self.paths or (status is not None and inode(status) in self.inodes):
            raise Refusal("forbidden", f"{_client_path(names)} belongs to the gateway itself")

    def refuse_way(self, names: tuple[str, ...]) -> None:
        """Refuse a path on which a protected place lies, which need not exist: it would be created."""
        for place in self.paths:
            if names[: len(place)] == place:
                self.refuse(place)


def _protect(root: Path, places: Iterable[Path]) -> _Protected:
    inodes, below_root = set(), set()
    for place in places:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            inodes.add(inode(place.stat()))
        for spelling in (place.resolve(), place.parent.resolve() / place.name):
            if root.is_relative_to(spelling):
                raise ConfigError(f"the directory {root} lies in the protected folder {place}")
            if spelling.is_relative_to(root):
                below_root.add(spelling.relative_to(root).parts)
    return _Protected(frozenset(inodes), frozenset(below_root))


class DirectoryTree:
    """DIRECTORY, held open. `segments` are what `paths.check_path` returns.

    `protected` names files and folders that no client may reach; `device` (a `st_dev`) is where
    bodies are received: a file can be renamed only within it. Every method may raise
    `Refusal`: `bad_path` (a symlink on the way, a name too long for the file system), `conflict`
    (a file on the way, or no regular file at its end), `forbidden` (protected). The constructor raises
    `ConfigError` when a protected place holds the tree itself.
    """

    def __init__(
        self,
        root: Path,
        protected: Iterable[Path],
        device: int | None = None,
        max_new_folders: int = paths.MAX_NEW_FOLDERS,
    ) -> None:
        self._root = root.resolve()
        self._device = device
        self._max_new_folders = max_new_folders
        self._durable = DurableFolders()
        self._protected = _protect(self._root, protected)
        self._fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def root_fd(self) -> int:
        """The descriptor of DIRECTORY, the tree's to close."""
        return self._fd

    def reload_protected(self, protected: Iterable[Path]) -> None:
        """Replace the protected places. Raises as the constructor does, and keeps the old ones then."""
        self._protected = _protect(self._root, protected)

    def close(self) -> None:
        """Close the root; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def lstat(self, segments: Sequence[str]) -> os.stat_result | None:
        """Return the lstat of a file, None if there is none. Raises also `other_file_system`."""
        return self._lstat(segments, None)

    def lstat_target(self, segments: Sequence[str]) -> os.stat_result | None:
        """Return the lstat of what an upload would replace. Raises as `open_parent` would then."""
        return self._lstat(segments, self._max_new_folders)

    def _lstat(self, segments: Sequence[str], max_new: int | None) -> os.stat_result | None:
        names = _checked(segments)
        try:
            with self._walk(names, create=False, device=self._device, max_new=max_new) as parent:
                return parent.target_stat
        except FileNotFoundError:
            return None

    def open_parent(self, segments: Sequence[str]) -> OpenDirectory:
        """Return the open parent; create missing folders (0750).

        Raises also `other_file_system`, and `bad_path` where too many are missing: none is created then.
        """
        names, max_new = _checked(segments), self._max_new_folders
        return self._walk(names, create=True, device=self._device, max_new=max_new)

    def open_existing(self, segments: Sequence[str]) -> OpenDirectory:
        """Return the open parent; create nothing. Raises also `FileNotFoundError`."""
        return self._walk(_checked(segments), create=False, device=None)

    def sibling(self, parent: OpenDirectory, segments: Sequence[str]) -> OpenDirectory:
        """Return a parent for another name in the folder that `parent` holds open.

        `segments` but for the last must be those that led there. Raises as `open_parent` does.
        """
        names = _checked(segments)
        self._protected.refuse(names)
        sibling = parent.sibling(names[-1])
        self._stat_target(sibling, names)
        return sibling

    def open_file(self, segments: Sequence[str]) -> int:
        """Return a read-only descriptor of a regular file. Raises also `FileNotFoundError`."""
        names = _checked(segments)
        with self._walk(names, create=False, device=None) as parent:
            fd = _open_child(parent.fd, names, len(names), _READ_FLAGS)
        try:
            self._refuse_target(names, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_folder(self, segments: Sequence[str]) -> int:
        """Return a descriptor of a folder, of the root for no segments. Raises as `open_file` does."""
        fd = os.dup(self._fd)
        try:
            names = _checked(segments) if segments else ()
            for depth in range(1, len(names) + 1):
                child = self.open_subfolder(fd, names[:depth])
                os.close(fd)
                fd = child
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_subfolder(self, fd: int, names: tuple[str, ...]) -> int:
        """Return a descriptor of the folder `names[-1]` in the folder `fd`. Raises as `open_file`."""
        self._protected.refuse(names)
        child = _open_child(fd, names, len(names), FOLDER_FLAGS)
        try:
            self._protected.refuse(names, os.fstat(child))
        except BaseException:
            os.close(child)
            raise
        return child

    def refuse_protected(self, names: tuple[str, ...], status: os.stat_result) -> None:
        """Raise `Refusal("forbidden")` for a place of the gateway's own, by path or by inode."""
        self._protected.refuse(names, status)

    def _walk(
        self, names: tuple[str, ...], *, create: bool, device: int | None, max_new: int | None = None
    ) -> OpenDirectory:
        """Enter folder after folder, holding one descriptor, and stat the target."""
        self._protected.refuse_way(names)
        root = fd = self._fd
        unsynced: list[int] = []
        try:
            status = self._checked_folder(fd, (), device)
            for depth in range(1, len(names)):
                changed = status.st_mtime_ns
                child = _enter(fd, names, depth, create=create, max_new=max_new)
                if fd != root:
                    os.close(fd)
                fd = child
                status = self._checked_folder(fd, names[:depth], device)
                if (inode(status), changed) not in self._durable:
                    unsynced.append(len(names) - depth)
            if fd == root:
                fd = os.dup(root)
            parent = OpenDirectory(fd, names[-1], inode(status), unsynced, self._durable)
            self._stat_target(parent, names)
        except BaseException:
            if fd != root:
                os.close(fd)
            raise
        return parent

    def _stat_target(self, parent: OpenDirectory, names: tuple[str, ...]) -> None:
        parent.target_stat = parent.stat()
        self._refuse_target(names, parent.target_stat)

    def _checked_folder(self, fd: int, names: tuple[str, ...], device: int | None) -> os.stat_result:
        status = os.fstat(fd)
        self._protected.refuse(names, status)
        if device is not None and status.st_dev != device:
            raise Refusal("other_file_system", f"{_client_path(names)} is on another file system")
        return status

    def _refuse_target(self, names: tuple[str, ...], status: os.stat_result | None) -> None:
        self._protected.refuse(names, status)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise Refusal("conflict", f"{_client_path(names)} exists and is not a file")


def _checked(segments: Sequence[str]) -> tuple[str, ...]:
    """Return `segments` after the check of every path: a caller may have forgotten it."""
    names = tuple(segments)
    if paths.check_path("/" + "/".join(names)) != names:
        raise Refusal("bad_path", "a segment of the path contains a slash")
    return names


def _enter(fd: int, names: tuple[str, ...], depth: int, *, create: bool, max_new: int | None) -> int:
    """Return the descriptor of the folder `names[depth - 1]` in the folder `fd`.

    One that another process removes meanwhile is created again. Where it is missing, all below it are:
    more than `max_new` raise `Refusal("bad_path")`.
    """
    for remaining in reversed(range(_MAX_ATTEMPTS)):
        try:
            return _open_child(fd, names, depth, FOLDER_FLAGS)
        except FileNotFoundError:
            missing = len(names) - depth
            if max_new is not None and missing > max_new:
                raise _too_many_folders(missing, max_new) from None
            if not create or not remaining:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(names[depth - 1], FOLDER_MODE, dir_fd=fd)
    raise AssertionError("the last attempt returns or raises")


def _too_many_folders(missing: int, allowed: int) -> Refusal:
    return Refusal(
        "bad_path",
        f"the path needs {missing} new folders, at most {allowed} are created for one upload",
    )


def _open_child(fd: int, names: tuple[str, ...], depth: int, flags: int) -> int:
    try:
        return os.open(names[depth - 1], flags, dir_fd=fd)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise _obstacle(fd, names[:depth]) from None
        raise name_error(error) from None


def _obstacle(fd: int, names: tuple[str, ...]) -> Refusal:
    """Return why a name could not be opened."""
    status = os.stat(names[-1], dir_fd=fd, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return Refusal("bad_path", f"{_client_path(names)} is a symbolic link")
    return Refusal("conflict", f"{_client_path(names)} is a file, not a folder")
