"""Durations, sizes and times as people and JSON write them."""

from __future__ import annotations

import pytest

from gateway.domain.units import (
    count_up_to,
    format_duration,
    iso_time,
    parse_duration,
    parse_rate,
    parse_size,
    unix_time,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("15m", 900),
        ("2h", 7200),
        ("7d", 604_800),
        ("1w", 604_800),
    ],
)
def test_a_duration_counts_in_its_unit_and_else_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1 day", "1mo", "1e3", "inf", "nan", "\u0661m"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="30s, 15m, 12h or 7d"):
        parse_duration(text)


def test_a_duration_is_shown_in_the_largest_unit_that_is_exact() -> None:
    shown = [format_duration(seconds) for seconds in (0.0, 30.0, 60.0, 90.0, 7200.0, 604_800.0)]
    assert shown == ["0s", "30s", "1m", "90s", "2h", "7d"]
    assert [parse_duration(text) for text in shown[1:]] == [30, 60, 90, 7200, 604_800]


def test_a_size_counts_in_powers_of_1024_and_with_a_b_of_1000() -> None:
    assert parse_size("10G") == parse_size("10GiB") == 10 << 30
    assert parse_size("9007199254740993") == 9_007_199_254_740_993
    assert parse_size("10 MB") == 10_000_000


def test_a_time_is_told_in_utc_and_read_back() -> None:
    assert iso_time(1_795_868_516.25) == "2026-11-28T12:21:56.250Z"
    assert unix_time("2026-11-28T12:21:56.250Z") == unix_time("1795868516.25") == 1_795_868_516.25
    assert iso_time(1e300) == "9999-12-31T23:59:59.000Z"
    with pytest.raises(ValueError, match="before 1970"):
        unix_time("-1")


@pytest.mark.parametrize("text", ["1_0", "+5", " 5", "\u0663", "inf", "nan", "0x10", ""])
def test_a_time_is_a_number_as_json_writes_it_or_an_iso_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unix_time(text)
    assert unix_time("5") == unix_time("5.0") == unix_time("0.5e1") == 5.0


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/m", (10, 60)), ("5/s", (5, 1)), ("1000/d", (1000, 86_400)), ("100/30s", (100, 30))],
)
def test_a_rate_is_a_number_of_requests_in_a_time(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate
    assert str(parse_rate(text)) == text


@pytest.mark.parametrize(
    "text", ["", "10", "10/", "/m", "0/m", "-1/m", "1.5/m", "10/0s", "10/mo", "10/60d", "\u0661/m"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.0", "101", "0100000", "00000001" * 700, "\u0661"])
def test_what_is_no_number_up_to_the_limit_is_none(text: str) -> None:
    assert count_up_to(text, 100) is None


def test_a_number_up_to_the_limit_is_read() -> None:
    assert [count_up_to(text, 100) for text in ("1", "007", "100")] == [1, 7, 100]
