"""What operations of an OpenAPI document become, and the lines of their faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.routing.openapi import PETS, expanded, faults_of

HEAD = "openapi: 3.1.0\ninfo: {title: T, version: '1'}\n"


def spec_of(folder: Path, text: str, name: str) -> dict[str, Any]:
    [operation] = [each for each in expanded(folder, text).operations if each.name == name]
    return operation.spec


def test_paths_are_those_of_the_document_below_the_path_of_its_server(tmp_path: Path) -> None:
    operations = expanded(tmp_path, PETS).operations
    assert {(each.name, each.path, each.target) for each in operations} == {
        ("GET /pets", "/v1/pets", "/v1/pets"),
        ("POST /pets", "/v1/pets", "/v1/pets"),
        ("GET /pets/{pet-id}", "/v1/pets/{pet_id}", "/v1/pets/{pet_id}"),
        ("HEAD /pets/{pet-id}", "/v1/pets/{pet_id}", "/v1/pets/{pet_id}"),
        ("PATCH /pets/{pet-id}", "/v1/pets/{pet_id}", "/v1/pets/{pet_id}"),
    }


def test_parameters_become_schemas_of_the_query_the_headers_and_the_path(tmp_path: Path) -> None:
    request = spec_of(tmp_path, PETS, "GET /pets")["schema"]["request"]
    assert request["query"]["properties"] == {
        "limit": {"type": "integer", "minimum": 1},
        "tag": {"type": "array", "items": {"enum": ["red", "blue"]}},
        "ids": {"type": "array", "items": {"type": "integer"}, "x-delimiter": ","},
    }
    assert request["headers"] == {
        "properties": {"X-Trace": {"type": "string", "minLength": 4}},
        "required": ["X-Trace"],
    }
    path = spec_of(tmp_path, PETS, "GET /pets/{pet-id}")["schema"]["request"]["path"]
    assert path["properties"]["pet_id"]["maximum"] == 2**31 - 1


def test_a_schema_of_openapi_30_becomes_json_schema_with_what_it_refers_to(tmp_path: Path) -> None:
    body = spec_of(tmp_path, PETS, "POST /pets")["schema"]["request"]["body"]
    assert body == {
        "$ref": "#/$defs/Pet",
        "$defs": {
            "Pet": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "id": {"type": "integer", "readOnly": True},
                    "name": {"type": ["string", "null"], "examples": ["Rex"]},
                    "age": {"type": "number", "exclusiveMinimum": 0},
                    "friends": {"type": "array", "items": {"$ref": "#/$defs/Pet"}},
                },
            }
        },
    }


def test_responses_become_normal_codes_and_schemas_by_status(tmp_path: Path) -> None:
    listed = spec_of(tmp_path, PETS, "GET /pets")["schema"]["response"]
    assert "normal" not in listed
    assert set(listed["bodies"]) == {"200", "default"}
    assert listed["bodies"]["200"]["$defs"]["Pet"]["required"] == ["id", "name"]
    added = spec_of(tmp_path, PETS, "POST /pets")["schema"]["response"]
    assert added == {"normal": {"codes": [201, *range(400, 500)]}}


def test_bodies_of_other_types_pass_beside_json(tmp_path: Path) -> None:
    request = spec_of(tmp_path, PETS, "PATCH /pets/{pet-id}")["schema"]["request"]
    assert request["other_types"] == ["application/xml"]
    assert request["body_optional"] is True
    assert "body_optional" not in spec_of(tmp_path, PETS, "POST /pets")["schema"]["request"]


def test_texts_for_people_are_kept(tmp_path: Path) -> None:
    assert spec_of(tmp_path, PETS, "GET /pets")["usage"] == "List"
    assert spec_of(tmp_path, PETS, "GET /pets")["tags"] == ["pets"]
    assert spec_of(tmp_path, PETS, "POST /pets")["usage"] == "addPet"


def test_a_schema_of_31_is_kept_as_it_is(tmp_path: Path) -> None:
    schema = "{type: [string, 'null'], exclusiveMinimum: 3, const: a, $ref: '#/components/schemas/a'}"
    body = f"{{content: {{application/json: {{schema: {schema}}}}}}}"
    text = f"{HEAD}paths: {{/a: {{post: {{requestBody: {body}}}}}}}\n"
    text += "components: {schemas: {a: {not: true, $anchor: x}}}\n"
    assert spec_of(tmp_path, text, "POST /a")["schema"]["request"]["body"] == {
        "type": ["string", "null"],
        "exclusiveMinimum": 3,
        "const": "a",
        "$ref": "#/$defs/a",
        "$defs": {"a": {"not": True}},
    }


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("{name: a, in: cookie}", "cookies are not checked"),
        (
            "{name: a, in: query, style: deepObject}",
            "parameters of the style deepObject are not checked",
        ),
        (
            "{name: a, in: query, required: true, schema: {type: object}}",
            "objects in parameters are not",
        ),
        ("{name: a, in: query, content: {application/json: {}}}", "parameters with `content` are not"),
        ("{name: a, in: path, required: true, style: label}", "parameters of the style label are not"),
        ("{name: b, in: path, required: true}", "a parameter of the path that the path does not have"),
    ],
)
def test_what_cannot_be_checked_passes_and_is_told(tmp_path: Path, parameter: str, reason: str) -> None:
    text = f"{HEAD}paths:\n  /{{a}}:\n    get:\n      parameters:\n      - {parameter}\n"
    expansion = expanded(tmp_path, text)
    [line] = expansion.unchecked.lines()
    assert line.startswith(f"{tmp_path}/pets.yaml:7: {reason}")
    assert "query" not in expansion.operations[0].spec.get("schema", {}).get("request", {})


def test_reasons_are_told_once_with_how_many_there_are(tmp_path: Path) -> None:
    cookies = "".join(f"    - {{name: c{number}, in: cookie}}\n" for number in range(50))
    text = f"{HEAD}paths:\n  /a:\n    parameters:\n{cookies}    get: {{}}\n"
    [line] = expanded(tmp_path, text).unchecked.lines()
    assert line == f"{tmp_path}/pets.yaml:6: cookies are not checked (and in 49 more lines)"


@pytest.mark.parametrize(
    ("old", "new", "line_of", "fault"),
    [
        ("/pets/{pet-id}:", "/pets/{pet-id}.json:", ".json:",
         "paths./pets/{pet-id}.json: a variable is a whole segment"),
        ("/pets/{pet-id}:", "/pets?id={pet-id}:", "/pets?", "paths./pets?id={pet-id}: a variable is a"),
        ("/pets/{pet-id}:", "/pets#x:", "/pets#x", "paths./pets#x: the path is wrong in segment 1"),
        ("/pets/{pet-id}:", "/{a}/{a}:", "/{a}/{a}:", "paths./{a}/{a}: the path has the variable {a}"),
        ("in: query, schema: {type: integer", "in: body, schema: {type: integer", "in: body",
         "paths./pets.get.parameters.0.in: a parameter needs a `name`, and `in`"),
        ("name: tag", "name: limit", "[red, blue]",
         "paths./pets.get.parameters.1: the parameter limit is listed twice"),
        ("operationId: addPet", "security: [{key: []}]", "security",
         "paths./pets.post.security.0.key: `components.securitySchemes` has no key"),
        ("operationId: addPet", "parameters: [{$ref: 'x.yaml#/a'}]", "x.yaml",
         "paths./pets.post.parameters.0.$ref: references lead into the same file"),
        ("friends: {type: array, items: {$ref: '#/components/schemas/Pet'",
         "friends: {type: array, items: {$ref: '#/components/schemas/Cat'", "Cat",
         "components.schemas.Pet.properties.friends.items.$ref: the reference leads to nothing"),
        ('"201": {description: Made}', '"099": {description: Made}', '"099"',
         "paths./pets.post.responses.099: a status is 100 to 599, 2XX or default"),
        ("    Error:\n      type: object", "    Error: 5\n    Other:\n      type: object", "Error: 5",
         "components.schemas.Error: must be a schema: a mapping"),
        ("pets.example/v1/", "pets.example/{v}", "servers",
         "servers.0: the variable {v} of the URL needs its `default`"),
        ("operationId: addPet", "parameters: {}", "parameters: {}",
         "paths./pets.post.parameters: must be a list"),
        ("  /pets:\n    get:", "  /x: []\n  /pets:\n    get:", "/x:", "paths./x: must be a mapping"),
    ],
)  # fmt: skip
def test_faults_have_the_line_of_the_document(
    tmp_path: Path, old: str, new: str, line_of: str, fault: str
) -> None:
    assert old in PETS
    text = PETS.replace(old, new)
    line = next(at for at, row in enumerate(text.splitlines(), start=1) if line_of in row)
    [first] = faults_of(tmp_path, text)
    assert first.startswith(f"{line}: {fault}")


def test_the_same_path_with_other_names_is_a_fault(tmp_path: Path) -> None:
    text = PETS.replace("components:\n", "  /pets/{name}:\n    get: {}\n    delete: {}\ncomponents:\n")
    lines = text.splitlines()
    first, second = lines.index("  /pets/{pet-id}:") + 3, lines.index("  /pets/{name}:") + 2
    [fault] = faults_of(tmp_path, text)
    assert fault == (
        f"{second}: paths./pets/{{name}}.get: this path, with other names of its variables, has GET in"
        f" line {first}: remove one"
    )


def test_references_without_an_end_are_a_fault(tmp_path: Path) -> None:
    text = f"{HEAD}paths: {{/a: {{get: {{parameters: [{{$ref: '#/components/parameters/a'}}]}}}}}}\n"
    text += "components:\n  parameters:\n    a: {$ref: '#/components/parameters/b'}\n"
    text += "    b: {$ref: '#/components/parameters/a'}\n"
    [fault] = faults_of(tmp_path, text)
    assert fault.endswith("references lead to references without an end")


def test_schemas_that_an_alias_repeats_without_an_end_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.endpoints.routing.specification.schemas.MAX_SCHEMAS", 1000)
    rows = ["x0: &x0 {allOf: [{}, {}]}"]
    rows += [f"x{n}: &x{n} {{allOf: [*x{n - 1}, *x{n - 1}]}}" for n in range(1, 40)]
    body = "{content: {application/json: {schema: *x39}}}"
    text = "\n".join([HEAD, *rows, f"paths: {{/a: {{post: {{requestBody: {body}}}}}}}"])
    [fault] = faults_of(tmp_path, text)
    assert fault.endswith("the document has more than 1000 schemas and values in them")


@pytest.mark.parametrize(
    ("first", "keyword"),
    [("[a, b]", "enum: *x39"), ("{a: b}", "example: *x39"), (f"[{'a' * 100_000}]", "default: *x1")],
)
def test_values_that_an_alias_repeats_without_an_end_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, keyword: str
) -> None:
    monkeypatch.setattr("gateway.endpoints.routing.specification.schemas.MAX_SCHEMAS", 1000)
    rows = [f"x0: &x0 {first}", *(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]" for n in range(1, 40))]
    body = f"{{content: {{application/json: {{schema: {{{keyword}}}}}}}}}"
    text = "\n".join([HEAD, *rows, f"paths: {{/a: {{post: {{requestBody: {body}}}}}}}"])
    [fault] = faults_of(tmp_path, text)
    assert fault.endswith("the document has more than 1000 schemas and values in them")
