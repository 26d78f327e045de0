"""The entries of an open folder. Blocking."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def scan(fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Iterate over the entries of the open folder `fd`, in no order. Raises `OSError`.

    The folder is opened anew for it: `os.scandir(fd)` reads through a duplicate of the descriptor, all
    duplicates share one position (dup(2)), and of two scans at a time each would miss entries.
    """
    own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(own) as entries:
            yield entries
    finally:
        os.close(own)


def entry_names(fd: int) -> Iterator[str]:
    """Iterate over the names in the open folder `fd`, as `scan` does."""
    with scan(fd) as entries:
        for entry in entries:
            yield entry.name
