"""What the path of an upload names: a file, a folder, or nothing that is stored."""

from __future__ import annotations

import pytest

from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.resumable.places import UploadPlace


@pytest.mark.parametrize(
    ("template", "raw_path", "name", "path"),
    [
        ("/upload/{filepath}", "/upload/", "a b%", "/upload/a b%"),
        ("/upload/{filepath}", "/upload/docs/", "a", "/upload/docs/a"),
        ("/in/{team}/{filename}", "/in/red/", "a", "/upload/a"),
        ("/upload/{filepath}", "/upload/x", "a", "/upload/x"),
    ],
)
def test_a_folder_gives_each_file_its_name(template: str, raw_path: str, name: str, path: str) -> None:
    place = UploadPlace.find(UploadPathTemplate.parse(template), raw_path)
    assert place is not None
    assert place.target(name).match.path == path


@pytest.mark.parametrize(
    ("template", "raw_path"),
    [
        ("/upload/{filepath}", "/other/"),
        ("/{filepath}/of/{team}", "/a/of/"),
        ("/in/{team}", "/in/"),
        ("/{filepath}", "/"),
    ],
)
def test_a_path_whose_end_names_no_file_is_no_folder(template: str, raw_path: str) -> None:
    assert UploadPlace.find(UploadPathTemplate.parse(template), raw_path) is None
