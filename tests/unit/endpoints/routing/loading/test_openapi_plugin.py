"""One plugin makes a route of each operation of an OpenAPI document."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth.request import RequestHead
from gateway.endpoints.routing.model import Operation, Route, SchemaFault
from gateway.endpoints.routing.table import RouteTable
from gateway.plugins import PluginErrors
from tests.support.cli import Check
from tests.support.routing.openapi import PETS, plugin_text, write_document
from tests.support.routing.scripted import load, route


def load_pets(folder: Path, text: str = PETS, more: str = "", keys: str = "") -> RouteTable:
    write_document(folder, text)
    return load(folder, plugin_text("pets.yaml", more, keys=keys))


def fault(folder: Path, text: str = PETS, more: str = "", keys: str = "") -> str:
    with pytest.raises(PluginErrors) as caught:
        load_pets(folder, text, more, keys)
    return str(caught.value).replace(f"{folder}/", "")


def operation(table: RouteTable, method: str, path: str) -> tuple[Route, Operation]:
    match = table.find(RequestHead(method, path, {}, None))
    assert match.operation is not None
    return match.route, match.operation


def rules(faults: list[SchemaFault]) -> list[tuple[str, str]]:
    return [(each.pointer, each.rule) for each in faults]


def test_every_operation_is_a_route_with_the_keys_of_the_plugin(tmp_path: Path) -> None:
    more = "rate_limit: {count: 3}\nlimits: {idle: 5}\nhosts: [pets.example]\ncors: {origins: ['*']}\n"
    table = load_pets(tmp_path, more=more)
    assert {each.name: each.methods for each in table.routes} == {
        "pets GET /pets": ("GET", "HEAD"),
        "pets POST /pets": ("POST",),
        "pets GET /pets/{pet-id}": ("GET", "HEAD"),
        "pets PATCH /pets/{pet-id}": ("PATCH",),
    }
    for each in table.routes:
        assert (each.upstreams, each.auth, each.limits.idle) == (("up",), "none", 5)
        assert each.rate is not None
        assert each.cors is not None
        assert each.conditions.hosts == ("pets.example",)
        assert each.place.startswith(f"{tmp_path}/pets.yaml:")


def test_the_prefixes_of_the_plugin_replace_that_of_the_server(tmp_path: Path) -> None:
    table = load_pets(tmp_path, more="target: {path: /inner, scheme: https}\n", keys=", path: /outer/")
    served, _ = operation(table, "POST", "/outer/pets")
    assert (served.target, served.scheme) == ("/inner/pets", "https")
    (tmp_path / "0.yaml").unlink()
    served, _ = operation(load_pets(tmp_path, keys=", path: /"), "POST", "/pets")
    assert served.target == "/v1/pets"


def test_what_the_document_says_is_checked(tmp_path: Path) -> None:
    table = load_pets(tmp_path)
    _, listed = operation(table, "GET", "/v1/pets")
    assert listed.check_query is not None
    assert listed.check_query({"limit": ["5"], "tag": ["red", "blue"], "ids": ["1,2"]}) == []
    wrong = {"limit": ["0"], "tag": ["green"], "ids": ["1,x"]}
    assert set(rules(listed.check_query(wrong))) == {
        ("/limit", "minimum"), ("/tag/0", "enum"), ("/ids/1", "type"),
    }  # fmt: skip
    assert listed.check_headers is not None
    assert rules(listed.check_headers({})) == [("", "required")]
    assert listed.defaults == {}
    _, added = operation(table, "POST", "/v1/pets")
    assert added.check_body is not None
    assert added.check_body({"name": None, "friends": [{"name": "a", "age": 1}]}) == []
    assert set(rules(added.check_body({"age": 0, "friends": [{"name": 1}]}))) == {
        ("", "required"), ("/age", "exclusiveMinimum"), ("/friends/0/name", "type"),
    }  # fmt: skip
    one = operation(table, "GET", "/v1/pets/7")[1]
    assert one.check_path is not None
    assert rules(one.check_path({"pet_id": "x"})) == [("/pet_id", "type")]
    assert operation(table, "HEAD", "/v1/pets/7")[0].name == "pets GET /pets/{pet-id}"


def test_responses_are_checked_by_their_status(tmp_path: Path) -> None:
    listed = operation(load_pets(tmp_path), "GET", "/v1/pets")[1]
    good, bad = listed.response_check(200), listed.response_check(500)
    assert good is not None
    assert bad is not None
    assert good([{"id": 1, "name": "a"}]) == []
    assert rules(good([{"name": "a"}])) == [("/0", "required")]
    assert bad({"message": "no"}) == []


@pytest.mark.parametrize(
    ("old", "new", "line_of", "error"),
    [
        ("minimum: 1,", "minimum: a,", "minimum: a",
         "paths./pets.get.parameters.0.schema.minimum: invalid JSON Schema"),
        ("type: number", "type: numbr", "numbr",
         "components.schemas.Pet.properties.age.type: invalid JSON Schema"),
        ("type: object\n      required: [message]", "type: object\n      required: message",
         "required: message", "components.schemas.Error.required: invalid JSON Schema"),
        ("format: int32", "pattern: '('", "pattern",
         "paths./pets/{pet-id}.parameters.0.schema.pattern: invalid JSON Schema"),
    ],
)  # fmt: skip
def test_a_bad_schema_has_the_line_of_the_document(
    tmp_path: Path, old: str, new: str, line_of: str, error: str
) -> None:
    assert old in PETS
    text = PETS.replace(old, new)
    line = next(at for at, row in enumerate(text.splitlines(), start=1) if line_of in row)
    first = fault(tmp_path, text).splitlines()
    assert first[0].startswith(f"pets.yaml:{line}: {error}")
    assert len(first) == 1


@pytest.mark.parametrize(
    ("keys", "more", "error"),
    [
        (", paht: /x", "", "0.yaml:1: unknown key `openapi.paht`: remove it"),
        (", path: x", "", "0.yaml:1: `openapi.path` must begin with a slash"),
        (", skip: ['GET /cats']", "", "0.yaml:1: pets.yaml has no GET /cats"),
        (", path: /x,\n  upstreams: [a]", "", "0.yaml:2: the key `upstreams` stands here twice"),
        ("", "redirect: /x\n", "0.yaml:3: unknown key `redirect`"),
        ("", "spec: []\n", "0.yaml:3: unknown key `spec`"),
        ("", "limits: {idle: 0}\n", "0.yaml:3: `limits.idle` should be greater than 0"),
    ],
)
def test_faults_of_the_plugin_have_its_line(tmp_path: Path, keys: str, more: str, error: str) -> None:
    assert fault(tmp_path, keys=keys, more=more).startswith(error)


def test_a_bad_upstream_has_the_line_of_the_plugin(tmp_path: Path) -> None:
    write_document(tmp_path, PETS)
    text = "openapi:\n  file: pets.yaml\n  upstreams:\n  - up\n  - http://up\n"
    with pytest.raises(PluginErrors, match=r":5: an upstream is host or host:port"):
        load(tmp_path, text)
    with pytest.raises(PluginErrors, match=r":2: `health` is about upstreams"):
        load(tmp_path, "openapi: {file: pets.yaml, upstreams: []}\nhealth: {path: /}\n")


def test_a_document_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PluginErrors, match=r"cats.yaml: the OpenAPI document cannot be read"):
        load(tmp_path, plugin_text("cats.yaml"))


def test_operations_may_be_left_out(tmp_path: Path) -> None:
    table = load_pets(tmp_path, keys=", skip: ['/pets/{pet-id}', 'POST /pets']")
    assert [each.name for each in table.routes] == ["pets GET /pets"]


def test_routes_of_a_document_clash_with_others_at_the_line_of_the_operation(tmp_path: Path) -> None:
    write_document(tmp_path, PETS)
    other = route("/v1/pets", "return 1", "spec: [{method: GET}]\n")
    with pytest.raises(PluginErrors) as caught:
        load(tmp_path, other, plugin_text("pets.yaml"))
    line = PETS.splitlines().index("    get:") + 1
    assert f"{tmp_path}/pets.yaml:{line}: " in str(caught.value)
    assert "both serve GET" in str(caught.value)


def test_two_documents_of_one_name_need_names(tmp_path: Path) -> None:
    write_document(tmp_path, PETS)
    texts = [plugin_text("pets.yaml", keys=f", path: /{number}") for number in range(2)]
    with pytest.raises(
        PluginErrors, match=r"another OpenAPI document pets at .*: give this one a `name`"
    ):
        load(tmp_path, *texts)
    assert len(load(tmp_path, "name: other\n" + texts[0], texts[1]).routes) == 8


def test_a_document_is_one_line_of_the_check_with_what_is_not_checked(
    tmp_path: Path, check_text: Check
) -> None:
    write_document(tmp_path, PETS)
    code, out, err = check_text(plugin_text("pets.yaml"))
    assert code == 0
    [line] = [row for row in out.splitlines() if "pets" in row]
    assert line == "pets: 4 routes of pets.yaml (OpenAPI 3.0.3) -> up (x.yaml:1), authorization none"
    number = PETS.splitlines().index("        content:") + 1
    assert err == f"warning: pets.yaml:{number}: bodies that are not JSON are not checked\n"


def test_open_routes_of_a_document_that_asks_for_credentials_are_told(
    tmp_path: Path, check_text: Check
) -> None:
    schemes = "  securitySchemes: {key: {type: apiKey, in: header, name: X-Key}}\n"
    write_document(tmp_path, f"security: [{{key: []}}]\n{PETS}{schemes}")
    assert "x.yaml:1: the document asks for credentials" in check_text(plugin_text("pets.yaml"))[2]
    assert "credentials" not in check_text(plugin_text("pets.yaml", auth="token"))[2]


TESTS = """
tests:
- name: the case
  request: {method: GET, path: PATH, params: {limit: ['5']}, headers: {X-Trace: abcd}}
  upstream: {headers: {Content-Type: application/json}, body: []}
  expect: EXPECT
"""


@pytest.mark.parametrize(
    ("path", "expect", "code", "line"),
    [
        ("/v1/pets", "{status: 200, sent: {target: '/v1/pets?limit=5'}}", 0, "ok    pets: the case"),
        ("/v1/pets/x", "{status: 400}", 0, "ok    pets: the case"),
        ("/v1/pets/x", "{}", 1, "x.yaml:5: FAILED pets: the case: it answered 400 (bad_schema: "),
        ("/v1/cats", "{}", 1, "x.yaml:5: FAILED pets: the case: it cannot begin: the document has no"),
        ("null", "{}", 1, "x.yaml:5: FAILED pets: the case: it cannot begin: its request needs the"),
    ],
)
def test_tests_of_the_plugin_choose_the_route_by_their_path(
    tmp_path: Path, check_text: Check, path: str, expect: str, code: int, line: str
) -> None:
    write_document(tmp_path, PETS)
    text = plugin_text("pets.yaml", TESTS.replace("PATH", path).replace("EXPECT", expect))
    result, out, _ = check_text(text)
    assert (result, [row for row in out.splitlines() if row.startswith(line)]) != (code, [])
    assert result == code
