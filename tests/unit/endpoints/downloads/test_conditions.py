"""Preconditions: RFC 9110 section 13, one by one and in their order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.downloads.negotiation import if_range_holds, is_not_modified, parse_http_date
from gateway.errors import Refusal

ETAG = "abc"
MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
THEN = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"


@pytest.mark.parametrize(
    "text", [THEN, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", f" {THEN}\t"]
)
def test_all_three_forms_of_a_date_are_read(text: str) -> None:
    assert parse_http_date(text) == MODIFIED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "784111777",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        f"{THEN}, {THEN}",
    ],
)
def test_what_is_no_date_counts_as_nothing(text: str) -> None:
    assert parse_http_date(text) is None
    assert not is_not_modified({"If-Modified-Since": text}, ETAG, MODIFIED)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))
def test_every_date_that_is_written_is_read(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC, microsecond=0)
    assert parse_http_date(moment.strftime("%a, %d %b %Y %H:%M:%S GMT")) == int(moment.timestamp())


def test_a_leap_second_is_the_second_before() -> None:
    leap, before = (parse_http_date(f"Fri, 31 Dec 2027 23:59:{second} GMT") for second in (60, 59))
    assert leap == before is not None


def test_two_digits_of_a_year_mean_the_nearest_century() -> None:
    this = datetime.now(UTC).year
    for year in (this - 49, this, this + 50):
        found = parse_http_date(f"Sunday, 06-Nov-{year % 100:02} 08:49:37 GMT")
        assert found is not None
        assert datetime.fromtimestamp(found, UTC).year == year


@pytest.mark.parametrize(
    ("headers", "fresh"),
    [
        ({}, False),
        ({"If-None-Match": '"abc"'}, True),
        ({"If-None-Match": 'W/"abc"'}, True),
        ({"If-None-Match": '"x", W/"y" ,"abc"'}, True),
        ({"If-None-Match": ', "abc",,'}, True),
        ({"If-None-Match": "*"}, True),
        ({"If-None-Match": '"x,abc"'}, False),
        ({"If-None-Match": "abc"}, False),
        ({"If-None-Match": '"abc" "x"'}, False),
        ({"If-Modified-Since": THEN}, True),
        ({"If-Modified-Since": LATER}, True),
        ({"If-Modified-Since": BEFORE}, False),
        # If-None-Match is there: the date does not count.
        ({"If-None-Match": '"x"', "If-Modified-Since": THEN}, False),
        ({"If-None-Match": '"abc"', "If-Modified-Since": BEFORE}, True),
        ({"If-Match": '"abc"', "If-Unmodified-Since": BEFORE}, False),
        ({"If-Match": '"abc"', "If-None-Match": '"abc"'}, True),
        ({"If-Match": "*"}, False),
        ({"If-Unmodified-Since": THEN}, False),
        ({"If-Unmodified-Since": "junk"}, False),
    ],
)
def test_conditions_count_in_the_order_of_the_standard(headers: dict[str, str], fresh: bool) -> None:
    assert is_not_modified(headers, ETAG, MODIFIED) is fresh


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": '"x"'},
        {"If-Match": 'W/"abc"'},
        {"If-Match": "junk"},
        {"If-Match": ""},
        {"If-Unmodified-Since": BEFORE},
        {"If-Match": '"x"', "If-None-Match": '"abc"'},
    ],
)
def test_a_condition_that_is_not_met_refuses(headers: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        is_not_modified(headers, ETAG, MODIFIED)
    assert refused.value.status == 412


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        ('"abc"', True),
        ('W/"abc"', False),
        ('"x"', False),
        (THEN, True),
        (LATER, False),
        (BEFORE, False),
        ("junk", False),
        ('"abc", "x"', False),
    ],
)
def test_a_range_counts_for_this_very_version_only(value: str, counts: bool) -> None:
    assert if_range_holds({"If-Range": value}, ETAG, MODIFIED, MODIFIED + 2.0) is counts
    assert if_range_holds({}, ETAG, MODIFIED, MODIFIED + 2.0)


def test_a_date_whose_second_is_not_over_is_no_strong_validator() -> None:
    assert not if_range_holds({"If-Range": THEN}, ETAG, MODIFIED, MODIFIED + 0.9)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    for name in ("If-None-Match", "If-Modified-Since"):
        assert is_not_modified({name: text}, ETAG, MODIFIED) in {True, False}
    if_range_holds({"If-Range": text}, ETAG, MODIFIED, 0.0)
