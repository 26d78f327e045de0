"""Templates of paths: what they match, and that no match leads out of a root."""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from itertools import product
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.domain import paths
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.errors import Refusal
from tests.support.hostile_paths import BAD_NAMES, HOSTILE, refused, stays_below_root

DEFAULT = UploadPathTemplate.parse("/upload/{filepath}")


@pytest.mark.parametrize(
    ("template", "raw", "path", "resources"),
    [
        ("/upload/{filepath}", "/upload/a/b.bin", "/upload/a/b.bin", {"filepath": "a/b.bin"}),
        ("/upload/{filepath}", "/upload/a%2Fb", "/upload/a/b", {"filepath": "a/b"}),
        ("/upload/{filepath}", "/%75pload/a%20b", "/upload/a b", {"filepath": "a b"}),
        ("/upload/{filepath}", "/upload/%252e%252e/x", "/upload/%2e%2e/x", {"filepath": "%2e%2e/x"}),
        ("/upload/{filepath}", "/upload/...", "/upload/...", {"filepath": "..."}),
        ("/upload/{filepath}", "/upload/．．/x", "/upload/．．/x", {"filepath": "．．/x"}),
        ("/files/{t}/{filepath}", "/files/acme/a/b", "/upload/a/b", {"t": "acme", "filepath": "a/b"}),
        ("/{filepath}/raw/{t}", "/a/raw/raw/x", "/upload/a/raw", {"filepath": "a/raw", "t": "x"}),
        ("/in/{t}/{filename}", "/in/acme/f.txt", "/upload/f.txt", {"t": "acme", "filename": "f.txt"}),
        ("/{filename}/of/{t}", "/f/of/acme", "/upload/f", {"t": "acme", "filename": "f"}),
        ("/été/{filename}", "/%C3%A9t%C3%A9/f", "/upload/f", {"filename": "f"}),
    ],
)
def test_a_path_of_the_templates_shape_gives_its_variables(
    template: str, raw: str, path: str, resources: dict[str, str]
) -> None:
    assert UploadPathTemplate.parse(template).match(raw) == PathMatch(path, resources)


@pytest.mark.parametrize(("template", "resources"), [("/in/{t}", {"t": "x"}), ("/in/x", {})])
def test_without_a_file_variable_the_name_is_a_new_uuid(
    template: str, resources: dict[str, str]
) -> None:
    first, second = (UploadPathTemplate.parse(template).match("/in/x") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.resources == resources
    assert uuid.UUID(first.path.removeprefix("/upload/")).version == 4
    assert first.path != second.path


@pytest.mark.parametrize(
    ("template", "raw"),
    [
        ("/upload/{filepath}", raw)
        for raw in (
            "",
            "/",
            "/upload",
            "//upload/x",
            "/other/x",
            "/other/%zz",
            "/up%zz/x",
            "/x/../upload/a",
        )
    ]
    + [("/upload/{filepath}", raw) for raw in ("upload/x", "/upload%2Fx", "/Upload/x", "/-/health")]
    + [("/{filepath}", "/-/health"), ("/{filepath}", "/%2D/health"), ("/{a}/{b}", "/-/health")]
    + [
        ("/in/{filename}", "/in/a/b"),
        ("/in/{t}/{filename}", "/in/a"),
        ("/in/{filepath}/raw", "/in/raw"),
    ],
)
def test_a_path_of_another_shape_is_no_upload_path(template: str, raw: str) -> None:
    assert UploadPathTemplate.parse(template).match(raw) is None


@pytest.mark.parametrize(
    "name",
    [*BAD_NAMES.split(" "), "a" * 256, "é" * 128, "a/" * 99 + "b", "/".join(["a" * 255] * 14)],
)
def test_a_bad_file_name_below_the_upload_path_is_refused(name: str) -> None:
    with refused():
        DEFAULT.match("/upload/" + name)


@pytest.mark.parametrize("raw", ["/in//x", "/in/a%2Fb/x", "/in/../x", "/in/%2e%2e/x", "/in/a/..%2fx"])
def test_every_single_segment_variable_is_checked_like_a_segment(raw: str) -> None:
    with refused():
        UploadPathTemplate.parse("/in/{t}/{filename}").match(raw)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "start with a slash"),
        ("upload/{filepath}", "start with a slash"),
        ("/", "segment 1: it is empty"),
        ("/upload/", "segment 2: it is empty"),
        ("/a//{filepath}", "segment 2: it is empty"),
        ("/a/../{filepath}", "dot segment"),
        ("/a\n/{filepath}", "control character"),
        ("/a%20b/{filepath}", "without %"),
        ("/a?b/{filepath}", "without %"),
        ("/a/{file", "whole segment"),
        ("/a/x{file}", "whole segment"),
        ("/a/{}", "whole segment"),
        ("/a/{file-name}", "whole segment"),
        ("/a/{rest:path}", "only {filepath} spans"),
        ("/{rest:path}/a", "at its end only"),
        ("/{a}/{a}", "{a} more than once"),
        ("/{filepath}/x/{filepath}", "more than once"),
        ("/{filename}/{filepath}", "both {filepath} and {filename}"),
        ("/-/{filepath}", "reserved for the gateway"),
    ],
)
def test_a_bad_template_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="upload path template") as caught:
        UploadPathTemplate.parse(text)
    assert reason in str(caught.value)


