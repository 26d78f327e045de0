"""Which upstream is next: fair turns, and how long a failed upstream is suspended."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.endpoints.routing.proxy.upstream_groups import Upstreams
from gateway.endpoints.routing.proxy.upstreams import UpstreamGroup, UpstreamTries
from gateway.endpoints.routing.rules import DEFAULT_PASSIVE, ActiveHealth, PassiveHealth
from gateway.errors import Refusal

HEALTH = ActiveHealth("/health", every=2.5, expect=frozenset({200}), timeout=1)


def route(name: str) -> Route:
    return Route(name, "x:1", "/", "/", ("a", "b"), "http", "none", {})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def group(
    names: str, *, passive: PassiveHealth = DEFAULT_PASSIVE, health: ActiveHealth | None = None
) -> UpstreamGroup:
    made = UpstreamGroup(names, passive, health)
    made.clock = Clock()
    return made


def clock(upstreams: UpstreamGroup) -> Clock:
    assert isinstance(upstreams.clock, Clock)
    return upstreams.clock


def fail(upstreams: UpstreamGroup, name: str, *, connected: bool = False) -> float:
    attempt = upstreams.begin(name)
    seconds = upstreams.fail(attempt, connected=connected)
    upstreams.end(attempt)
    return seconds


def ready(upstreams: UpstreamGroup) -> set[str]:
    """Return what is picked, one after the other."""
    tried: list[str] = []
    while (name := upstreams.pick((), tried)) is not None:
        tried.append(name)
    return set(tried)


# -- turns


def test_each_gets_its_turn() -> None:
    upstreams = group("abc")
    assert [upstreams.pick() for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


@pytest.mark.parametrize("weights", [(5, 1, 1), (1, 2, 3), (7, 3, 11), (1, 1000, 500)])
def test_shares_are_exactly_those_of_the_weights(weights: tuple[int, ...]) -> None:
    upstreams = group("abc")
    for _ in range(3):
        picked = Counter(upstreams.pick(weights) for _ in range(sum(weights)))
        assert picked == dict(zip("abc", weights, strict=True))


def test_turns_of_a_heavy_one_are_spread_among_those_of_the_others() -> None:
    upstreams = group("abc")
    assert [upstreams.pick((5, 1, 1)) for _ in range(7)] == ["a", "a", "b", "a", "c", "a", "a"]


@pytest.mark.parametrize("before", range(7))
def test_the_share_of_one_that_is_out_is_spread_by_weight_whenever_it_fails(before: int) -> None:
    upstreams = group("abcd")
    for _ in range(before):
        upstreams.pick((1, 1, 2, 3))
    fail(upstreams, "d")
    picked = Counter(upstreams.pick((1, 1, 2, 3)) for _ in range(400))
    assert picked.pop("c") in range(197, 204)
    assert set(picked) == {"a", "b"}
    assert all(count in range(97, 104) for count in picked.values())


def test_requests_that_one_fails_are_spread_over_all_others() -> None:
    upstreams = group("abc", passive=PassiveHealth(failures=1000))
    picked: Counter[str] = Counter()
    for _ in range(300):
        tries = UpstreamTries(upstreams, repeatable=True)
        name = tries.next()
        if name == "a":
            attempt = upstreams.begin(name)
            upstreams.fail(attempt, connected=True)
            tries.go_on(name, failure(connected=True))
            name = tries.next()
        picked[name] += 1
    assert abs(picked["b"] - picked["c"]) <= 2, picked


def test_routes_of_other_weights_take_their_turns_apart() -> None:
    upstreams = group("ab")
    assert [(upstreams.pick(), upstreams.pick((2, 1))) for _ in range(3)] == [
        ("a", "a"), ("b", "b"), ("a", "a")
    ]  # fmt: skip


# -- suspensions


def test_one_that_cannot_be_reached_is_suspended_for_five_seconds_then_twice_as_long_each_time() -> None:
    assert waits_of(group("ab"), 6) == [5, 10, 20, 40, 60, 60]


def test_the_time_of_a_suspension_can_be_set_and_doubles_to_a_minute_or_stays() -> None:
    assert waits_of(group("ab", passive=PassiveHealth(aside=17)), 4) == [17, 34, 60, 60]
    assert waits_of(group("ab", passive=PassiveHealth(aside=100)), 3) == [100, 100, 100]


def waits_of(upstreams: UpstreamGroup, count: int) -> list[float]:
    time, waits = clock(upstreams), []
    for _ in range(count):
        told, failed = fail(upstreams, "a"), time.now
        while "a" not in ready(upstreams):
            time.now += 1
        waits.append(time.now - failed)
        assert told == waits[-1]
    return waits


@pytest.mark.parametrize("count", [1, 3, 7])
def test_requests_without_a_response_suspend_it_only_one_after_the_other(count: int) -> None:
    upstreams = group("ab", passive=PassiveHealth(failures=count))
    for _ in range(3):
        for _ in range(count - 1):
            assert fail(upstreams, "a", connected=True) == 0
        assert not upstreams.succeed(upstreams.begin("a"))
    assert "a" in ready(upstreams)
    assert [fail(upstreams, "a", connected=True) for _ in range(count)] == [0] * (count - 1) + [5]
    assert ready(upstreams) == {"b"}
    assert not upstreams.is_up("a")
    assert upstreams.succeed(upstreams.begin("a"))
    assert "a" in ready(upstreams)
    assert upstreams.is_up("a")


def test_requests_that_fail_together_suspend_it_once() -> None:
    upstreams = group("ab")
    attempts = [upstreams.begin("a") for _ in range(100)]
    clock(upstreams).now += 1
    told = [upstreams.fail(attempt, connected=True) for attempt in attempts]
    assert [seconds for seconds in told if seconds] == [5]


def test_when_its_time_is_over_a_single_request_probes_it_however_long_that_takes() -> None:
    upstreams = group("ab")
    fail(upstreams, "a")
    clock(upstreams).now += 5
    assert "a" in ready(upstreams)
    probe = upstreams.begin("a")
    clock(upstreams).now += 100
    assert ready(upstreams) == {"b"}
    upstreams.end(probe)  # the client has left: nothing is known yet
    assert "a" in ready(upstreams)
    probe = upstreams.begin("a")
    assert upstreams.fail(probe, connected=True) == 10
    upstreams.end(probe)
    clock(upstreams).now += 10
    probe = upstreams.begin("a")
    assert upstreams.succeed(probe)
    upstreams.end(probe)
    assert ready(upstreams) == {"a", "b"}


def test_where_all_have_failed_the_one_that_failed_first_is_tried() -> None:
    upstreams = group("abc")
    for name in "bac":
        fail(upstreams, name)
        clock(upstreams).now += 1
    assert UpstreamTries(upstreams, repeatable=True).next() == "b"
    fail(upstreams, "b")
    assert UpstreamTries(upstreams, repeatable=True).next() == "a"


# -- probes


def test_a_probe_that_fails_takes_one_out_and_one_that_succeeds_brings_it_back() -> None:
    upstreams = group("ab", health=HEALTH)
    assert not upstreams.report("a", works=True)
    assert upstreams.report("a", works=False)
    assert not upstreams.report("a", works=False)
    assert ready(upstreams) == {"b"}
    assert not upstreams.is_up("a")
    assert not upstreams.succeed(upstreams.begin("a"))  # a request from before: the probe decides
    assert ready(upstreams) == {"b"}
    assert upstreams.report("a", works=True)
    assert ready(upstreams) == {"a", "b"}


def test_a_probe_that_succeeds_ends_what_requests_have_suspended() -> None:
    upstreams = group("ab", health=HEALTH)
    fail(upstreams, "a")
    assert ready(upstreams) == {"b"}
    assert upstreams.report("a", works=True)
    assert ready(upstreams) == {"a", "b"}


@pytest.mark.parametrize("names", ["a", "ab"])
@pytest.mark.parametrize("how", ["probes", "connections"])
def test_where_probes_or_connections_of_all_fail_there_is_a_refusal_at_once(
    names: str, how: str
) -> None:
    upstreams = group(names, health=HEALTH)
    for name in names:
        if how == "probes":
            upstreams.report(name, works=False)
        else:
            fail(upstreams, name)
    with pytest.raises(Refusal) as refused:
        UpstreamTries(upstreams, repeatable=True).next()
    assert refused.value.code == "upstreams_unavailable"
    assert refused.value.headers["Retry-After"] == "3"
    upstreams.report(names[-1], works=True)
    assert UpstreamTries(upstreams, repeatable=True).next() == names[-1]


def test_an_outage_is_as_long_as_no_request_was_sent_over_all_its_suspensions() -> None:
    upstreams = group("ab", health=HEALTH)
    assert upstreams.down_for("a") is None
    fail(upstreams, "a")
    clock(upstreams).now += 6
    assert upstreams.down_for("a") is None  # the next request tries it
    fail(upstreams, "a")
    clock(upstreams).now += 1
    assert upstreams.down_for("a") == 7
    upstreams.report("b", works=False)
    clock(upstreams).now += 2
    upstreams.report("b", works=False)
    assert upstreams.down_for("b") == 2
    for name in "ab":
        upstreams.report(name, works=True)
        assert upstreams.down_for(name) is None


def test_outages_are_told_once_for_all_routes_that_share_them() -> None:
    upstreams = Upstreams()
    one, two, other = route("one"), route("two"), replace(route("other"), scheme="https")
    upstreams.follow([one, two, other])
    upstreams.of_route(two).report("b", works=False)
    [(label, upstream, _)] = upstreams.outages()
    assert (label, upstream) == ("one", "b")
    assert upstreams.group(one) == upstreams.group(two) == "one"
    assert upstreams.group(other) == "other"


def test_where_only_requests_have_failed_no_client_can_make_a_route_unavailable() -> None:
    upstreams = group("ab", health=HEALTH)
    for name in "ba":
        for _ in range(3):
            fail(upstreams, name, connected=True)
        clock(upstreams).now += 1
    assert UpstreamTries(upstreams, repeatable=True).next() == "b"


# -- the groups of routes


def test_routes_with_equal_settings_share_what_is_known_and_others_do_not() -> None:
    upstreams, one = Upstreams(), route("one")
    same, other = replace(route("two"), weights=(1, 2)), replace(route("three"), scheme="https")
    assert upstreams.of_route(one) is upstreams.of_route(same)
    assert upstreams.of_route(one) is not upstreams.of_route(other)
    stricter = replace(route("four"), passive=PassiveHealth(failures=1))
    assert upstreams.of_route(one) is not upstreams.of_route(stricter)


def test_a_reload_that_leaves_the_settings_keeps_what_is_known_and_forgets_what_is_gone() -> None:
    upstreams = Upstreams()
    kept, gone = route("kept"), replace(route("gone"), upstreams=("c", "d"))
    for each in (kept, gone):
        fail(upstreams.of_route(each), each.upstreams[0])
    after = replace(kept, weights=(3, 1))
    assert upstreams.follow([after]) == {upstreams.of_route(after): after}
    assert upstreams.up() == {("kept", "a"): 0, ("kept", "b"): 1}
    assert ready(upstreams.of_route(after)) == {"b"}
    assert ready(upstreams.of_route(gone)) == {"c", "d"}


def test_an_upstream_that_is_down_is_told_with_all_its_routes_however_many() -> None:
    upstreams, names = Upstreams(), [f"r{number}" for number in range(1200)]
    fail(upstreams.of_route(route(names[0])), "a")
    upstreams.follow([route(name) for name in names])
    assert upstreams.down() == {"a": names}


# -- the tries of one request


def failure(*, connected: bool, closed: bool = False) -> UpstreamFailed:
    return UpstreamFailed(Refusal("bad_gateway", "no"), connected=connected, closed=closed)


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_request_that_was_not_sent_goes_to_every_upstream_once(repeatable: bool) -> None:
    tries = UpstreamTries(group("ab"), repeatable=repeatable)
    assert tries.next() == "a"
    tries.go_on("a", failure(connected=False))
    assert tries.next() == "b"
    with pytest.raises(Refusal):
        tries.go_on("b", failure(connected=False))


@pytest.mark.parametrize("closed", [False, True])
def test_a_request_that_may_have_arrived_and_may_not_be_repeated_ends_there(closed: bool) -> None:
    tries = UpstreamTries(group("ab"), repeatable=False)
    with pytest.raises(Refusal):
        tries.go_on(tries.next(), failure(connected=True, closed=closed))


def test_a_request_that_may_be_repeated_is_so_once_and_elsewhere_if_there_is_another() -> None:
    tries = UpstreamTries(group("abc"), repeatable=True)
    tries.go_on(tries.next(), failure(connected=True, closed=True))
    assert tries.next() == "b"
    with pytest.raises(Refusal):
        tries.go_on("b", failure(connected=True, closed=True))


def test_the_only_upstream_gets_a_request_again_if_it_closed_the_connection() -> None:
    tries = UpstreamTries(group("a"), repeatable=True)
    tries.go_on(tries.next(), failure(connected=True, closed=True))
    assert tries.next() == "a"
    silent = UpstreamTries(group("a"), repeatable=True)
    with pytest.raises(Refusal):
        silent.go_on(silent.next(), failure(connected=True))


def test_a_response_that_is_a_failure_goes_to_the_client_where_no_other_upstream_is_ready() -> None:
    upstreams = group("abc")
    tries = UpstreamTries(upstreams, repeatable=True)
    assert tries.next() == "a"
    assert tries.repeat()
    assert tries.next() == "b"
    assert not tries.repeat()  # once
    fail(upstreams, "b")
    fail(upstreams, "c")
    alone = UpstreamTries(upstreams, repeatable=True)
    assert alone.next() == "a"
    assert not alone.repeat()
    assert not UpstreamTries(group("ab"), repeatable=False).repeat()
