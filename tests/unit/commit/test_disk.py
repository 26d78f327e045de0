"""Disk space: what is reserved is not reserved twice, and is always released."""

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

from gateway.commit import disk as disk_module
from gateway.commit.disk import DiskSpace, Reservation, ReservationTable
from gateway.errors import Refusal


class Disk:
    """Stands for the file system's own figures, so that they hold still."""

    def __init__(self, free: int) -> None:
        self.left = free
        self.inodes, self.all_inodes = 10, 10

    def fstatvfs(self, fd: int) -> SimpleNamespace:
        return SimpleNamespace(
            f_bavail=self.left, f_frsize=1, f_favail=self.inodes, f_files=self.all_inodes
        )


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(1000)
    monkeypatch.setattr(disk_module, "os", disk)
    return disk


def refused(space: DiskSpace, size: int | None) -> bool:
    try:
        space.reserve(size)
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


def test_what_fits_is_reserved_and_what_does_not_is_refused(disk: Disk) -> None:
    space = DiskSpace(0, 100)
    assert refused(space, 901)
    space.reserve(900)
    assert space.reserved == 900
    assert refused(space, 1)


def test_an_empty_or_undeclared_body_needs_a_byte_of_space(disk: Disk) -> None:
    space = DiskSpace(0, 1000)
    assert refused(space, 0)
    assert refused(space, None)
    assert not space.accepts_uploads()
    assert DiskSpace(0, 999).accepts_uploads()
    DiskSpace(0, 999).reserve(None)


def test_without_a_free_inode_no_new_file_is_admitted(disk: Disk) -> None:
    space = DiskSpace(0, 0)
    disk.inodes = 0
    with pytest.raises(Refusal, match="no inode left"):
        space.reserve(1)
    with pytest.raises(Refusal, match="no inode left"):
        space.check(1, new_file=True)
    assert not space.accepts_uploads()
    space.check(1, new_file=False)
    assert space.reserved == 0


def test_a_file_system_that_reports_no_inodes_at_all_has_enough(disk: Disk) -> None:
    disk.inodes = disk.all_inodes = 0
    space = DiskSpace(0, 0)
    assert space.accepts_uploads()
    space.reserve(1)


def test_reserved_bytes_are_not_counted_again_when_they_are_written(disk: Disk) -> None:
    space = DiskSpace(0, 0)
    reservation = space.reserve(800)
    reservation.use(300)
    disk.left -= 300
    assert space.reserved == 500
    assert refused(space, 201)
    assert not refused(space, 200)


def test_bytes_beyond_the_reservation_are_checked_against_the_disk(disk: Disk) -> None:
    space = DiskSpace(0, 100)
    reservation = space.reserve(None)
    reservation.use(900)
    with pytest.raises(Refusal, match="901 more bytes are needed, 900 are available"):
        reservation.use(901)
    other = space.reserve(500)
    with pytest.raises(Refusal):
        reservation.use(401)
    other.close()
    reservation.use(401)


def test_closing_releases_what_was_not_used_once(disk: Disk) -> None:
    space = DiskSpace(0, 0)
    reservation = space.reserve(500)
    reservation.use(200)
    reservation.close()
    reservation.close()
    assert space.reserved == 0


@pytest.fixture(scope="module")
def steady() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_module, "os", Disk(1000))
        yield


@pytest.mark.usefixtures("steady")
@given(st.lists(st.tuples(st.integers(0, 400), st.lists(st.integers(0, 200), max_size=4)), max_size=8))
def test_whatever_uploads_do_the_reserved_bytes_are_the_sum_of_open_reservations(
    uploads: list[tuple[int, list[int]]],
) -> None:
    space = DiskSpace(0, 50)
    open_reservations: list[tuple[Reservation, int]] = []
    for size, writes in uploads:
        available = 1000 - 50 - space.reserved
        if max(size, 1) > available:
            assert refused(space, size)
            continue
        reservation, left = space.reserve(size), size
        for amount in writes:
            try:
                reservation.use(amount)
            except Refusal:
                assert amount > left
            else:
                left = max(left - amount, 0)
        open_reservations.append((reservation, left))
        assert space.reserved == sum(left for _, left in open_reservations) <= 950
    for reservation, _ in open_reservations:
        reservation.close()
    assert space.reserved == 0


def test_what_other_processes_have_reserved_is_not_reserved_again(disk: Disk) -> None:
    table = ReservationTable(2)
    first, second = DiskSpace(0, 100, table, 0), DiskSpace(0, 100, table, 1)
    reservation = first.reserve(700)
    assert refused(second, 201)
    other = second.reserve(200)
    assert (first.reserved, second.reserved, table.total()) == (700, 200, 900)
    reservation.close()
    assert not refused(second, 700)
    other.close()


def test_reservations_are_seen_across_a_fork() -> None:
    program = (
        "import os\n"
        "from gateway.commit.disk import ReservationTable\n"
        "table = ReservationTable(2)\n"
        "if not os.fork():\n"
        "    table[1] += 700\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(table[0], table[1], table.total())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout == b"0 700 700\n"
