"""Whose turn it is: round robin, and how long a failed upstream is left alone."""

from __future__ import annotations

from gateway.endpoints.routing.upstreams import Upstreams


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_gets_its_turn_and_the_others_stand_behind_it() -> None:
    upstreams = Upstreams()
    assert [upstreams.order("abc") for _ in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]
    ]  # fmt: skip


def test_routes_take_their_turns_apart() -> None:
    upstreams = Upstreams()
    firsts = [(upstreams.order("ab")[0], upstreams.order("cd")[0]) for _ in range(2)]
    assert firsts == [("a", "c"), ("b", "d")]


def test_one_that_failed_is_left_alone_for_five_seconds_then_twice_as_long_up_to_a_minute() -> None:
    clock = Clock()
    upstreams = Upstreams(clock)
    waits = []
    for _ in range(6):
        upstreams.mark_failed("a")
        failed = clock.now
        while "a" not in upstreams.order("ab"):
            clock.now += 1
        waits.append(clock.now - failed)
    assert waits == [5, 10, 20, 40, 60, 60]


def test_when_its_time_is_over_a_single_request_tries_it() -> None:
    clock = Clock()
    upstreams = Upstreams(clock)
    upstreams.mark_failed("a")
    clock.now += 5
    assert "a" in upstreams.order("ab")
    upstreams.mark_trying("a")
    assert upstreams.order("ab") == ["b"]
    upstreams.mark_working("a")
    assert sorted(upstreams.order("ab")) == ["a", "b"]


def test_where_all_have_failed_the_one_that_failed_first_is_tried() -> None:
    clock = Clock()
    upstreams = Upstreams(clock)
    for name in "bac":
        upstreams.mark_failed(name)
        clock.now += 1
    assert upstreams.order("abc") == ["b"]
    upstreams.mark_failed("b")
    assert upstreams.order("abc") == ["a"]
