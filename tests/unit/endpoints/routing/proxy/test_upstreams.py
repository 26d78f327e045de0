"""Which upstream is next: fair turns, and how long a failed upstream is suspended."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.endpoints.routing.proxy.upstreams import MAX_FAILURES, Upstreams, UpstreamTries
from gateway.errors import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(upstreams: Upstreams, name: str, *, connected: bool = False) -> float:
    attempt = upstreams.begin(name)
    seconds = upstreams.fail(attempt, connected=connected)
    upstreams.end(attempt)
    return seconds


def test_each_gets_its_turn_and_the_others_stand_behind_it() -> None:
    upstreams = Upstreams()
    assert [upstreams.order("abc") for _ in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]
    ]  # fmt: skip


def test_routes_take_their_turns_apart() -> None:
    upstreams = Upstreams()
    firsts = [(upstreams.order("ab")[0], upstreams.order("cd")[0]) for _ in range(2)]
    assert firsts == [("a", "c"), ("b", "d")]


def test_the_share_of_a_suspended_one_is_spread_evenly() -> None:
    upstreams = Upstreams()
    fail(upstreams, "c")
    assert Counter(upstreams.order("abcd")[0] for _ in range(9)) == {"a": 3, "b": 3, "d": 3}


def test_one_that_is_listed_more_often_has_more_turns_and_is_tried_once() -> None:
    upstreams = Upstreams()
    orders = [upstreams.order("aab") for _ in range(3)]
    assert orders == [["a", "b"], ["a", "b"], ["b", "a"]]


def test_one_that_cannot_be_reached_is_suspended_for_five_seconds_then_twice_as_long_each_time() -> None:
    clock = Clock()
    upstreams = Upstreams(clock)
    waits = []
    for _ in range(6):
        told, failed = fail(upstreams, "a"), clock.now
        while "a" not in upstreams.order("ab"):
            clock.now += 1
        waits.append(clock.now - failed)
        assert told == waits[-1]
    assert waits == [5, 10, 20, 40, 60, 60]


def test_requests_without_a_response_suspend_it_only_one_after_the_other() -> None:
    upstreams = Upstreams()
    for _ in range(3):
        for _ in range(MAX_FAILURES - 1):
            assert fail(upstreams, "a", connected=True) == 0
        assert not upstreams.succeed(upstreams.begin("a"))
    assert "a" in upstreams.order("ab")
    assert [fail(upstreams, "a", connected=True) for _ in range(MAX_FAILURES)] == [0, 0, 5]
    assert upstreams.order("ab") == ["b"]
    assert upstreams.succeed(upstreams.begin("a"))
    assert "a" in upstreams.order("ab")


def test_requests_that_fail_together_suspend_it_once() -> None:
    clock = Clock()
    upstreams = Upstreams(clock)
    attempts = [upstreams.begin("a") for _ in range(100)]
    clock.now += 1
    told = [upstreams.fail(attempt, connected=True) for attempt in attempts]
    assert [seconds for seconds in told if seconds] == [5]


def test_when_its_time_is_over_a_single_request_probes_it_however_long_that_takes() -> None:
    clock = Clock()
    upstreams = Upstreams(clock)
    fail(upstreams, "a")
    clock.now += 5
    assert "a" in upstreams.order("ab")
    probe = upstreams.begin("a")
    clock.now += 100
    assert upstreams.order("ab") == ["b"]
    upstreams.end(probe)  # the client has left: nothing is known yet
    assert "a" in upstreams.order("ab")
    probe = upstreams.begin("a")
    assert upstreams.fail(probe, connected=True) == 10
    upstreams.end(probe)
    clock.now += 10
    probe = upstreams.begin("a")
    assert upstreams.succeed(probe)
    upstreams.end(probe)
    assert sorted(upstreams.order("ab")) == ["a", "b"]


def test_where_all_have_failed_the_one_that_failed_first_is_tried() -> None:
    clock = Clock()
    upstreams = Upstreams(clock)
    for name in "bac":
        fail(upstreams, name)
        clock.now += 1
    assert upstreams.order("abc") == ["b"]
    fail(upstreams, "b")
    assert upstreams.order("abc") == ["a"]


# -- the tries of one request


def failure(*, connected: bool, closed: bool = False) -> UpstreamFailed:
    return UpstreamFailed(Refusal("bad_gateway", "no"), connected=connected, closed=closed)


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_request_that_was_not_sent_goes_to_every_upstream_once(repeatable: bool) -> None:
    tries = UpstreamTries(["a", "b"], repeatable=repeatable)
    assert tries.next() == "a"
    tries.go_on("a", failure(connected=False))
    assert tries.next() == "b"
    with pytest.raises(Refusal):
        tries.go_on("b", failure(connected=False))


@pytest.mark.parametrize("closed", [False, True])
def test_a_request_that_may_have_arrived_and_may_not_be_repeated_ends_there(closed: bool) -> None:
    tries = UpstreamTries(["a", "b"], repeatable=False)
    with pytest.raises(Refusal):
        tries.go_on(tries.next(), failure(connected=True, closed=closed))


def test_a_request_that_may_be_repeated_is_so_once_and_elsewhere_if_there_is_another() -> None:
    tries = UpstreamTries(["a", "b", "c"], repeatable=True)
    tries.go_on(tries.next(), failure(connected=True, closed=True))
    assert tries.next() == "b"
    with pytest.raises(Refusal):
        tries.go_on("b", failure(connected=True, closed=True))


def test_the_only_upstream_gets_a_request_again_if_it_closed_the_connection() -> None:
    tries = UpstreamTries(["a"], repeatable=True)
    tries.go_on(tries.next(), failure(connected=True, closed=True))
    assert tries.next() == "a"
    silent = UpstreamTries(["a"], repeatable=True)
    with pytest.raises(Refusal):
        silent.go_on(silent.next(), failure(connected=True))
