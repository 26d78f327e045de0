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
from gateway.commit.disk import MAX_RESERVED_BYTES, DiskSpace, Reservation, ReservationTable
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


def test_what_does_not_fit_is_refused_and_of_what_fits_half_is_reserved(disk: Disk) -> None:
    space = DiskSpace(0, 100)
    assert refused(space, 901)
    space.reserve(900)
    assert space.reserved == 450
    assert refused(space, 451)
    assert not refused(space, 450)


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


def write(disk: Disk, reservation: Reservation, amount: int) -> None:
    """Let bytes come, and reach the disk."""
    reservation.use(amount)
    disk.left -= amount


def test_reserved_bytes_are_not_counted_again_when_they_are_written(disk: Disk) -> None:
    space = DiskSpace(0, 0)
    reservation = space.reserve(400)
    write(disk, reservation, 300)
    assert space.reserved == 100
    assert refused(space, 601)
    assert not refused(space, 600)


def test_bytes_beyond_the_reservation_are_checked_against_the_disk(disk: Disk) -> None:
    space = DiskSpace(0, 100)
    reservation = space.reserve(None)
    reservation.use(900)
    with pytest.raises(Refusal, match="no space for 901 more bytes: the disk of the gateway is full"):
        reservation.use(901)
    other = space.reserve(400)
    with pytest.raises(Refusal, match="kept for this client's other uploads"):
        reservation.use(501)
    other.close()
    reservation.use(501)


def test_closing_releases_what_was_not_used_once(disk: Disk) -> None:
    space = DiskSpace(0, 0)
    reservation = space.reserve(500)
    reservation.use(200)
    reservation.close()
    reservation.close()
    assert space.reserved == 0


def test_an_error_of_the_file_system_leaves_nothing_reserved(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = DiskSpace(0, 0)
    reservation = space.reserve(900)

    def fail(fd: int) -> SimpleNamespace:
        raise OSError("the disk is gone")

    monkeypatch.setattr(disk, "fstatvfs", fail)
    with pytest.raises(OSError, match="gone"):
        reservation.use(300)
    reservation.close()
    assert space.reserved == 0


def test_a_client_that_declares_all_space_and_sends_nothing_keeps_nobody_out(disk: Disk) -> None:
    disk.left = 100 << 30
    space = DiskSpace(0, 0)
    for _ in range(1000):
        space.reserve(disk.left - space.reserved, "greedy")
    assert space.reserved <= 50 << 30
    assert space.accepts_uploads()
    space.reserve(40 << 30, "newcomer")


def test_one_upload_keeps_a_window_free_that_moves_with_its_bytes(disk: Disk) -> None:
    disk.left, piece = 100 << 30, MAX_RESERVED_BYTES // 4
    space = DiskSpace(0, 0)
    reservation = space.reserve(90 << 30)
    for _ in range((90 << 30) // piece):
        assert space.reserved <= MAX_RESERVED_BYTES
        assert reservation.covers(piece)
        write(disk, reservation, piece)
    assert (space.reserved, disk.left) == (0, 10 << 30)


def test_one_upload_may_fill_the_disk_to_its_watermark(disk: Disk) -> None:
    space = DiskSpace(0, 100)
    reservation = space.reserve(900)
    for _ in range(90):
        write(disk, reservation, 10)
    assert (space.reserved, disk.left) == (0, 100)
    assert not space.accepts_uploads()


def test_an_upload_that_others_leave_no_space_is_refused_while_it_comes(disk: Disk) -> None:
    space = DiskSpace(0, 0)
    first, second = space.reserve(600, "a"), space.reserve(500, "b")
    write(disk, first, 600)
    for _ in range(4):
        write(disk, second, 100)
    with pytest.raises(Refusal) as caught:
        second.use(100)
    second.close()
    assert (caught.value.status, space.reserved) == (507, 0)


def test_a_refusal_says_whose_uploads_have_the_space_and_not_how_much_is_free(disk: Disk) -> None:
    space = DiskSpace(0, 0)
    space.reserve(500, "a")
    for client, whose in (("a", "this client's other uploads"), ("b", "for other uploads")):
        with pytest.raises(Refusal, match=whose) as caught:
            space.reserve(700, client)
        assert caught.value.headers["Retry-After"]
        assert "500" not in caught.value.message


@pytest.fixture(scope="module")
def steady() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_module, "os", Disk(1000))
        yield


@pytest.mark.usefixtures("steady")
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, 400), st.lists(st.integers(0, 200), max_size=4)
        ),
        max_size=8,
    )
)
def test_whatever_uploads_do_the_reserved_bytes_are_the_sum_of_open_reservations(
    uploads: list[tuple[str, int, list[int]]],
) -> None:
    space = DiskSpace(0, 50)
    opened: list[Reservation] = []
    for client, size, writes in uploads:
        available = 1000 - 50 - space.reserved
        if max(size, 1) > available:
            assert refused(space, size)
            continue
        reservation = space.reserve(size, client)
        opened.append(reservation)
        for amount in writes:
            covered = reservation.covers(amount)
            try:
                reservation.use(amount)
            except Refusal:
                assert not covered
        assert space.reserved == sum(reservation.left for reservation in opened) <= 950
        assert space.accepts_uploads()
    for reservation in opened:
        reservation.close()
    assert space.reserved == 0


def test_what_other_processes_have_reserved_is_not_reserved_again(disk: Disk) -> None:
    table = ReservationTable(2)
    first, second = DiskSpace(0, 100, table, 0), DiskSpace(0, 100, table, 1)
    reservation = first.reserve(400, "a")
    assert refused(second, 501)
    other = second.reserve(200, "b")
    assert (first.reserved, second.reserved, table.total()) == (400, 200, 600)
    reservation.close()
    assert not refused(second, 700)
    other.close()


def test_what_a_client_holds_counts_in_every_process(disk: Disk) -> None:
    table = ReservationTable(2)
    first, second = DiskSpace(0, 0, table, 0), DiskSpace(0, 0, table, 1)
    first.reserve(1000, "a")
    assert second.reserve(500, "a").left == 0
    assert second.reserve(500, "b").left == 250


def test_what_a_process_had_reserved_ends_with_it(disk: Disk) -> None:
    table = ReservationTable(2)
    DiskSpace(0, 0, table, 0).reserve(100, "a")
    DiskSpace(0, 0, table, 1).reserve(200, "a")
    table.clear(0)
    assert (table.total(), table.held_by("a")) == (200, 200)


def test_reservations_are_seen_across_a_fork() -> None:
    program = (
        "import os\n"
        "from gateway.commit.disk import ReservationTable\n"
        "table = ReservationTable(2)\n"
        "if not os.fork():\n"
        "    table.add(1, 'a', 700)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(table.reserved(0), table.reserved(1), table.total(), table.held_by('a'))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout == b"0 700 700 700\n"
