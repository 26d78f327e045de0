"""A real file system of a few megabytes, to be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 1 << 20
SIZE = 24 * MIB


@contextlib.contextmanager
def mounted_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 24 MiB and 200 inodes at a new folder; skip the test where that fails."""
    folder.mkdir()
    options = f"size={SIZE},nr_inodes=200"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk but for `leave` bytes."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        while (free_bytes := free(folder) - leave) > 0:
            file.write(b"\0" * min(free_bytes, MIB))
            file.flush()
    return filler
