"""Request headers as plain dicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.http.header_fields import filename_of, headers_as_dict, read_headers

NAMES = ("Host", "host", "Cookie", "X-A", "x-a", "X-Gateway-Internal", "x-gateway-internal")


def test_lines_of_one_name_are_joined_under_its_first_spelling() -> None:
    sent = CIMultiDict([("X-A", "1"), ("Cookie", "a=1"), ("x-a", "2"), ("cookie", "b=2")])
    fields = read_headers(sent)
    assert fields.values == {"X-A": "1, 2", "Cookie": "a=1; b=2"}
    assert lines_of(sent) == {"x-a": ["1", "2"], "cookie": ["a=1", "b=2"]}


def lines_of(headers: CIMultiDict[str]) -> dict[str, list[str]]:
    return {name: list(lines) for name, lines in read_headers(headers).lines.items()}


def test_bytes_that_are_not_utf8_are_replaced_in_values_alone() -> None:
    fields = read_headers(CIMultiDict([("X-A", "caf\udce9")]))
    assert fields.values == {"X-A": "caf\ufffd"}
    assert lines_of(CIMultiDict([("X-A", "caf\udce9")])) == {"x-a": ["caf\udce9"]}


def test_the_internal_credential_is_no_value() -> None:
    fields = read_headers(CIMultiDict([("X-Gateway-Internal", "secret"), ("X-A", "1")]))
    assert fields.values == {"X-A": "1"}


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(("", "1", "\udce9")))))
def test_one_pass_reads_what_two_do(
    sent: list[tuple[str, str]],
) -> None:
    headers = CIMultiDict(sent)
    fields = read_headers(headers)
    assert list(fields.values.items()) == list(headers_as_dict(headers).items())
    expected: dict[str, list[str]] = {}
    for name, value in sent:
        expected.setdefault(name.lower(), []).append(value)
    assert lines_of(headers) == expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("", None),
        ("inline", None),
        ('inline; filename=""', None),
        ('inline; filename="a b.bin"', "a b.bin"),
        ("attachment; filename=a.bin", "a.bin"),
        ("attachment; filename=\"a.bin\"; filename*=UTF-8''%e2%82%ac.bin", "\u20ac.bin"),
        ("attachment; filename*=utf-8'en'a%20b", "a b"),
        ('inline; filename="../../etc/passwd"', "passwd"),
        ('inline; filename="C:\\\\dir\\\\a.txt"', "a.txt"),
        ("inline; filename*=UTF-8''..%2Fx", "x"),
        ('inline; filename="caf\udce9"', "caf\ufffd"),
        ('inline; name="; filename=a"; filename="b\\"c"', 'b"c'),
        # What Python would decode with a codec of its own, and what it fails on.
        ("inline; filename*=unicode_escape''%5cud800x", None),
        ("inline; filename*=undefined''x; filename=y", "y"),
        ("inline; filename*=idna''x", None),
        (f"inline; filename*{'9' * 5000}=x", None),
    ],
)
def test_a_file_name_is_the_last_segment_of_what_a_client_says(value: str, name: str | None) -> None:
    assert filename_of({"content-disposition": [value]}) == name


def test_no_disposition_has_no_file_name() -> None:
    assert filename_of({}) is None
