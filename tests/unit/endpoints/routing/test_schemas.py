"""Schemas of routes: faults, headers, any JSON."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.endpoints.routing.validate import MAX_FAULTS, compile_headers, compile_schema


def test_a_long_list_of_faults_is_cut() -> None:
    check = compile_schema({"items": {"type": "string"}})
    assert len(check(list(range(10_000)))) == MAX_FAULTS


def test_headers_of_one_name_are_read_as_one() -> None:
    check = compile_headers({"properties": {"A": {"const": "1, 2"}, "N": {"type": "number"}}})
    assert check({"a": "1, 2", "n": "1.5"}) == []
    assert [fault.pointer for fault in check({"a": "1", "n": "x"})] == ["/a", "/n"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=ANY_JSON)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_json_can_say_can_be_checked(value: Any) -> None:
    check = compile_schema({"type": "object", "properties": {"a": {"minLength": 2}}, "minProperties": 1})
    assert isinstance(check(value), list)
