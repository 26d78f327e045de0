"""The OpenAPI document of the routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.domain.api_routes import API_ROUTES
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.openapi.audience import all_operations
from gateway.endpoints.routing.openapi.document import document
from gateway.settings import Settings
from tests.support import TESTS
from tests.support.routing.scripted import SPEC, load, route

GOLDEN = TESTS / "golden" / "plugins"


REFERRING = """
spec:
- method: PUT
  usage: refers
  schema:
    request:
      body: {$ref: "#/$defs/a", $defs: {a: {type: string}}}
      query: {$defs: {a: {type: integer}}, properties: {n: {$ref: "#/$defs/a"}}}
"""

EVERYTHING = """
spec:
- method: GET
  usage: Reads an item
  schema:
    request:
      query:
        required: [page, other]
        properties:
          page: {type: integer, minimum: 1}
          tag: {type: array, items: {type: string}}
      path: {properties: {id: {type: integer}}}
      headers: {properties: {X-Count: {type: integer}}}
    response:
      normal: {codes: [200, 206]}
      body: {type: object, properties: {id: {type: integer}}}
- method: POST
  schema: {response: {body: {$ref: "#/$defs/a", $defs: {a: {type: string}}}}}
hosts: [shop.example, "*.shop.example"]
when: {headers: {X-Version: ["2", "3"], X-Any: true, X-Not: false}, query: {page: true, kind: full}}
rate_limit: {count: 10, seconds: 60, by: principal}
limits: {in_flight: 5, body: 1000, total: 20}
deny: [10.0.0.0/8]
websocket: true
"""


def texts() -> list[str]:
    return [
        (GOLDEN / "uploadToS3.yaml").read_text(),
        (GOLDEN / "streamToTarget.yaml").read_text(),
        route("/a/{x}/{rest:path}", "return 1", SPEC, auth="token"),
        route("/a/{y}/{more:path}", "return 1", "spec: [{method: GET}]\n"),
        route("/b", "return 1", REFERRING),
        route("/any", "return 1"),
        route("/users", "return 1", "spec: [{method: GET}]\n", auth="jwt, scopes: [a, b], groups: [g]"),
        route("/item/{id}/{rest:path}", "return 1", EVERYTHING, auth="token").replace("[]", "[up]", 1),
        "redirect: {url: 'https://new.example/{x}', status: 301}\nproxy: {path: '/old/{x}'}\n"
        "spec: [{method: GET}]\n",
    ]


def made_of(routes: tuple[Route, ...], **values: Any) -> dict[str, Any]:
    """The document for an operator; it is valid."""
    settings = Settings(**values)
    made = document(all_operations(routes, settings), settings)
    OpenAPIV31SpecValidator(made).validate()
    return made


@pytest.mark.parametrize("auth", ["none", "token", "jwt"])
def test_the_document_is_valid(tmp_path: Path, auth: str) -> None:
    made_of(load(tmp_path, *texts()).routes, auth=auth, public_url="https://files.example")


def test_the_document_says_methods_schemas_and_who_may(tmp_path: Path) -> None:
    made = made_of(load(tmp_path, *texts()).routes, auth="token")
    paths = made["paths"]
    s3 = paths["/v1/uploadToS3"]["put"]
    assert s3["security"] == [{"bearer": []}, {"token": []}]
    assert "aws_access_key_id" in s3["requestBody"]["content"]["application/json"]["schema"]["required"]
    assert list(s3["responses"]) == ["200", "400", "401", "413", "default"]
    shared = paths["/a/{y}/{more}"]  # of the first in name order
    assert set(shared) == {"parameters", "put", "get"}
    assert [one.get("description") for one in shared["parameters"]] == [
        None,
        "One segment of the path, or more, with slashes",
    ]
    assert shared["get"]["security"] == []
    assert paths["/users"]["get"]["security"] == [{"jwt": ["a", "b"]}]
    assert paths["/users"]["get"]["x-gateway-groups"] == ["g"]
    [count, flag] = shared["put"]["parameters"]
    assert (count["name"], count["required"]) == ("X-Count", True)
    assert (flag["name"], flag["required"]) == ("X-Flag", False)
    assert set(paths["/any"]) == {"get", "post", "put", "patch", "delete"}
    assert "put" in paths["/upload/{filepath}"]
    assert all(row.method.lower() in paths[row.pattern] for row in API_ROUTES)
    assert paths["/-/objects/{filepath}"]["put"]["security"] == [{"signed": []}]
    assert paths["/-/objects/{filepath}"]["get"]["security"] == [{"signed": []}]
    assert set(made["components"]["securitySchemes"]) == {"bearer", "jwt", "token", "signed"}


def test_query_path_and_headers_are_parameters_with_their_schemas(tmp_path: Path) -> None:
    made = made_of(load(tmp_path, *texts()).routes)
    paths = made["paths"]
    listed = {
        (one["in"], one["name"]): (one["required"], one["schema"])
        for one in paths["/item/{id}/{rest}"]["get"]["parameters"]
    }
    assert listed == {
        ("path", "id"): (True, {"type": "integer"}),
        ("query", "page"): (True, {"type": "integer", "minimum": 1}),
        ("query", "tag"): (False, {"type": "array", "items": {"type": "string"}}),
        ("query", "other"): (True, {}),
        ("query", "kind"): (True, {"enum": ["full"]}),
        ("header", "X-Count"): (False, {"type": "integer"}),
        ("header", "x-version"): (True, {"enum": ["2", "3"]}),
        ("header", "x-any"): (True, {"type": "string"}),
    }
    [referring] = paths["/b"]["put"]["parameters"]
    assert referring["schema"] == {"$ref": "#/components/schemas/a"}
    body = paths["/b"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/a-2"}
    schemas = made["components"]["schemas"]
    assert (schemas["a"], schemas["a-2"]) == ({"type": "integer"}, {"type": "string"})


def test_a_variable_of_another_name_gets_its_schema_at_its_place(tmp_path: Path) -> None:
    spec = "spec: [{method: GET, schema: {request: {path: {properties: {id: {type: integer}}}}}}]\n"
    routes = load(
        tmp_path,
        route("/a/{x}", "return 1", "spec: [{method: PUT}]\n"),
        route("/a/{id}", "return 1", spec),
    ).routes
    item = next(value for path, value in made_of(routes)["paths"].items() if path.startswith("/a/"))
    [shown] = item["parameters"]
    [own] = item["get"]["parameters"]
    assert own == {"name": shown["name"], "in": "path", "required": True, "schema": {"type": "integer"}}


def test_responses_have_schemas_of_normal_codes_and_the_refusals_of_the_gateway(tmp_path: Path) -> None:
    paths = made_of(load(tmp_path, *texts()).routes)["paths"]
    responses = paths["/item/{id}/{rest}"]["get"]["responses"]
    codes = ["101", "200", "206", "400", "401", "403", "413", "429", "503", "default"]
    assert list(responses) == codes
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
    assert responses["206"]["content"]["application/json"]["schema"] == schema
    assert responses["429"]["description"] == "More than 10 requests of one principal in 60 seconds"
    assert set(responses["503"]["headers"]) == {"Retry-After"}
    posted = paths["/item/{id}/{rest}"]["post"]
    assert list(posted["responses"]) == ["2XX", "401", "403", "413", "429", "503", "default"]
    assert posted["responses"]["2XX"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/a-2"
    }
    moved = paths["/old/{x}"]["get"]["responses"]
    assert list(moved) == ["301", "default"]
    assert moved["301"]["headers"]["Location"]["description"] == "https://new.example/{x}"


def test_faults_of_a_schema_have_each_place(tmp_path: Path) -> None:
    made = made_of(load(tmp_path, *texts()).routes)
    fault = made["components"]["schemas"]["Fault"]
    assert fault["properties"]["in"] == {"enum": ["body", "headers", "query", "path"]}
    bad = made["paths"]["/item/{id}/{rest}"]["get"]["responses"]["400"]
    assert bad == {"$ref": "#/components/responses/BadSchema"}


def test_hosts_are_servers_and_what_openapi_has_no_words_for_is_an_extension(tmp_path: Path) -> None:
    routes = load(tmp_path, *texts()).routes
    operation = made_of(routes, public_url="https://files.example:8443")["paths"]["/item/{id}/{rest}"][
        "get"
    ]
    assert [server["url"] for server in operation["servers"]] == [
        "https://shop.example:8443",
        "https://{name}.shop.example:8443",
    ]
    assert operation["x-gateway-hosts"] == ["shop.example", "*.shop.example"]
    assert operation["x-gateway-websocket"] is True
    assert operation["x-gateway-limits"] == {
        "requests": {"count": 10, "seconds": 60, "by": "principal"},
        "in_flight": 5,
        "body_bytes": 1000,
        "seconds": 20.0,
    }
    assert operation["x-gateway-when"] == {
        "headers": {"x-version": ["2", "3"], "x-any": True, "x-not": False},
        "query": {"page": True, "kind": ["full"]},
    }
    bare = made_of(routes)["paths"]["/item/{id}/{rest}"]["get"]["servers"][0]
    assert bare == {"url": "//shop.example"}


@pytest.mark.parametrize(("auth", "also"), [("none", [{}]), ("token", [{"bearer": []}, {"token": []}])])
def test_with_downloads_stored_files_are_open_to_whom_downloads_are(
    auth: Literal["none", "token"], also: list[object]
) -> None:
    paths = made_of((), auth=auth, downloads=True)["paths"]
    assert paths["/-/objects/{filepath}"]["get"]["security"] == [{"signed": []}, *also]
    assert paths["/-/objects/{filepath}"]["put"]["security"] == [{"signed": []}]


def test_what_is_served_of_stored_files_is_described() -> None:
    off = made_of(())["paths"]
    assert not {"get", "delete"} & off["/upload/{filepath}"].keys()
    assert "/upload/" not in off
    made = made_of((), downloads=True, listing=True, deletes=True)
    upload, folder = made["paths"]["/upload/{filepath}"], made["paths"]["/upload/"]
    assert list(upload["delete"]["responses"]) == ["204", "default"]
    assert upload["get"]["summary"] == "The file"
    assert [one["name"] for one in folder["get"]["parameters"]] == [
        "limit",
        "cursor",
        "recursive",
        "search",
    ]
    listed = made["paths"]["/-/uploads"]["get"]
    assert {one["name"] for one in listed["parameters"]} >= {"principal", "since", "state", "cursor"}


BY_STATUS = """
spec:
- method: POST
  description: At length
  tags: [things]
  schema:
    request: {body: {type: object}, body_optional: true, other_types: [text/csv]}
    response:
      bodies: {"200": {type: object}, 4XX: {type: string}, default: {type: integer}}
"""


def test_bodies_of_other_types_and_responses_by_status_are_described(tmp_path: Path) -> None:
    routes = load(tmp_path, route("/things", "return 1", BY_STATUS)).routes
    operation = made_of(routes)["paths"]["/things"]["post"]
    assert (operation["description"], operation["tags"]) == ("At length", ["things"])
    assert operation["requestBody"]["required"] is False
    assert list(operation["requestBody"]["content"]) == ["application/json", "text/csv"]
    types = {
        code: response["content"]["application/json"]["schema"].get("type")
        for code, response in operation["responses"].items()
        if "content" in response
    }
    assert types == {"200": "object", "413": None, "4XX": "string", "default": "integer"}
    assert list(operation["responses"])[-1] == "default"
