"""The OpenAPI document of the routes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.domain.api_routes import API_ROUTES
from gateway.endpoints.routing.openapi import document
from gateway.settings import Settings
from tests.support import TESTS
from tests.support.routing.scripted import SPEC, load, route

GOLDEN = TESTS / "golden" / "plugins"


REFERRING = """
spec:
- method: PUT
  usage: refers
  schema: {request: {body: {$ref: "#/$defs/a", $defs: {a: {type: string}}}}}
"""


def texts() -> list[str]:
    return [
        (GOLDEN / "uploadToS3.yaml").read_text(),
        (GOLDEN / "streamToTarget.yaml").read_text(),
        route("/a/{x}/{rest:path}", "return 1", SPEC, auth="token"),
        route("/a/{y}/{more:path}", "return 1", "spec: [{method: GET}]\n"),
        route("/b", "return 1", REFERRING),
        route("/any", "return 1"),
        route("/users", "return 1", "spec: [{method: GET}]\n", auth="jwt, scopes: [a, b]"),
    ]


@pytest.mark.parametrize("auth", ["none", "token", "jwt"])
def test_the_document_is_valid(tmp_path: Path, auth: str) -> None:
    made = document(
        load(tmp_path, *texts()).routes, Settings(auth=auth, public_url="https://files.example")
    )
    OpenAPIV31SpecValidator(made).validate()


def test_the_document_says_methods_schemas_and_who_may(tmp_path: Path) -> None:
    paths = document(load(tmp_path, *texts()).routes, Settings(auth="token"))["paths"]
    s3 = paths["/v1/uploadToS3"]["put"]
    assert s3["security"] == [{"bearer": []}, {"token": []}]
    assert "aws_access_key_id" in s3["requestBody"]["content"]["application/json"]["schema"]["required"]
    assert list(s3["responses"]) == ["200", "default"]
    shared = paths["/a/{y}/{more}"]  # of the first in name order
    assert set(shared) == {"parameters", "put", "get"}
    assert shared["get"]["security"] == []
    assert paths["/users"]["get"]["security"] == [{"jwt": ["a", "b"]}]
    [count, flag] = shared["put"]["parameters"]
    assert (count["name"], count["required"]) == ("X-Count", True)
    assert (flag["name"], flag["required"]) == ("X-Flag", False)
    assert set(paths["/any"]) == {"get", "post", "put", "patch", "delete"}
    assert "put" in paths["/upload/{filepath}"]
    assert all(row.method.lower() in paths[row.pattern] for row in API_ROUTES)
    assert paths["/-/objects/{filepath}"]["put"]["security"] == [{"signed": []}]
    assert paths["/-/objects/{filepath}"]["get"]["security"] == [{"signed": []}]


@pytest.mark.parametrize(("auth", "also"), [("none", [{}]), ("token", [{"bearer": []}, {"token": []}])])
def test_with_downloads_stored_files_are_open_to_whom_downloads_are(
    auth: Literal["none", "token"], also: list[object]
) -> None:
    paths = document([], Settings(auth=auth, downloads=True))["paths"]
    assert paths["/-/objects/{filepath}"]["get"]["security"] == [{"signed": []}, *also]
    assert paths["/-/objects/{filepath}"]["put"]["security"] == [{"signed": []}]


def test_what_is_served_of_stored_files_is_described(tmp_path: Path) -> None:
    off = document([], Settings())["paths"]
    assert not {"get", "delete"} & off["/upload/{filepath}"].keys()
    assert "/upload/" not in off
    made = document([], Settings(downloads=True, listing=True, deletes=True))
    OpenAPIV31SpecValidator(made).validate()
    upload, folder = made["paths"]["/upload/{filepath}"], made["paths"]["/upload/"]
    assert list(upload["delete"]["responses"]) == ["204", "default"]
    assert upload["get"]["summary"] == "The file"
    assert [one["name"] for one in folder["get"]["parameters"]] == ["limit", "cursor", "recursive"]
    listed = made["paths"]["/-/uploads"]["get"]
    assert {one["name"] for one in listed["parameters"]} >= {"principal", "since", "state", "cursor"}
