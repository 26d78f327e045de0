"""Ranges: RFC 9110 section 14, and what a hostile list of them cannot do."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.downloads.negotiation import MAX_RANGES, ByteRange, parse_ranges
from gateway.errors import Refusal


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 500)]),
        ("bytes=-500", [(9500, 500)]),
        ("bytes=9500-", [(9500, 500)]),
        ("bytes=0-99999", [(0, 10000)]),
        ("bytes=-99999", [(0, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 1)]),
        ("bytes= 0-0, -2", [(0, 1), (9998, 2)]),
        ("bytes=,0-0 ,, 5-6,", [(0, 1), (5, 2)]),
        ("BYTES=0-1", [(0, 2)]),
        ("bytes=5-6,0-0", [(5, 2), (0, 1)]),
        ("bytes=0-1,20000-", [(0, 2)]),
        ("bytes=0-99999999999999999999999999999999999999999", [(0, 10000)]),
    ],
)
def test_the_ranges_of_the_standard_are_understood(header: str, parts: list[tuple[int, int]]) -> None:
    assert parse_ranges(header, 10000) == [ByteRange(*part) for part in parts]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=1-2,x",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=٣-٤",
        "items=0-1",
        "bytes: 0-1",
        "bytes=0-1;2-3",
        "bytes=0-5,5-9",
        "bytes=0-,-1",
        "bytes=" + ",".join(f"{at}-{at}" for at in range(0, 100, 2)),
    ],
)
def test_what_is_no_range_or_asks_twice_or_too_often_gets_the_whole_file(header: str) -> None:
    assert parse_ranges(header, 10000) is None


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=10000-10001", "bytes=-0", "bytes=99999-,-0"])
def test_only_what_lies_wholly_behind_the_end_is_refused(header: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_ranges(header, 10000)
    assert refused.value.status == 416
    assert refused.value.headers["Content-Range"] == "bytes */10000"


def test_of_an_empty_file_its_end_is_the_whole_and_its_beginning_is_not_there() -> None:
    assert parse_ranges("bytes=-5", 0) is None
    with pytest.raises(Refusal):
        parse_ranges("bytes=0-", 0)


_NUMBER = st.integers(0, 60).map(str) | st.just("")
_SPEC = st.tuples(_NUMBER, _NUMBER).map("-".join) | st.text("0123456789-, ", max_size=6)


@given(st.lists(_SPEC, max_size=MAX_RANGES + 2).map(",".join), st.integers(0, 50))
def test_parts_lie_in_the_file_never_overlap_and_are_what_was_asked_for(text: str, size: int) -> None:
    try:
        parts = parse_ranges(f"bytes={text}", size)
    except Refusal:
        parts = None
    if parts is None:
        return
    assert 0 < len(parts) <= MAX_RANGES
    taken: set[int] = set()
    for part in parts:
        covered = set(range(part.start, part.end))
        assert covered <= set(range(size))
        assert covered
        assert not covered & taken
        taken |= covered
    assert taken == _asked(text, size)


def _asked(text: str, size: int) -> set[int]:
    """Say it once more, as literally as the standard does."""
    content, found = list(range(size)), set()
    for spec in text.split(","):
        first, dash, last = spec.strip(" ").partition("-")
        if dash and first:
            found |= set(content[int(first) : int(last) + 1 if last else None])
        elif dash and int(last):
            found |= set(content[-int(last) :])
    return found


@given(st.text(max_size=60), st.integers(0, 1 << 70))
def test_no_text_breaks_the_parser(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        with contextlib.suppress(Refusal):
            parse_ranges(header, size)
