"""The identity of a file: the same after a reboot, another for another version. Ids of uploads."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.model import Identity, created_at, id_prefix, new_id
from gateway.domain.units import iso_time, unix_time


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


def test_an_id_begins_with_its_time_and_never_repeats() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id(3) for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}-3", each) for each in ids)
    times = [created_at(each) for each in ids]
    assert before / 1000 <= times[0]
    assert times == sorted(times)


@given(st.integers(min_value=0, max_value=(1 << 33) * 1000))  # up to 2242 a float has microseconds
def test_the_time_of_an_id_is_the_one_that_is_shown_and_asked_for(milliseconds: int) -> None:
    moment = milliseconds / 1000
    shown = unix_time(iso_time(moment))
    assert shown == moment
    assert moment - 0.0015 < created_at(id_prefix(shown)) <= moment


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    new_id(0)  # the parent has random letters in store
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id(0).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        theirs = pipe.read().decode()
    os.waitpid(child, 0)
    assert len(theirs) == 28
    assert theirs[10:] != new_id(0)[10:]
