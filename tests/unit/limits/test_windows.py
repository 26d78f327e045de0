"""Counts in fixed windows, by one process and by several."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from gateway.limits import locks
from gateway.limits.windows import FixedWindowCounters


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> int:
        return int(self.seconds * 1e9)


@pytest.fixture
def shared() -> Iterator[FixedWindowCounters]:
    counters = FixedWindowCounters(processes=4)
    yield counters
    counters.close()


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a process that ends after it; return its pid."""
    if pid := os.fork():
        return pid
    try:
        work()
    finally:
        os._exit(0)


def test_counters_are_bounded_and_the_one_that_ends_first_goes_first() -> None:
    counters = FixedWindowCounters(max_counters=8, clock=Clock())
    for number, key in enumerate("abcdefgh"):
        assert counters.increment(key, 100 - number)[0] == 1
    assert counters.increment("one more", 100)[0] == 1
    assert [counters.increment(key, 100)[0] for key in "abcdefg"] == [2] * 7
    assert counters.increment("h", 100)[0] == 1


def test_a_counter_whose_window_has_ended_makes_room() -> None:
    clock = Clock()
    counters = FixedWindowCounters(max_counters=8, clock=clock)
    for key in "abcdefgh":
        counters.increment(key, 10 if key == "a" else 1000)
    clock.seconds += 10
    counters.increment("one more", 100)
    assert [counters.increment(key, 1000)[0] for key in "bcdefgh"] == [2] * 7


def test_a_window_begins_with_its_first_request_and_its_count_ends_with_it() -> None:
    clock = Clock()
    counters = FixedWindowCounters(clock=clock)
    assert counters.increment("a", 10) == (1, 10.0)
    clock.seconds = 1004.0
    assert counters.increment("a", 10) == (2, 6.0)
    assert counters.increment("b", 10) == (1, 10.0)
    clock.seconds = 1010.0
    assert counters.increment("a", 10) == (1, 10.0)


def test_processes_that_count_at_once_lose_no_count(
    shared: FixedWindowCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 60.0)  # however busy the machine is
    children = [
        fork(lambda: [shared.increment("a", 3600) for _ in range(3000)]),
        fork(lambda: [shared.increment("a", 3600) for _ in range(3000)]),
    ]
    for _ in range(3000):
        shared.increment("a", 3600)
    for child in children:
        os.waitpid(child, 0)
    assert shared.increment("a", 3600)[0] == 9001


def test_a_process_that_is_killed_while_it_counts_holds_up_nobody(
    shared: FixedWindowCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 60.0)
    ready, told = os.pipe()

    def die_in_the_middle() -> None:
        def stop(*_: object) -> tuple[int, float]:
            os.write(told, b"x")
            signal.pause()
            raise AssertionError

        monkeypatch.setattr(shared, "_count", stop)
        shared.increment("a", 3600)

    child = fork(die_in_the_middle)
    os.read(ready, 1)
    os.kill(child, signal.SIGKILL)
    assert shared.increment("a", 3600)[0] == 1
    os.waitpid(child, 0)


def test_a_process_that_is_stopped_while_it_counts_holds_up_others_once(
    shared: FixedWindowCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared._locks is not None
    file, waits = shared._locks._file, []
    ready, told = os.pipe()

    def hold_all() -> None:
        fcntl.lockf(file, fcntl.LOCK_EX)
        os.write(told, b"x")
        signal.pause()

    child = fork(hold_all)
    os.read(ready, 1)
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 0.0)
    monkeypatch.setattr(locks, "UNLOCKED_TIME", 3600.0)
    monkeypatch.setattr(os, "sched_yield", lambda: waits.append(1))
    assert [shared.increment("a", 3600)[0] for _ in range(3)] == [1, 2, 3]
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 3600.0)
    assert shared.increment("a", 3600)[0] == 4
    assert not waits
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_count_is_read_without_counting() -> None:
    counters = FixedWindowCounters()
    assert counters.read("a") == (0, 0.0)
    counters.increment("a", 60)
    counters.increment("a", 60)
    counts = [counters.read("a")[0] for _ in range(3)]
    assert counts == [2, 2, 2]
    assert 0 < counters.read("a")[1] <= 60
    assert counters.read("b") == (0, 0.0)