@given(HOSTILE)
@example("..%2f..%2fx")
def test_whatever_match_accepts_stays_below_any_root(name: str) -> None:
    for template in (
        DEFAULT,
        UploadPathTemplate.parse("/{t}/{filename}"),
        UploadPathTemplate.parse("/upload/{filepath}/{t}"),
    ):
        with suppress(Refusal):
            match = template.match("/upload/" + name)
            if match is not None:
                assert match.path.startswith("/upload/")
                assert all(map(stays_below_root, [match.path, *match.resources.values()]))


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8))
@example(["e\u0301", "\u00e9", "%2e", "a+b", "{filepath}"])
def test_a_quoted_path_matches_back_to_itself(segments: list[str]) -> None:
    path = "/upload/" + "/".join(segments)
    try:
        paths.check_path(path)
    except Refusal:
        return
    match = DEFAULT.match(quote(path))
    assert match == PathMatch(path, {"filepath": path.removeprefix("/upload/")})


def test_every_short_spelling_of_traversal_is_refused_or_contained() -> None:
    tokens = ("%", "25", "2e", "2f", ".", "/", "\\", "a")
    accepted = 0
    for length in range(1, 6):
        for spelling in product(tokens, repeat=length):
            try:
                match = DEFAULT.match("/upload/" + "".join(spelling))
            except Refusal:
                continue
            assert match is not None
            assert stays_below_root(match.path), spelling
            accepted += 1
    assert accepted > 1000


@pytest.mark.parametrize(
    ("template", "stored", "raw", "path"),
    [
        ("/files/{t}/{filepath}", "/{t}/{filepath}", "/files/acme/a/b", "/acme/a/b"),
        ("/files/{t}/{filepath}", "/in/{filepath}/of/{t}", "/files/acme/a/b", "/in/a/b/of/acme"),
        ("/upload/{filepath}", "/spool/{filepath}", "/upload/a/b", "/spool/a/b"),
        ("/in/{t}/{filename}", "/x/{t}-of", "/in/acme/f", None),
        ("/in/{t}/{filename}", "/{filename}/{t}", "/in/{filename}/f", "/f/{filename}"),
        ("/in/{t}", "/avatars/{t}", "/in/ann", "/avatars/ann"),
    ],
)
def test_a_stored_path_is_made_of_the_variables(
    template: str, stored: str, raw: str, path: str | None
) -> None:
    if path is None:
        with pytest.raises(ValueError, match="stored path template"):
            UploadPathTemplate.parse(template, stored)
        return
    match = UploadPathTemplate.parse(template, stored).match(raw)
    assert match is not None
    assert match.path == path
    assert UploadPathTemplate.parse(template, stored).unstored_variables == []


