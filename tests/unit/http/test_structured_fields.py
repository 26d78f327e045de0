"""Structured fields: what is read of a field, and that all else counts as not sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.structured_fields import parse_boolean, parse_integer, parse_integers

ANY_TEXT = st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=40)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("42", 42),
        ("-1", -1),
        ("-0", 0),
        ("0042", 42),
        (" 42 ", 42),
        ("999999999999999", 10**15 - 1),
        ("-999999999999999", 1 - 10**15),
        ("42;a", 42),
        ('42; a=1;b="x;y";c=?1;d=tok/en;e=:AA==:;f=1.5', 42),
    ],
)
def test_an_integer_is_read_with_its_parameters_left_out(text: str, value: int) -> None:
    assert parse_integer([text]) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "+1", "1.0", "1 2", "1,2", "1000000000000000", "0x10", "1_000", "\u0661", "?1", '"1"',
        "a", "42;", "42;A=1", "42;a=", "42;a=\u00e9", "42 ;a", "4\n2", "\t42", ":NDI=:", "(42)",
    ],
)  # fmt: skip
def test_what_is_no_integer_counts_as_not_sent(text: str) -> None:
    assert parse_integer([text]) is None


def test_an_item_on_two_lines_counts_as_not_sent() -> None:
    assert parse_integer(["1", "1"]) is None
    assert parse_boolean(["?1", "?1"]) is None
    assert parse_integer([]) is None
    assert parse_boolean(()) is None


@pytest.mark.parametrize(("text", "value"), [("?1", True), ("?0", False), (" ?1;a=1 ", True)])
def test_a_boolean_is_read(text: str, value: bool) -> None:
    assert parse_boolean([text]) is value


@pytest.mark.parametrize(
    "text", ["", "true", "1", "?", "?2", "?01", "? 1", "?1,", "?1, ?1", "?T", "?\u0661"]
)
def test_what_is_no_boolean_counts_as_not_sent(text: str) -> None:
    assert parse_boolean([text]) is None


@pytest.mark.parametrize(
    ("lines", "members"),
    [
        ([], {}),
        ([""], {}),
        (["sha-256=5"], {"sha-256": 5}),
        (["sha-256=5, md5=0"], {"sha-256": 5, "md5": 0}),
        (["sha-256=5\t,\tmd5=0"], {"sha-256": 5, "md5": 0}),
        (["a=1", "b=2"], {"a": 1, "b": 2}),
        (["a=1, a=2"], {"a": 2}),
        (["a=1, a=?1"], {}),
        (['a=1, b, c=?0, d=1.5, e=x, f="1, 2"'], {"a": 1}),
        (["a=1;q=0.5, b=2"], {"a": 1, "b": 2}),
        (["*a.b-c_d=-7"], {"*a.b-c_d": -7}),
    ],
)
def test_a_dictionary_gives_its_integers(lines: list[str], members: dict[str, int]) -> None:
    assert parse_integers(lines) == members


@pytest.mark.parametrize(
    "text", ["a=1,", ",a=1", "a=1 b=2", "A=1", "a=", "a=(1 2)", "a=1,,b=2", "a=\u00e9", "a=1\nb=2", "=1"]
)
def test_a_malformed_dictionary_counts_as_not_sent(text: str) -> None:
    assert parse_integers([text]) == {}


@given(st.lists(ANY_TEXT, max_size=3))
def test_no_text_raises(lines: list[str]) -> None:
    integer, boolean = parse_integer(lines), parse_boolean(lines)
    assert integer is None or abs(integer) < 10**15
    assert integer is None or boolean is None
    assert all(abs(value) < 10**15 for value in parse_integers(lines).values())
