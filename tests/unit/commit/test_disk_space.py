"""The reserve: what is promised is not promised twice, and comes back whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commit import disk_space as reserve_module
from gateway.commit.disk_space import DiskSpace, Reservation, ReservationTable
from gateway.errors import Refusal


class Disk:
    """Stands for the file system's own figures, so that they hold still."""

    def __init__(self, free: int) -> None:
        self.left = free

    def fstatvfs(self, fd: int) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=self.left, f_frsize=1)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(1000)
    monkeypatch.setattr(reserve_module, "os", made)
    return made


def refused(reserve: DiskSpace, size: int | None) -> bool:
    try:
        reserve.reserve(size)
    except Refusal as refusal:
        return refusal.code == "no_space"
    return False


def test_the_figures_are_those_of_the_file_system(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    free = DiskSpace(fd, 0).free()
    status = os.statvfs(tmp_path)
    os.close(fd)
    assert abs(free - status.f_bavail * status.f_frsize) < 1 << 30
    assert free > 0


def test_what_fits_is_promised_and_what_does_not_is_refused(disk: Disk) -> None:
    reserve = DiskSpace(0, 100)
    assert refused(reserve, 901)
    reserve.reserve(900)
    assert reserve.reserved == 900
    assert refused(reserve, 1)


def test_an_empty_or_undeclared_body_needs_a_byte_of_room(disk: Disk) -> None:
    reserve = DiskSpace(0, 1000)
    assert refused(reserve, 0)
    assert refused(reserve, None)
    assert not reserve.above_watermark()
    assert DiskSpace(0, 999).above_watermark()
    DiskSpace(0, 999).reserve(None)


def test_promised_bytes_are_not_counted_again_when_they_are_written(disk: Disk) -> None:
    reserve = DiskSpace(0, 0)
    share = reserve.reserve(800)
    share.use(300)
    disk.left -= 300
    assert reserve.reserved == 500
    assert refused(reserve, 201)
    assert not refused(reserve, 200)


def test_bytes_beyond_the_promise_are_checked_against_the_disk(disk: Disk) -> None:
    reserve = DiskSpace(0, 100)
    share = reserve.reserve(None)
    share.use(900)
    with pytest.raises(Refusal, match="901 more bytes are needed, 900 are available"):
        share.use(901)
    other = reserve.reserve(500)
    with pytest.raises(Refusal):
        share.use(401)
    other.close()
    share.use(401)


def test_closing_gives_back_what_was_not_used_once(disk: Disk) -> None:
    reserve = DiskSpace(0, 0)
    share = reserve.reserve(500)
    share.use(200)
    share.close()
    share.close()
    assert reserve.reserved == 0


@pytest.fixture(scope="module")
def steady() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reserve_module, "os", Disk(1000))
        yield


@pytest.mark.usefixtures("steady")
@given(st.lists(st.tuples(st.integers(0, 400), st.lists(st.integers(0, 200), max_size=4)), max_size=8))
def test_whatever_uploads_do_the_promise_is_the_sum_of_what_is_open(
    uploads: list[tuple[int, list[int]]],
) -> None:
    reserve = DiskSpace(0, 50)
    open_shares: list[tuple[Reservation, int]] = []
    for size, writes in uploads:
        room = 1000 - 50 - reserve.reserved
        if max(size, 1) > room:
            assert refused(reserve, size)
            continue
        share, left = reserve.reserve(size), size
        for amount in writes:
            try:
                share.use(amount)
            except Refusal:
                assert amount > left
            else:
                left = max(left - amount, 0)
        open_shares.append((share, left))
        assert reserve.reserved == sum(left for _, left in open_shares) <= 950
    for share, _ in open_shares:
        share.close()
    assert reserve.reserved == 0


def test_what_other_processes_have_promised_is_not_promised_again(disk: Disk) -> None:
    promises = ReservationTable(2)
    first, second = DiskSpace(0, 100, promises, 0), DiskSpace(0, 100, promises, 1)
    share = first.reserve(700)
    assert refused(second, 201)
    other = second.reserve(200)
    assert (first.reserved, second.reserved, promises.total()) == (700, 200, 900)
    share.close()
    assert not refused(second, 700)
    other.close()


def test_promises_are_seen_across_a_fork() -> None:
    program = (
        "import os\n"
        "from gateway.commit.disk_space import ReservationTable\n"
        "promises = ReservationTable(2)\n"
        "if not os.fork():\n"
        "    promises[1] += 700\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(promises[0], promises[1], promises.total())\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout == b"0 700 700\n"
