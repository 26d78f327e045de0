"""Which paths are those of a file, which of a folder, and the path of what is created there."""

from __future__ import annotations

import re

import pytest

from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.resumable.places import UploadPlace
from gateway.errors import Refusal

UPLOAD = UploadPathTemplate.parse("/upload/{filepath}")
TENANTS = UploadPathTemplate.parse("/v1/{tenant}/{filename}")
NAMELESS = UploadPathTemplate.parse("/images/{tenant}")
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    ("template", "raw_path", "is_folder"),
    [
        (UPLOAD, "/upload/x", False),
        (UPLOAD, "/upload/a%20b/c", False),
        (UPLOAD, "/upload/", True),
        (UPLOAD, "/upload/a/b/", True),
        (TENANTS, "/v1/acme/x", False),
        (TENANTS, "/v1/acme/", True),
        (NAMELESS, "/images/acme", False),
    ],
)
def test_a_path_is_that_of_a_file_or_of_a_folder(
    template: UploadPathTemplate, raw_path: str, is_folder: bool
) -> None:
    place = UploadPlace.find(template, raw_path)
    assert place is not None
    assert (place.match is None) == is_folder


@pytest.mark.parametrize("raw_path", ["/", "/upload", "/other/", "/v1/acme/", "/-/uploads/x"])
def test_another_path_is_no_upload_path(raw_path: str) -> None:
    assert UploadPlace.find(UPLOAD, raw_path) is None


@pytest.mark.parametrize(
    ("template", "raw_path"), [("/{filepath}/of/{team}", "/a/of/"), ("/in/{team}", "/in/")]
)
def test_a_path_whose_end_names_no_file_is_no_folder(template: str, raw_path: str) -> None:
    assert UploadPlace.find(UploadPathTemplate.parse(template), raw_path) is None


@pytest.mark.parametrize("raw_path", ["/upload/a//b", "/upload/..%2f", "/upload/../", "/upload//"])
def test_a_bad_path_is_refused(raw_path: str) -> None:
    with pytest.raises(Refusal) as caught:
        UploadPlace.find(UPLOAD, raw_path)
    assert caught.value.code == "bad_path"


def place_of(raw_path: str, template: UploadPathTemplate = UPLOAD) -> UploadPlace:
    place = UploadPlace.find(template, raw_path)
    assert place is not None
    return place


def test_the_path_of_a_file_stays_whatever_name_is_given() -> None:
    target = place_of("/upload/a%20b").target("other")
    assert (target.match.path, target.asked_path) == ("/upload/a b", "/upload/a%20b")
    assert not target.named_by_gateway


def test_a_file_in_a_folder_has_the_name_that_is_given() -> None:
    target = place_of("/upload/in/").target("caf\u00e9 1%.txt")
    assert target.match.path == "/upload/in/caf\u00e9 1%.txt"
    assert target.asked_path == "/upload/in/caf%C3%A9%201%25.txt"
    assert not target.named_by_gateway
    assert place_of("/v1/acme/", TENANTS).target("x").match.resources == {
        "tenant": "acme",
        "filename": "x",
    }


@pytest.mark.parametrize("name", [None, ""])
def test_a_file_in_a_folder_without_a_name_gets_one(name: str | None) -> None:
    target = place_of("/upload/in/").target(name)
    assert re.fullmatch(f"/upload/in/{UUID}", target.match.path)
    assert target.asked_path == target.match.path
    assert target.named_by_gateway


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "/x", "a\\b", "x\n", "n" * 256])
def test_a_name_that_is_no_path_is_refused(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        place_of("/upload/in/").target(name)
    assert caught.value.code == "bad_path"