def test_a_file_without_a_name_gets_a_uuid_in_its_stored_path() -> None:
    match = UploadPathTemplate.parse("/in/{t}", "/{t}/{filename}").match("/in/acme")
    assert match is not None
    assert uuid.UUID(match.path.removeprefix("/acme/")).version == 4
    assert match.resources == {"t": "acme"}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("a/{filepath}", "must start with a slash"),
        ("/{filepath}/", "consists of names"),
        ("/{filepath:path}", "consists of names"),
        ("/{t}", "needs {filepath}"),
        ("/{t}/{filename}", "has the variable {filename}"),
        ("/{unknown}/{filepath}", "has the variable {unknown}"),
        ("/.gateway/{filepath}", "leads to a place of the gateway itself"),
        ("/../{filepath}", "is a dot segment"),
    ],
)
def test_a_stored_path_that_cannot_be_is_refused(stored: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        UploadPathTemplate.parse("/files/{t}/{filepath}", stored)


@pytest.mark.parametrize(
    ("template", "stored", "unstored"),
    [
        ("/files/{t}/{filepath}", None, ["t"]),
        ("/v/{a}/{b}/{filename}", None, ["a", "b"]),
        ("/files/{t}/{filepath}", "/{filepath}", []),
        ("/upload/{filepath}", None, []),
        ("/in/{t}", None, []),
    ],
)
def test_variables_that_are_in_no_stored_path_are_told(
    template: str, stored: str | None, unstored: list[str]
) -> None:
    assert UploadPathTemplate.parse(template, stored).unstored_variables == unstored


@given(raw=st.text(), stored=st.sampled_from(["/{t}/{filepath}", "/a/{filepath}/{t}"]))
@example(raw="/files/%2e%2e/x", stored="/{t}/{filepath}")
@example(raw="/files/.gateway/x", stored="/{t}/{filepath}")
@example(raw="/files/t/../x", stored="/{t}/{filepath}")
def test_no_stored_path_leads_out_of_the_root(raw: str, stored: str) -> None:
    template = UploadPathTemplate.parse("/files/{t}/{filepath}", stored)
    with suppress(Refusal):
        match = template.match(raw)
        assert match is None or stays_below_root(match.path)


@pytest.mark.parametrize(
    ("template", "stored", "path", "spelled"),
    [
        ("/upload/{filepath}", None, "/upload/a/b.bin", "/upload/a/b.bin"),
        ("/upload/{filepath}", None, "/upload/a b%é?#", "/upload/a%20b%25%C3%A9%3F%23"),
        ("/upload/{filepath}", None, "/archive/b.bin", None),
        ("/été/{filepath}", None, "/upload/x", "/%C3%A9t%C3%A9/x"),
        ("/api/{filename}", None, "/upload/b.bin", "/api/b.bin"),
        ("/api/{filename}", None, "/upload/a/b.bin", None),
        ("/{filepath}/raw", None, "/upload/a/b", "/a/b/raw"),
        ("/{filepath}", None, "/upload/-/health", None),
        ("/in/{t}/{filename}", None, "/upload/b.bin", None),
        ("/in/{t}/{filename}", "/{t}/{filename}", "/acme/b bin", "/in/acme/b%20bin"),
        ("/in/{t}/{filepath}", "/{filepath}/of/{t}", "/a/b/of/acme", "/in/acme/a/b"),
        ("/in/{t}/{filepath}", "/{filepath}/of/{t}", "/a/b/off/acme", None),
        ("/in/{t}", None, "/upload/b.bin", None),
        ("/in/{t}", "/{t}/{filename}", "/acme/b.bin", None),
        ("/in/{t}", "/{t}", "/acme", "/in/acme"),
    ],
)
def test_a_stored_path_is_spelled_as_its_upload_path_if_it_has_one(
    template: str, stored: str | None, path: str, spelled: str | None
) -> None:
    assert UploadPathTemplate.parse(template, stored).spell(path) == spelled


@pytest.mark.parametrize("template", ["/upload/{filepath}", "/{filepath}/{t}", "/in/{filename}"])
@given(name=st.text(min_size=1))
def test_what_is_spelled_leads_to_the_stored_path(template: str, name: str) -> None:
    parsed, path = UploadPathTemplate.parse(template, None), f"/upload/{name}"
    with suppress(Refusal):
        paths.check_path(path)
        if (spelled := parsed.spell(path)) is not None:
            assert spelled.isascii()
            match = parsed.match(spelled)
            assert match is not None
            assert match.path == path
