"""Counting requests in fixed windows."""

from __future__ import annotations

from gateway.endpoints.routing.admission import FixedWindowCounters


def test_counters_are_bounded_and_the_oldest_go_first() -> None:
    counters = FixedWindowCounters(max_counters=2, clock=lambda: 0.0)
    assert [counters.increment(key, 100)[0] for key in ("a", "b", "c")] == [1, 1, 1]
    assert [counters.increment(key, 100)[0] for key in ("b", "c")] == [2, 2]
    assert counters.increment("a", 100)[0] == 1


def test_a_window_begins_with_its_first_request_and_its_count_ends_with_it() -> None:
    now = 1000.0
    counters = FixedWindowCounters(clock=lambda: now)
    assert counters.increment("a", 10) == (1, 10.0)
    now = 1004.0
    assert counters.increment("a", 10) == (2, 6.0)
    now = 1010.0
    assert counters.increment("a", 10) == (1, 10.0)
