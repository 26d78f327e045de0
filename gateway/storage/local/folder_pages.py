"""One folder of DIRECTORY, a page of its entries at a time, however many there are.

A page describes its own entries only. The names behind them are remembered for the next page, as long as
the folder does not change: reading a folder of 100,000 names takes a tenth of a second. Blocking.
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.domain import paths
from gateway.errors import Refusal
from gateway.storage.local.directory import Inode, inode
from gateway.storage.local.entries import scan
from gateway.storage.local.listing import PAGE_SIZE, listed_file, sort_name
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import NO_ATTRIBUTES, FileAttributes, read_attributes

MAX_WINDOWS: Final = 8
"""Folders whose next names are remembered, at most `PAGE_SIZE` of each."""

MIN_AGE: Final = 0.1
"""Seconds for which a folder has not changed before its names are remembered.

The kernel stamps a change with the time of its latest tick: two changes in one tick look like one.
"""

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderEntry(NamedTuple):
    """An entry of one folder: a folder's key ends with a slash. What is known is known of files only."""

    key: str
    status: os.stat_result | None = None
    attributes: FileAttributes = NO_ATTRIBUTES


@dataclass(slots=True)
class _Window:
    """The names of a folder behind `after`, in order; `complete`: all of them."""

    changed: tuple[int, int]
    after: str
    names: Sequence[str]
    complete: bool

    def part(self, after: str, count: int) -> Sequence[str] | None:
        """Return `count` names behind `after`, fewer at the end; None: they are not all here."""
        if after < self.after:
            return None
        start = bisect.bisect_right(self.names, after)
        part = self.names[start : start + count]
        return part if self.complete or len(part) == count else None


class FolderPages:
    """Reads pages of folders. Thread-safe."""

    def __init__(self, tree: DirectoryTree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._windows: OrderedDict[Inode, _Window] = OrderedDict()

    def page(
        self, folder: Sequence[str], after: str, limit: int
    ) -> tuple[list[FolderEntry], str | None]:
        """Return the first entries behind the key `after`, and the key of the last name that was read.

        None: there are no more. Raises as `DirectoryTree.open_folder` does, and `OSError`.
        """
        fd = self._tree.open_folder(folder)
        try:
            base = "".join(f"{name}/" for name in folder)
            first = self._names(fd, after.removeprefix(base), limit + 1)
            more, names = len(first) > limit, first[:limit]
            entries = [entry for name in names for entry in _entry(self._tree, fd, (*folder, name))]
            return entries, base + names[-1] if more else None
        finally:
            os.close(fd)

    def _names(self, fd: int, after: str, count: int) -> Sequence[str]:
        """Return a folder's first names behind `after`, in order; those of folders end with a slash."""
        status = os.fstat(fd)
        folder, changed = inode(status), (status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            window = self._windows.pop(folder, None)
            if window is not None and window.changed == changed:
                self._windows[folder] = window
                if (part := window.part(after, count)) is not None:
                    return part
        unchanged = time.time() - status.st_mtime > MIN_AGE
        names = _first_names(fd, after, PAGE_SIZE if unchanged else count)
        if unchanged and len(names) > count:
            with self._lock:
                self._windows[folder] = _Window(changed, after, names, len(names) < PAGE_SIZE)
                if len(self._windows) > MAX_WINDOWS:
                    self._windows.popitem(last=False)
        return names[:count]


def _first_names(fd: int, after: str, count: int) -> list[str]:
    with scan(fd) as entries:
        names = (sort_name(entry) for entry in entries)
        return heapq.nsmallest(count, (name for name in names if name > after))


def _entry(tree: DirectoryTree, fd: int, names: tuple[str, ...]) -> Iterator[FolderEntry]:
    """Yield the entry, unless it was removed, is protected or has a name that no request can have."""
    if not names[-1].endswith("/"):
        for key, status in listed_file(tree, fd, names):
            yield _described(fd, key, status)
        return
    plain = (*names[:-1], names[-1][:-1])
    with contextlib.suppress(FileNotFoundError, Refusal):
        paths.check_path("/".join(plain))
        tree.refuse_protected(plain, os.stat(plain[-1], dir_fd=fd, follow_symlinks=False))
        yield FolderEntry("/".join(names))


def _described(fd: int, key: str, status: os.stat_result) -> FolderEntry:
    """Return a file with its attributes, as far as it may be read and is not being replaced."""
    try:
        file = os.open(key.rpartition("/")[2], _READ_FLAGS, dir_fd=fd)
    except OSError:
        return FolderEntry(key, status)
    try:
        opened = os.fstat(file)
        if not stat.S_ISREG(opened.st_mode):
            return FolderEntry(key, status)
        return FolderEntry(key, opened, read_attributes(file, opened))
    finally:
        os.close(file)
