"""Texts of queries, paths and headers are checked as values of the types that their schemas name."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.endpoints.routing.validation.schemas import compile_headers, compile_path, compile_query

INTEGER = {"type": "integer"}
TREE: dict[str, Any] = {
    "type": ["integer", "array"],
    "maximum": 9,
    "items": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "boolean"}]},
}


def query_faults(schema: Any, **params: list[str]) -> list[tuple[str, str]]:
    check = compile_query({"properties": {"a": schema}, "$defs": {"n": INTEGER, "tree": TREE}})
    return [(fault.pointer, fault.rule) for fault in check(params)]


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (INTEGER, "7", "7.5"),
        ({"type": "number"}, "7.5", "7,5"),
        ({"type": "boolean"}, "true", "True"),
        ({"type": "string", "minLength": 2}, "77", "7"),
        ({"type": ["integer", "null"]}, "7", "null"),
        ({"$ref": "#/$defs/n"}, "7", "x"),
        ({"anyOf": [{"$ref": "#/$defs/n"}, {"type": "boolean"}]}, "7", "x"),
        ({"allOf": [{"oneOf": [INTEGER]}, {"minimum": 7}]}, "7", "6"),
        ({"enum": [1, 2, "all"]}, "2", "3"),
        ({"enum": [1, 2, "all"]}, "all", "any"),
        ({"const": True}, "true", "1"),
        ({"enum": ["1", "2"]}, "2", "3"),
        ({"$ref": "#/$defs/tree"}, "7", "70"),
    ],
)
def test_a_text_is_checked_as_a_value_of_its_type(schema: Any, good: str, bad: str) -> None:
    assert query_faults(schema, a=[good]) == []
    [(pointer, _)] = query_faults(schema, a=[bad])
    assert pointer == "/a"


@pytest.mark.parametrize("text", ["7", "12345"])
def test_a_number_where_texts_are_allowed_may_be_meant_as_a_text(text: str) -> None:
    either = {"anyOf": [{"type": "integer", "maximum": 9}, {"type": "string", "minLength": 5}]}
    assert query_faults(either, a=[text]) == []
    assert query_faults(either, a=["77"]) != []


def test_an_array_takes_every_value_of_its_field() -> None:
    array = {"type": "array", "items": INTEGER, "minItems": 1}
    assert query_faults(array, a=["1"]) == []
    assert query_faults(array, a=["1", "2"]) == []
    assert query_faults(array, a=["1", "x"]) == [("/a/1", "type")]
    assert query_faults(array, a=["1,2"]) == [("/a/0", "type")]


def test_an_array_may_have_a_delimiter() -> None:
    array = {"type": "array", "items": {"$ref": "#/$defs/n"}, "x-delimiter": "|"}
    assert query_faults(array, a=["1|2"]) == []
    assert query_faults(array, a=["1|x"]) == [("/a/1", "type")]


def test_a_field_that_is_given_twice_is_no_single_value() -> None:
    assert query_faults(INTEGER, a=["1", "2"]) == [("/a", "type")]
    assert query_faults({"type": ["integer", "array"]}, a=["1", "2"]) == []
    assert query_faults({"type": ["integer", "array"], "maximum": 5}, a=["9"]) == [("/a", "maximum")]
    assert query_faults({"minLength": 1}, a=["1", "2"]) == []


def test_unknown_fields_are_refused_but_not_those_of_the_gateway() -> None:
    check = compile_query({"properties": {"a": {}}, "additionalProperties": False})
    assert check({"a": ["1"], "X-Gateway-Signature": ["s"], "x-gateway-key": ["k"]}) == []
    [fault] = check({"b": ["SECRET"]})
    assert (fault.place, fault.rule) == ("query", "additionalProperties")
    assert "SECRET" not in fault.message


def test_fields_that_are_not_named_have_the_type_of_the_others() -> None:
    check = compile_query({"additionalProperties": INTEGER})
    assert check({"a": ["1"]}) == []
    assert [fault.pointer for fault in check({"a/b": ["x"]})] == ["/a~1b"]


def test_variables_of_a_path_are_checked() -> None:
    ids = {"type": "array", "items": INTEGER, "maxItems": 2}
    check = compile_path({"properties": {"id": INTEGER, "ids": ids}, "required": ["id"]})
    assert check({"id": "7", "ids": "1,2"}) == []
    faults = check({"id": "x", "ids": "1,2,3"})
    assert {(f.place, f.pointer, f.rule) for f in faults} == {
        ("path", "/id", "type"),
        ("path", "/ids", "maxItems"),
    }


def test_an_array_in_a_header_is_separated_by_commas() -> None:
    check = compile_headers({"properties": {"N": {"type": "array", "items": {"enum": ["a", "b"]}}}})
    assert check({"n": "a, b"}) == []
    assert [fault.pointer for fault in check({"n": "a, c"})] == ["/n/1"]
