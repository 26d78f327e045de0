"""Tests of gateway.domain.schedules: which ticks a cron line and an interval have."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.schedules import Cron, Every, parse_cron, parse_every, zone

ROME = ZoneInfo("Europe/Rome")
MINUTES = st.sampled_from(["*", "*/7", "0", "5,35", "59"])
HOURS = st.sampled_from(["*", "*/2", "0", "1", "2", "3", "1-3"])
DAYS = st.sampled_from(["* * *", "1 * *", "* * SUN", "28-31 * *", "L * *", "* 3,10 *"])
ZONES = st.sampled_from(["UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe"])
AROUND_CHANGES = st.builds(
    lambda day, seconds: day.timestamp() + seconds,
    st.sampled_from([datetime(2026, month, day, tzinfo=UTC) for month, day in
                     ((3, 29), (10, 25), (3, 8), (11, 1), (4, 4), (10, 3), (6, 15))]),
    st.floats(-86400, 2 * 86400),
)  # fmt: skip


def at(text: str, tz: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone(tz)).timestamp())


def ticks(schedule: Cron | Every, after: int, count: int) -> list[str]:
    found = []
    for _ in range(count):
        following = schedule.next(after)
        assert following is not None
        after = following
        found.append(schedule.local(after).isoformat())
    return found


def test_a_cron_line_ticks_when_its_fields_fit() -> None:
    assert ticks(Cron("5 3 * * *"), at("2026-05-01T03:05"), 2) == [
        "2026-05-02T03:05:00+00:00",
        "2026-05-03T03:05:00+00:00",
    ]
    assert ticks(Cron("0 9 * * MON"), at("2026-05-01T00:00"), 1) == ["2026-05-04T09:00:00+00:00"]


def test_hours_are_those_of_the_time_zone() -> None:
    assert ticks(Cron("5 3 * * *", "Europe/Rome"), at("2026-05-01T00:00"), 1) == [
        "2026-05-01T03:05:00+02:00"
    ]


def test_a_tick_in_the_gap_of_spring_comes_once_right_behind_it() -> None:
    before = at("2026-03-28T12:00", "Europe/Rome")
    assert ticks(Cron("5,35 2 * * *", "Europe/Rome"), before, 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:05:00+02:00",
    ]


def test_a_tick_in_the_hour_that_autumn_repeats_comes_once() -> None:
    before = at("2026-10-24T12:00", "Europe/Rome")
    assert ticks(Cron("30 2 * * *", "Europe/Rome"), before, 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_in_the_repeated_hour_the_next_tick_is_never_one_that_is_over() -> None:
    repeated = datetime(2026, 10, 25, 2, 10, tzinfo=ROME, fold=1).timestamp()
    following = Cron("30 2 * * *", "Europe/Rome").next(repeated)
    assert following == at("2026-10-26T02:30", "Europe/Rome")


def test_a_start_in_the_hour_that_clocks_repeat_makes_up_for_the_tick_before_it() -> None:
    missed = datetime(2026, 10, 25, 2, 30, tzinfo=ROME).timestamp()
    for minute in (0, 10, 29, 30, 31, 59):
        started = datetime(2026, 10, 25, 2, minute, tzinfo=ROME, fold=1).timestamp()
        assert Cron("30 2 * * *", "Europe/Rome", catch_up=True).latest(started) == missed


@given(MINUTES, HOURS, DAYS, ZONES, AROUND_CHANGES)
def test_no_tick_lies_between_the_latest_and_now(
    minutes: str, hours: str, days: str, tz: str, now: float
) -> None:
    cron = Cron(f"{minutes} {hours} {days}", tz)
    following = cron.next(cron.latest(now))
    assert following is not None
    assert following > now


def test_a_line_for_every_hour_follows_the_clock_through_the_repeated_hour() -> None:
    before = datetime(2026, 10, 25, 1, 30, tzinfo=ROME).timestamp()
    assert ticks(Cron("0 * * * *", "Europe/Rome"), int(before), 3) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


@given(MINUTES, HOURS, DAYS, ZONES, AROUND_CHANGES)
def test_next_and_latest_agree_on_every_tick(
    minutes: str, hours: str, days: str, tz: str, now: float
) -> None:
    cron = Cron(f"{minutes} {hours} {days}", tz)
    following = cron.next(now)
    assert following is not None
    assert cron.latest(now) <= now < following
    assert cron.latest(following) == following
    assert cron.latest(following - 1) < following
    assert cron.next(following - 1) == following


def test_an_interval_counts_from_the_epoch_so_that_all_nodes_agree() -> None:
    every = Every(900)
    assert every.latest(1000.5) == 900
    assert every.next(1000.5) == 1800
    assert (every.latest(900), every.next(900)) == (900, 1800)


def test_a_day_that_never_comes_is_neither_next_nor_latest() -> None:
    never = Cron("0 0 */31 * MON#2")
    assert (never.next(0), never.latest(0)) == (None, 0)


def test_white_space_in_a_line_does_not_matter() -> None:
    assert parse_cron(" 5  3 * * *\n") == "5 3 * * *"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "needs five fields .* and has 0"),
        ("5 3 * *", "needs five fields .* and has 4"),
        ("@daily", "needs five fields"),
        ("0 5 3 * * *", "has 6; `every: 10s` is for seconds"),
        ("60 3 * * *", "invalid cron expression: bad minute field"),
        ("5 24 * * *", "bad hour field"),
        ("5 3 0 * *", "bad day-of-month field"),
        ("5 3 * 13 *", "bad month field"),
        ("5 3 * * 8", "bad day-of-week field"),
        ("5 3 30 2 *", "bad day-of-month field"),
        ("*/0 * * * *", "invalid cron expression: bad minute field"),
        ("0 0 */31 * MON#2", "never matches a date"),
        ("1" * 300, "longer than 200"),
    ],
)
def test_a_wrong_line_is_told_by_its_field(line: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_cron(line)


def test_intervals_have_a_unit() -> None:
    assert [parse_every(text) for text in ("10s", "15m", "1h", "7d")] == [10, 900, 3600, 604800]


@pytest.mark.parametrize("text", ["", "15", "0s", "-1s", "1.5h", "1w", "15 m", "367d", "1h30m", "١s"])
def test_a_wrong_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 15m: 1s to 366d"):
        parse_every(text)


@pytest.mark.parametrize("name", ["", "Europe", "Europe/Rom", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="such as Europe/Rome"):
        zone(name)
