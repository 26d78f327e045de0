"""Request headers as plain dicts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.http.header_fields import headers_as_dict, read_headers

NAMES = ("Host", "host", "Cookie", "X-A", "x-a", "X-Gateway-Internal", "x-gateway-internal")


def test_lines_of_one_name_are_joined_under_its_first_spelling() -> None:
    sent = CIMultiDict([("X-A", "1"), ("Cookie", "a=1"), ("x-a", "2"), ("cookie", "b=2")])
    fields = read_headers(sent)
    assert fields.values == {"X-A": "1, 2", "Cookie": "a=1; b=2"}
    assert fields.lines == {"x-a": ["1", "2"], "cookie": ["a=1", "b=2"]}


def test_bytes_that_are_not_utf8_are_replaced_in_values_alone() -> None:
    fields = read_headers(CIMultiDict([("X-A", "caf\udce9")]))
    assert fields.values == {"X-A": "caf\ufffd"}
    assert fields.lines == {"x-a": ["caf\udce9"]}


def test_the_internal_credential_is_no_value() -> None:
    fields = read_headers(CIMultiDict([("X-Gateway-Internal", "secret"), ("X-A", "1")]))
    assert fields.values == {"X-A": "1"}


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(("", "1", "\udce9")))))
def test_one_pass_reads_what_two_do(sent: list[tuple[str, str]]) -> None:
    headers = CIMultiDict(sent)
    fields = read_headers(headers)
    assert fields.values == headers_as_dict(headers)
    assert list(fields.values) == list(headers_as_dict(headers))
    assert sorted(line for lines in fields.lines.values() for line in lines) == sorted(
        value for _, value in sent
    )
