"""The identity of a file: the same after a reboot, another for another version."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.domain.model import Identity


def with_device(status: os.stat_result, device: int) -> os.stat_result:
    """Return a stat as a restart may show it, on a disk with another number."""
    exact = {"st_mtime_ns": status.st_mtime_ns}
    return os.stat_result([*status[:2], device, *status[3:]], exact)


def test_a_file_is_the_same_one_on_a_disk_with_another_device_number(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"content")
    before = file.stat()
    after = with_device(before, before.st_dev + 1)
    assert after.st_dev != before.st_dev
    assert Identity.of(after) == Identity.of(before)
    assert Identity.of(after).etag == Identity.of(before).etag


def test_another_inode_size_or_time_is_another_version() -> None:
    versions = [Identity(1, 2, 3), Identity(9, 2, 3), Identity(1, 9, 3), Identity(1, 2, 9)]
    assert len({version.etag for version in versions}) == len(versions)
