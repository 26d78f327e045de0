"""Schemas of routes: faults, headers, any JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.endpoints.routing.validation.schemas import (
    MAX_FAULTS,
    MAX_LISTED_VALUES,
    compile_headers,
    compile_schema,
)


def test_a_long_list_of_faults_is_cut() -> None:
    check = compile_schema({"items": {"type": "string"}})
    assert len(check(list(range(MAX_LISTED_VALUES)))) == MAX_FAULTS


def test_of_a_value_with_many_values_the_first_fault_alone_is_told() -> None:
    check = compile_schema({"items": {"anyOf": [{"type": "string"}, {"type": "object"}]}})
    wrong: list[Any] = [[number] for number in range(MAX_LISTED_VALUES)]
    [fault] = check(["x", *wrong])
    assert (fault.pointer, fault.rule) == ("/1", "anyOf")
    assert check(["x"] * 100_000) == []


def test_a_value_that_cannot_be_checked_is_a_fault_also_among_many() -> None:
    check = compile_schema({"items": {"type": "string"}})
    [fault] = check([float("nan"), *([{1: 2}] * MAX_LISTED_VALUES)])
    assert fault.rule == "type"


def test_headers_of_one_name_are_read_as_one() -> None:
    check = compile_headers({"properties": {"A": {"const": "1, 2"}, "N": {"type": "number"}}})
    assert check({"a": "1, 2", "n": "1.5"}) == []
    assert [fault.pointer for fault in check({"a": "1", "n": "x"})] == ["/a", "/n"]


@pytest.mark.parametrize("value", ["0", "-7", "12", "1e3", "-0.5", "1.5E-2"])
def test_numbers_in_headers_are_those_of_json(value: str) -> None:
    assert compile_headers({"properties": {"N": {"type": "number"}}})({"n": value}) == []
    faults = compile_headers({"properties": {"N": {"type": "integer"}}})({"n": value})
    assert bool(faults) == (not value.lstrip("-").isdigit())


@pytest.mark.parametrize(
    "value",
    ["1_0", "+5", "٣", "１", "0x1", "01", "1.", ".5", "1e", "", " 1", "1 ", "Infinity", "nan", "--1",
     "1" * 5000, "true"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["integer", "number"])
def test_what_json_calls_no_number_is_none_in_headers(value: str, kind: str) -> None:
    [fault] = compile_headers({"properties": {"N": {"type": kind}}})({"n": value})
    assert (fault.pointer, fault.rule) == ("/n", "type")


@pytest.mark.parametrize(("value", "passes"), [("true", True), ("false", True), ("TRUE", False)])
def test_booleans_in_headers_are_those_of_json(value: str, passes: bool) -> None:
    faults = compile_headers({"properties": {"B": {"type": "boolean"}}})({"b": value})
    assert (faults == []) is passes


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=ANY_JSON)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_json_can_say_can_be_checked(value: Any) -> None:
    check = compile_schema({"type": "object", "properties": {"a": {"minLength": 2}}, "minProperties": 1})
    assert isinstance(check(value), list)
