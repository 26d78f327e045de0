"""The files below DIRECTORY in the order of their keys, however many there are.

One rule: what is held at a time is a page of names for each folder on the way down, never a list of
all. A folder of more than PAGE names is read again for each page. Folders are entered by
descriptor, no symlink is followed, protected places are passed by. What cannot be read is a fault,
never a gap: a list that ends is whole. Blocking; may import its own room, paths, errors.
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
from gateway.storage.local.tree import DirectoryTree

PAGE: Final = 20_000
"""Names of one folder that are held at a time: some 2 MB."""


class Entry(NamedTuple):
    """A regular file: its key and its lstat."""

    key: str
    status: os.stat_result


Found = Generator[Entry, None, None]

_VOLUMES_OWN: Final = ("lost+found",)
"""Where DIRECTORY is the root of a volume this is the file system's: root's alone, nothing stored."""


@dataclass(frozen=True, slots=True)
class _KeyFilter:
    """Which keys are wanted: those that start with `prefix` and come behind `after`."""

    prefix: str
    after: str

    def takes(self, key: str) -> bool:
        """Tell whether a key, or, where it ends with a slash, something below it, may be wanted."""
        if key.endswith("/"):
            begun = key.startswith(self.prefix) or self.prefix.startswith(key)
            return begun and (key > self.after or self.after.startswith(key))
        return key.startswith(self.prefix) and key > self.after


def walk(tree: DirectoryTree, prefix: str, after: str = "") -> Found:
    """Yield the files whose key starts with `prefix`, in byte order, from behind the key `after` on.

    The order is that of an object store's list: a folder `a` counts as `a/`, so it comes behind
    `a-b`. (Code points sort as their UTF-8 bytes do.) Raises `Refusal` as `Tree.folder` does, and
    `OSError` for what cannot be read.
    """
    above = prefix.rpartition("/")[0]
    segments = paths.check_path(above) if above else ()
    try:
        fd = tree.open_folder(segments)
    except (FileNotFoundError, NotADirectoryError):
        return
    except Refusal as refusal:
        if refusal.code == "conflict":  # a file where a folder is asked for
            return
        raise
    yield from _below(tree, fd, segments, _KeyFilter(prefix, after))


def _below(tree: DirectoryTree, fd: int, segments: Sequence[str], wanted: _KeyFilter) -> Found:
    """Yield what is wanted below the folder `fd`, which is closed at the end."""
    base = "".join(f"{name}/" for name in segments)
    try:
        behind = ""
        while page := _page(fd, base, wanted, behind):
            for name in page:
                if name.endswith("/"):
                    names = (*segments, name[:-1])
                    child = _entered(tree, fd, names)
                    if child is not None:
                        yield from _below(tree, child, names, wanted)
                else:
                    yield from _file(tree, fd, (*segments, name))
            behind = page[-1]
    finally:
        os.close(fd)


def _entered(tree: DirectoryTree, fd: int, names: tuple[str, ...]) -> int | None:
    """Return a descriptor of a folder, None for one that is gone, protected or made a link."""
    try:
        return tree.open_subfolder(fd, names)
    except (FileNotFoundError, NotADirectoryError, Refusal):
        return None
    except PermissionError:
        if names == _VOLUMES_OWN:
            return None
        raise


def _page(fd: int, base: str, wanted: _KeyFilter, behind: str) -> list[str]:
    """Return a folder's first names behind `behind`, in order; those of folders end with a slash."""
    with os.scandir(fd) as entries:
        named = (_name(entry) for entry in entries)
        return heapq.nsmallest(
            PAGE, (name for name in named if name and name > behind and wanted.takes(base + name))
        )


def _name(entry: os.DirEntry[str]) -> str:
    """Return the name that counts in the order, nothing for what is neither file nor folder."""
    if entry.is_dir(follow_symlinks=False):
        return entry.name + "/"
    return entry.name if entry.is_file(follow_symlinks=False) else ""


def _file(tree: DirectoryTree, fd: int, names: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the file, unless it is gone, is the gateway's own or has a name that no client could say."""
    key = "/".join(names)
    try:
        paths.check_path(key)
        status = os.stat(names[-1], dir_fd=fd, follow_symlinks=False)
        tree.refuse_protected(names, status)
    except (FileNotFoundError, Refusal):
        return
    if stat.S_ISREG(status.st_mode):
        yield Entry(key, status)
