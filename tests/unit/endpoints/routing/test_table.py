"""Precedence, ambiguity and methods of routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.endpoints.routing.table import MethodNotAllowed, RouteTable
from gateway.errors import Refusal
from gateway.plugins import PluginErrors
from tests.support.routing.scripted import find, load, route

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
        ("/", "/{r:path}"),
        ("/z/z/z", "/{r:path}"),
    ],
)
def test_literals_beat_variables_beat_the_rest_segment_by_segment(
    tmp_path: Path, asked: str, path: str
) -> None:
    table = load(tmp_path, *(route(one, ANSWER) for one in PATHS))
    assert find(table, asked).route.path == path


def test_variables_are_decoded_once_and_kept_raw_for_the_upstream(tmp_path: Path) -> None:
    found = find(load(tmp_path, route("/{a}/{b:path}", ANSWER)), "/x%2520y/p%25q/r%20")
    assert found.resources == {"a": "x%20y", "b": "p%q/r "}
    assert found.raw_resources == {"a": "x%2520y", "b": "p%25q/r%20"}


DOTS = ["..", "%2e%2e", ".", ".%2e", "%252e%252e", "..;", ".;x", "..%3b", "..%253Bx", "%2e;"]
HARMFUL = ["%00", "%2500", "%5C..", "a%5cb", "a%255Cb", "%0a", "%zz", "%ff", "\\"]
SPLITS = ["x%2Fy", "x%2fy", "x%252Fy", "%2F", "x;y", "x;", ";", "x%3By", "x%253by"]


@pytest.mark.parametrize("segment", DOTS + HARMFUL + SPLITS)
@pytest.mark.parametrize("path", ["/a/{x}", "/a/{x:path}"])
def test_values_that_servers_read_in_two_ways_are_refused(
    tmp_path: Path, path: str, segment: str
) -> None:
    table = load(tmp_path, route(path, ANSWER))
    assert bad_path(table, f"/a/{segment}")


@pytest.mark.parametrize("path", ["/a//b", "/a//", "//a", "/a/b//c", "/a/;/b", "/a/x/..;/b", "//"])
def test_a_rest_has_no_empty_segment_but_the_last(tmp_path: Path, path: str) -> None:
    table = load(tmp_path, route("/{x:path}", ANSWER))
    assert bad_path(table, path)
    assert find(table, "/a/b/").resources == {"x": "a/b/"}
    assert find(table, "/").resources == {"x": ""}


RAW = "target: {raw_path: true}\n"


@pytest.mark.parametrize("rest", ["x%2Fy", "x%252fy", "x//y", "/x", "x;v=1", "a%3Bb", "x//"])
def test_raw_path_lets_the_rest_pass_as_it_was_written(tmp_path: Path, rest: str) -> None:
    found = find(load(tmp_path, route("/a/{x:path}", ANSWER, RAW)), f"/a/{rest}")
    assert found.raw_resources == {"x": rest}


@pytest.mark.parametrize("segment", [*DOTS, "..%2fb", "b%2F..%2f", "b%252f..", "x;/..;y/z", *HARMFUL])
def test_raw_path_lets_no_dot_segments_and_control_characters_pass(tmp_path: Path, segment: str) -> None:
    assert bad_path(load(tmp_path, route("/a/{x:path}", ANSWER, RAW)), f"/a/{segment}")


def test_raw_path_is_for_the_rest_alone(tmp_path: Path) -> None:
    table = load(tmp_path, route("/a/{x}/{y:path}", ANSWER, RAW))
    assert bad_path(table, "/a/x%2Fy/z")


STRICTER = [
    route("/a/admin/{x:path}", ANSWER, auth="token"),
    route("/a/{x}/admin", ANSWER, auth="default"),
    route("/a/me", ANSWER, "rate_limit: {count: 1}\n"),
    route("/a/me", ANSWER, "spec: [{method: PUT, schema: {request: {body: {type: object}}}}]\n"),
]


@pytest.mark.parametrize("stricter", STRICTER)
def test_raw_path_is_refused_where_a_stricter_route_is_below(tmp_path: Path, stricter: str) -> None:
    [fault] = refused(tmp_path, route("/a/{x:path}", ANSWER, RAW), stricter)
    assert fault.startswith("0.yaml:5: with `raw_path: true` requests could avoid what /a/")
    load(tmp_path, route("/b/{x:path}", ANSWER, RAW), stricter)


def bad_path(table: RouteTable, path: str) -> bool:
    with pytest.raises(Refusal) as caught:
        find(table, path)
    return caught.value.code == "bad_path"


@pytest.mark.parametrize(
    "path",
    [
        "/a/ADMIN/x",
        "/a/Admin/x",
        "/a/admin%C2%A0/x",
        "/a/%20me",
        "/a/%EF%BD%81dmin/x",
        "/a/me.%20.",
        "/a/admin.%20/x",
        "/a/admin",
        "/a/admin/X/..%2f",
        "/a/ME",
        "/a/me/",
    ],
)
def test_another_spelling_of_a_stricter_route_never_falls_to_an_open_one(
    tmp_path: Path, path: str
) -> None:
    table = load(
        tmp_path,
        route("/a/{x:path}", ANSWER),
        route("/a/admin/{x:path}", ANSWER, auth="token"),
        route("/a/me", ANSWER, auth="token"),
    )
    assert bad_path(table, path)
    assert find(table, "/a/admin/x").route.auth == "token"
    for plain in ("/a/administrator", "/a/x/admin/y", "/a/mean", "/a/"):
        assert find(table, plain).route.auth == "none"


def test_routes_beside_stricter_ones_keep_their_own_paths(tmp_path: Path) -> None:
    table = load(
        tmp_path,
        route("/", ANSWER),
        route("/a", ANSWER),
        route("/A/{x}", ANSWER),
        route("/{x:path}", ANSWER, auth="token"),
        route("/a/{x}", ANSWER, auth="token"),
    )
    for path, auth in (("/", "none"), ("/a", "none"), ("/A/1", "none"), ("/a/1", "token")):
        assert find(table, path).route.auth == auth


def test_routes_of_one_path_share_it_by_method(tmp_path: Path) -> None:
    table = load(tmp_path, route("/a", ANSWER, spec("GET", "PUT")), route("/a", ANSWER, spec("POST")))
    assert find(table, "/a", "POST").route.name == "POST /a"
    with pytest.raises(MethodNotAllowed) as caught:
        find(table, "/a", "DELETE")
    assert caught.value.headers["Allow"] == "GET, POST, PUT"


def test_no_routes_is_a_404() -> None:
    with pytest.raises(Refusal) as caught:
        find(RouteTable(), "/%zz")
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
    assert fault.endswith(
        f"0.yaml:2 both serve {methods}: change one, or set them apart by `hosts` or `when`"
    )


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


SITE = """
upstreams: [up:1]
proxy: {path: '/{x:path}', authorization: {auth: none}}
---
upstreams: [UP]
proxy: {path: '/admin/{x:path}', authorization: {auth: token}}
"""


def test_a_load_warns_of_an_open_route_over_a_protected_one_of_its_upstream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tmp_path, SITE.replace("UP", "up:1"))
    [record] = caplog.records
    assert record.getMessage().startswith(f"{tmp_path}/0.yaml:3: /{{x:path}} is open to all and covers")
    assert getattr(record, "event", None) == "route.exposed"
    caplog.clear()
    load(tmp_path, SITE.replace("UP", "another:1"))
    assert not caplog.records
