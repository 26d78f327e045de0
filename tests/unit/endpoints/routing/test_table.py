"""Precedence, ambiguity and methods of routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.endpoints.routing.table import MethodNotAllowed, RouteTable
from gateway.errors import Refusal
from gateway.plugins import PluginErrors
from tests.support.routing.scripted import load, route

ANSWER = "return 'x'"


def spec(*methods: str) -> str:
    return "spec: [" + ", ".join(f"{{method: {method}}}" for method in methods) + "]\n"


def refused(folder: Path, *texts: str, uploads: str = "/upload/{filepath}") -> list[str]:
    with pytest.raises(PluginErrors) as caught:
        load(folder, *texts, uploads=uploads)
    return [str(fault).replace(f"{folder}/", "") for fault in caught.value.errors]


PATHS = ["/a/b", "/a/{x}", "/{x}/b", "/{x}/{y}", "/a/{x}/c", "/a/{r:path}", "/{r:path}", "/a/"]


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/a/b", "/a/b"),
        ("/%61/b", "/a/b"),
        ("/a/z", "/a/{x}"),
        ("/z/b", "/{x}/b"),
        ("/z/z", "/{x}/{y}"),
        ("/a/b/c", "/a/{x}/c"),
        ("/a/b/d", "/a/{r:path}"),
        ("/a/", "/a/"),
        ("/a//", "/a/{r:path}"),
        ("/", "/{r:path}"),
        ("/z/z/z", "/{r:path}"),
    ],
)
def test_literals_beat_variables_beat_the_rest_segment_by_segment(
    tmp_path: Path, asked: str, path: str
) -> None:
    table = load(tmp_path, *(route(one, ANSWER) for one in PATHS))
    assert table.find(asked, "GET").route.path == path


def test_variables_are_decoded_once_and_kept_raw_for_the_upstream(tmp_path: Path) -> None:
    found = load(tmp_path, route("/{a}/{b:path}", ANSWER)).find("/x%2520y/p%2Fq/r%20", "GET")
    assert found.resources == {"a": "x%20y", "b": "p/q/r "}
    assert found.raw_resources == {"a": "x%2520y", "b": "p%2Fq/r%20"}


@pytest.mark.parametrize(
    "path", ["/a/..", "/a/%2e%2e", "/a/.", "/a/x%2Fy", "/a/%00", "/a/%5C..", "/a/%zz", "/a/%ff"]
)
def test_paths_with_two_meanings_are_refused(tmp_path: Path, path: str) -> None:
    table = load(tmp_path, route("/a/{x}", ANSWER))
    with pytest.raises(Refusal) as caught:
        table.find(path, "GET")
    assert caught.value.code == "bad_path"


def test_routes_of_one_path_share_it_by_method(tmp_path: Path) -> None:
    table = load(tmp_path, route("/a", ANSWER, spec("GET", "PUT")), route("/a", ANSWER, spec("POST")))
    assert table.find("/a", "POST").route.name == "POST /a"
    with pytest.raises(MethodNotAllowed) as caught:
        table.find("/a", "DELETE")
    assert caught.value.headers["Allow"] == "GET, POST, PUT"


def test_no_routes_is_a_404() -> None:
    with pytest.raises(Refusal) as caught:
        RouteTable().find("/%zz", "GET")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize(
    ("first", "second", "methods"),
    [
        (route("/a/{x}", ANSWER), route("/a/{y}", ANSWER), "every method"),
        (route("/a", ANSWER, spec("GET")), route("/a", ANSWER, spec("PUT", "GET")), "GET"),
        (route("/a", ANSWER), route("/a", ANSWER, spec("PUT")), "PUT"),
        (route("/{x:path}", ANSWER), route("/{y:path}", ANSWER), "every method"),
    ],
)
def test_routes_that_could_both_answer_are_refused_with_both_places(
    tmp_path: Path, first: str, second: str, methods: str
) -> None:
    [fault] = refused(tmp_path, first, second)
    assert fault.startswith("1.yaml:2: this and the path at ")
    assert fault.endswith(f"0.yaml:2 both serve {methods}: change one")


def test_two_routes_of_one_list_are_told_apart_by_their_lines(tmp_path: Path) -> None:
    one = "- upstreams: []\n  proxy: {path: /a}\n"
    [fault] = refused(tmp_path, one + one)
    assert fault.startswith("0.yaml:4: ")
    assert "0.yaml:2 both" in fault


@pytest.mark.parametrize(
    ("path", "uploads"),
    [
        ("/upload/{x}", "/upload/{filepath}"),
        ("/upload/x/y", "/upload/{filepath}"),
        ("/upload/{x:path}", "/upload/{filepath}"),
        ("/v1/x", "/{filepath}"),
        ("/files/{x}", "/files/{filename}"),
        ("/a/b/c", "/a/{filepath}/c"),
    ],
)
def test_routes_that_meet_the_upload_path_are_refused(tmp_path: Path, path: str, uploads: str) -> None:
    [fault] = refused(tmp_path, route(path, ANSWER), uploads=uploads)
    assert fault.startswith(
        f"0.yaml:2: this path overlaps the upload path {uploads} (--file-upload-api-path)"
    )


def test_a_more_general_route_may_stand_behind_the_upload_path(tmp_path: Path) -> None:
    load(tmp_path, route("/{x:path}", ANSWER))
    load(tmp_path, route("/{x}/{y}", ANSWER))
