"""References of schemas lead to the same when the schemas are parts of a document."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.routing.openapi.shared_schemas import SharedSchemas

PET = {
    "type": "object",
    "properties": {"friend": {"$ref": "#/$defs/Pet"}, "name": {"$ref": "#/$defs/Name"}},
}
NAME = {"type": "string", "maxLength": 5}


def test_a_schema_without_references_stays_as_it_is() -> None:
    shared = SharedSchemas()
    schema = {"type": "object", "properties": {"$ref": {"const": {"$ref": "#/a"}}}}
    assert shared.whole(schema, "x") is schema
    assert shared.components == {}


def test_definitions_become_components_recursive_ones_too() -> None:
    shared = SharedSchemas({"Name"})
    schema = {"type": "array", "items": {"$ref": "#/$defs/Pet"}, "$defs": {"Pet": PET, "Name": NAME}}
    assert shared.whole(schema, "pets") == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Pet"},
    }
    assert shared.components["Name-2"] == NAME
    assert shared.components["Pet"]["properties"] == {
        "friend": {"$ref": "#/components/schemas/Pet"},
        "name": {"$ref": "#/components/schemas/Name-2"},
    }


def test_equal_definitions_are_one_component_and_others_are_not() -> None:
    shared = SharedSchemas()
    of_pets = {"$defs": {"Pet": PET, "Name": NAME}, "$ref": "#/$defs/Pet"}
    more = {
        "$defs": {"Pet": PET, "Name": NAME, "Other": {}},
        "properties": {"pet": {"$ref": "#/$defs/Pet"}},
    }
    longer = {"$defs": {"Pet": PET, "Name": {"type": "string"}}, "$ref": "#/$defs/Pet"}
    assert shared.whole(of_pets, "a") == {"$ref": "#/components/schemas/Pet"}
    assert shared.property_of(more, "pet", "b") == {"$ref": "#/components/schemas/Pet"}
    assert shared.whole(longer, "c") == {"$ref": "#/components/schemas/Pet-2"}
    assert set(shared.components) == {"Pet", "Name", "Pet-2", "Name-2"}


def test_a_reference_to_the_whole_makes_a_component_of_it() -> None:
    shared = SharedSchemas()
    tree = {
        "$id": "https://a.example/tree",
        "properties": {"next": {"$ref": "#"}, "x": {"$ref": "#/properties/next"}},
    }
    whole = shared.whole(tree, "GET /a/b response")
    name = "GET-a-b-response"
    assert whole["properties"]["next"] == {"$ref": f"#/components/schemas/{name}"}
    assert shared.components[name]["properties"]["x"] == {
        "$ref": f"#/components/schemas/{name}/properties/next"
    }
    assert "$id" not in shared.components[name]


def test_what_looks_like_a_reference_is_left_alone_in_data_and_in_names() -> None:
    shared = SharedSchemas()
    schema = {
        "properties": {"$ref": {"$ref": "#/$defs/a"}, "default": {"$ref": "#/$defs/a"}},
        "default": {"$ref": "#/$defs/a"},
        "enum": [{"$ref": "#/$defs/a"}],
        "$defs": {"a": {"type": "string"}},
    }
    target = {"$ref": "#/components/schemas/a"}
    assert shared.whole(schema, "x") == {
        "properties": {"$ref": target, "default": target},
        "default": {"$ref": "#/$defs/a"},
        "enum": [{"$ref": "#/$defs/a"}],
    }


def test_a_reference_to_elsewhere_or_to_nothing_is_left_alone() -> None:
    for reference in ("https://a.example/b#/c", "#anchor", "other.json"):
        assert SharedSchemas().whole({"$ref": reference}, "x") == {"$ref": reference}
    shared = SharedSchemas()
    assert shared.whole({"$ref": "#/$defs/none"}, "x")["$ref"] == "#/components/schemas/x/$defs/none"


NAMES = st.sampled_from(["a", "b", "c/d", "e~f"])
LEAVES = st.sampled_from(
    [True, {"type": "string"}, {"type": "integer"}, {"type": "null"}, {"maxLength": 1}]
)


def _reference(name: str) -> dict[str, str]:
    return {"$ref": "#/$defs/" + name.replace("~", "~0").replace("/", "~1")}


SCHEMAS = st.recursive(
    LEAVES | NAMES.map(_reference),
    lambda parts: st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(NAMES, parts, max_size=2)}),
        st.fixed_dictionaries({"items": parts}),
        st.fixed_dictionaries({"anyOf": st.lists(parts, min_size=1, max_size=2)}),
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    st.sampled_from(["", "xy", 1, None]),
    lambda parts: st.lists(parts, max_size=2) | st.dictionaries(NAMES, parts, max_size=2),
    max_leaves=4,
)
# A definition that is nothing but a reference may lead to itself: such a schema means nothing.
DEFINITIONS = st.fixed_dictionaries(
    {
        name: st.builds(lambda part: {"items": part}, SCHEMAS) | LEAVES
        for name in ("a", "b", "c/d", "e~f")
    }
)


@given(st.builds(lambda part: {"items": part}, SCHEMAS), DEFINITIONS, VALUES)
def test_the_rewritten_schema_accepts_the_same_values(
    schema: dict[str, Any], definitions: dict[str, Any], value: Any
) -> None:
    whole = {**schema, "$defs": definitions}
    shared = SharedSchemas({"a"})
    rewritten = shared.whole(whole, "x")
    document = {"components": {"schemas": shared.components}, "allOf": [rewritten]}
    assert jsonschema_rs.is_valid(document, value) == jsonschema_rs.is_valid(whole, value)
