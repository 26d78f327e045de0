"""The files below DIRECTORY in the order of their keys, however many there are.

What is held at a time is a page of names for each folder on the way down. Folders are entered by
descriptor, no symlink is followed, protected places are left out. A list that ends is whole. Blocking.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.domain import paths
from gateway.errors import Refusal
from gateway.storage.local.entries import scan
from gateway.storage.local.tree import DirectoryTree

PAGE_SIZE: Final = 20_000
"""Names of one folder that are held at a time: some 2 MB. A larger folder is read once per page."""


class Entry(NamedTuple):
    """A regular file: its key and its lstat."""

    key: str
    status: os.stat_result


Entries = Generator[Entry, None, None]

_LOST_AND_FOUND: Final = ("lost+found",)
"""Where DIRECTORY is the root of a volume, this folder is the file system's and root's alone."""


@dataclass(frozen=True, slots=True)
class _KeyFilter:
    """Selects the keys that start with `prefix` and come behind `after`."""

    prefix: str
    after: str

    def matches(self, key: str) -> bool:
        """Tell whether a key, or, where it ends with a slash, a key below it, may be selected."""
        if key.endswith("/"):
            overlaps = key.startswith(self.prefix) or self.prefix.startswith(key)
            return overlaps and (key > self.after or self.after.startswith(key))
        return key.startswith(self.prefix) and key > self.after


def walk(tree: DirectoryTree, prefix: str, after: str = "") -> Entries:
    """Yield the files whose key starts with `prefix`, in byte order, from behind the key `after` on.

    The order is that of an object store's list: a folder `a` counts as `a/`, so it comes behind
    `a-b`. (Code points sort as their UTF-8 bytes do.) Raises `Refusal` as `DirectoryTree.open_folder`
    does, and `OSError` for what cannot be read.
    """
    above = prefix.rpartition("/")[0]
    segments = paths.check_path(above) if above else ()
    try:
        fd = tree.open_folder(segments)
    except (FileNotFoundError, NotADirectoryError):
        return
    except Refusal as refusal:
        if refusal.code == "conflict":  # the prefix names a file, not a folder
            return
        raise
    yield from _walk_folder(tree, fd, segments, _KeyFilter(prefix, after))


def _walk_folder(tree: DirectoryTree, fd: int, segments: Sequence[str], keys: _KeyFilter) -> Entries:
    """Yield the selected files below the folder `fd`, which is closed at the end."""
    base = "".join(f"{name}/" for name in segments)
    try:
        last = ""
        while page := _page(fd, base, keys, last):
            for name in page:
                if name.endswith("/"):
                    names = (*segments, name[:-1])
                    child = _open_subfolder(tree, fd, names)
                    if child is not None:
                        yield from _walk_folder(tree, child, names, keys)
                else:
                    yield from listed_file(tree, fd, (*segments, name))
            last = page[-1]
    finally:
        os.close(fd)


def _open_subfolder(tree: DirectoryTree, fd: int, names: tuple[str, ...]) -> int | None:
    """Return a descriptor of a folder, None for one that was removed, is protected or is a link now."""
    try:
        return tree.open_subfolder(fd, names)
    except (FileNotFoundError, NotADirectoryError, Refusal):
        return None
    except PermissionError:
        if names == _LOST_AND_FOUND:
            return None
        raise


def _page(fd: int, base: str, keys: _KeyFilter, last: str) -> list[str]:
    """Return a folder's first names behind `last`, in order; those of folders end with a slash."""
    with scan(fd) as entries:
        names = (sort_name(entry) for entry in entries)
        return heapq.nsmallest(
            PAGE_SIZE, (name for name in names if name and name > last and keys.matches(base + name))
        )


def sort_name(entry: os.DirEntry[str]) -> str:
    """Return the name by which an entry is sorted, nothing for what is neither file nor folder."""
    if entry.is_dir(follow_symlinks=False):
        return entry.name + "/"
    return entry.name if entry.is_file(follow_symlinks=False) else ""


def listed_file(tree: DirectoryTree, fd: int, names: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the file, unless it was removed, is protected or has a name that no request can have."""
    key = "/".join(names)
    try:
        paths.check_path(key)
        status = os.stat(names[-1], dir_fd=fd, follow_symlinks=False)
        tree.refuse_protected(names, status)
    except (FileNotFoundError, Refusal):
        return
    if stat.S_ISREG(status.st_mode):
        yield Entry(key, status)
