"""Which partial uploads a sweep removes: the clock may jump, the disk may be full."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commit.disk import DiskSpace
from gateway.commit.partial_expiry import CONFIRM_INTERVAL, MIN_IDLE, PartialExpiry
from gateway.domain.partial import MAX_PARTIAL_AGE, PARTIAL_TTL
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.partial_files import PartialFile
from gateway.storage.local.partial_opening import create_partial
from tests.support.partials import partial_head

HOUR = 3600.0


class Sweeper:
    """Sweeps with clocks of its own; `free` tells whether the disk has room."""

    def __init__(self, folder: Path) -> None:
        self.folder = PartialDirectory(folder)
        self.steady = 1000.0
        self.now = time.time()
        self.free = True
        self.unreachable: set[str] = set()
        space = DiskSpace(self.folder.fd, 0)
        space.accepts_uploads = lambda: self.free  # type: ignore[method-assign]
        self.expiry = PartialExpiry(self.folder, space, lambda: self.steady)

    def create(self, age: float = 0.0) -> str:
        """Create a partial upload whose latest byte came so many seconds ago."""
        file = create_partial(self.folder, partial_head(length=9), 0o640, 0o022)
        file.close()
        self.touch(file.upload_id, self.now - age)
        return file.upload_id

    def touch(self, upload_id: str, latest: float) -> None:
        """Let the latest byte have come at a time."""
        os.utime(upload_id, (latest, latest), dir_fd=self.folder.fd)

    def open(self, upload_id: str) -> PartialFile:
        head = self.folder.read_head(upload_id)
        assert head is not None
        lock = self.folder.lock(upload_id)
        assert lock is not None
        return PartialFile(self.folder, head, self.folder.open(upload_id, 2), lock)

    def look(self) -> None:
        """See all that is there."""
        for upload_id in list(self.folder.upload_ids()):
            status = self.folder.status(upload_id)
            assert status is not None
            is_expired, is_unreachable = status.expires <= self.now, upload_id in self.unreachable
            self.expiry.see(
                upload_id, status.latest, is_expired=is_expired, is_unreachable=is_unreachable
            )
        self.expiry.end()

    def sweep(self, later: float = 0.0, steady: float | None = None) -> list[str]:
        """Sweep so many seconds later, by both clocks unless `steady` tells another time."""
        self.now += later
        self.steady += later if steady is None else steady
        self.look()
        removed = []
        while (status := self.expiry.remove_next()) is not None:
            removed.append(status.head.upload.id)
        return removed


@pytest.fixture
def sweeper(tmp_path: Path) -> Iterator[Sweeper]:
    opened = Sweeper(tmp_path / "partials")
    yield opened
    opened.folder.close()


def test_an_upload_without_a_byte_for_a_day_is_removed(sweeper: Sweeper) -> None:
    young, old = sweeper.create(PARTIAL_TTL - 2 * HOUR), sweeper.create(PARTIAL_TTL + HOUR)
    assert sweeper.sweep() == []
    assert sweeper.sweep(CONFIRM_INTERVAL - 1) == []
    assert sweeper.sweep(1) == [old]
    assert sweeper.sweep(HOUR / 2) == []
    assert sweeper.sweep(HOUR) == []  # it is found expired for the first time
    assert sweeper.sweep(HOUR) == [young]


def test_a_clock_that_is_ahead_at_a_start_costs_nothing_once_it_is_set(sweeper: Sweeper) -> None:
    for _ in range(3):
        sweeper.create()
    sweeper.now += 3650 * 24 * HOUR
    assert sweeper.sweep() == []
    assert sweeper.sweep(60) == []
    assert sweeper.sweep(-3650 * 24 * HOUR, steady=HOUR) == []
    assert sweeper.sweep(HOUR) == []


def test_a_young_upload_survives_a_jump_of_days_where_its_client_goes_on(sweeper: Sweeper) -> None:
    upload_id = sweeper.create()
    assert sweeper.sweep() == []
    assert sweeper.sweep(3 * 24 * HOUR, steady=HOUR) == []  # the clock jumped
    sweeper.touch(upload_id, sweeper.now)
    assert sweeper.sweep(HOUR) == []


def test_a_clock_that_was_ahead_when_the_bytes_came_keeps_nothing_for_ever(sweeper: Sweeper) -> None:
    upload_id = sweeper.create(age=-3650 * 24 * HOUR)
    assert sweeper.sweep() == []
    assert sweeper.sweep(PARTIAL_TTL - HOUR) == []
    assert sweeper.sweep(HOUR) == [upload_id]


def test_an_upload_ends_a_week_after_its_creation_whatever_comes(sweeper: Sweeper) -> None:
    upload_id = sweeper.create()
    sweeper.touch(upload_id, sweeper.now + MAX_PARTIAL_AGE - HOUR)
    assert sweeper.sweep(MAX_PARTIAL_AGE + 60, steady=HOUR) == []
    sweeper.touch(upload_id, sweeper.now)
    assert sweeper.sweep(HOUR) == [upload_id]


def test_an_open_upload_is_not_removed(sweeper: Sweeper) -> None:
    upload_id = sweeper.create(2 * PARTIAL_TTL)
    opened = sweeper.open(upload_id)
    assert sweeper.sweep() == []
    assert sweeper.sweep(HOUR) == []
    opened.close()
    assert sweeper.sweep(HOUR) == [upload_id]


def test_an_upload_that_no_request_can_reach_is_removed_at_once_unless_it_is_open(
    sweeper: Sweeper,
) -> None:
    reachable, left, created_now = sweeper.create(), sweeper.create(), sweeper.create()
    creating = sweeper.open(created_now)
    sweeper.unreachable = {left, created_now}
    assert sweeper.sweep() == [left]
    creating.close()
    assert sweeper.sweep(60) == [created_now]
    assert list(sweeper.folder.upload_ids()) == [reachable]


def test_on_a_full_disk_the_oldest_idle_ones_go_first(sweeper: Sweeper) -> None:
    ages = {sweeper.create(age): age for age in (30.0, 9000.0, 600.0, 4000.0)}
    assert sweeper.sweep() == []
    sweeper.free = False
    assert sweeper.sweep(MIN_IDLE - 1) == []
    active = next(upload_id for upload_id, age in ages.items() if age == 600.0)
    sweeper.touch(active, sweeper.now)
    removed = sweeper.sweep(1)
    assert [ages[upload_id] for upload_id in removed] == [9000.0, 4000.0, 30.0]
    assert list(sweeper.folder.upload_ids()) == [active]


def test_on_a_full_disk_no_more_is_removed_than_has_to_be(sweeper: Sweeper) -> None:
    for age in (1000.0, 2000.0, 3000.0):
        sweeper.create(age)
    sweeper.sweep()
    sweeper.free = False
    sweeper.now, sweeper.steady = sweeper.now + MIN_IDLE, sweeper.steady + MIN_IDLE
    sweeper.look()
    assert sweeper.expiry.remove_next() is not None
    sweeper.free = True
    assert sweeper.expiry.remove_next() is None
    assert len(list(sweeper.folder.upload_ids())) == 2
