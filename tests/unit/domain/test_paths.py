"""Foundation tests: what a target, a template and a path mean, and that nothing leads out of a root."""

from __future__ import annotations

import os.path
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.domain import paths
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.errors import Refusal

DEFAULT = UploadPathTemplate.parse("/upload/{filepath}")
ROOT = "/srv/data"
BAD_NAMES = (
    " .. ../x . a//b a/ a/../b %2e%2e/x %2E./x ..%2fx a%2F%2Fb %2F a%00b a%0ab a%7f a%C2%85"
    " a%E2%80%A8 a%5Cb a\\b %c0%ae%c0%ae/x %zz %"
)
HOSTILE = st.text(
    st.sampled_from(
        ["%", "2", "e", "E", "5", "c", "f", ".", "/", "\\", "a", "\0", "\n", "é", "．", "\udcff"]
    )
    | st.characters()
)


@contextmanager
def refused(code: str = "bad_path") -> Iterator[None]:
    with pytest.raises(Refusal) as caught:
        yield
    assert caught.value.code == code


def stays_below_root(path: str) -> bool:
    joined = os.path.join(ROOT, path.removeprefix("/"))
    return os.path.normpath(joined) == joined and joined.startswith(ROOT + "/")


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/upload/a", ("/upload/a", "")),
        ("/upload/a?x=1?y", ("/upload/a", "x=1?y")),
        ("//host/a", ("//host/a", "")),
        ("http://host:80/a/b?c", ("/a/b", "c")),
        ("HTTPS://host", ("/", "")),
        ("http://host?c", ("/", "c")),
        ("/a%3Fb", ("/a%3Fb", "")),
    ],
)
def test_a_target_is_split_without_being_decoded(target: str, parts: tuple[str, str]) -> None:
    assert paths.split_target(target) == parts


@pytest.mark.parametrize(
    "target", ["", "*", "host:443", "upload/a", "ftp://host/a", "http:///a", "/a#b"]
)
def test_a_target_of_another_form_is_refused(target: str) -> None:
    with refused():
        paths.split_target(target)


def test_each_segment_is_decoded_exactly_once() -> None:
    assert paths.decode("/a%2Fb/%252e/caf%C3%A9/café/") == ("a/b", "%2e", "café", "café", "")


def test_raw_bytes_that_are_utf8_only_together_with_an_escape_are_read_as_one_character() -> None:
    assert paths.decode("/\udcc3%a9") == ("é",)


@pytest.mark.parametrize(
    "raw", ["a", "/%", "/%2", "/%zz", "/%+1", "/%c0%ae", "/%ed%a0%80", "/%ff", "/\udcff"]
)
def test_what_is_no_percent_encoded_utf8_is_refused(raw: str) -> None:
    with refused():
        paths.decode(raw)


def test_a_query_keeps_every_value_in_order_and_blank_ones() -> None:
    assert paths.parse_query("a=1&b=&a=x+y%2B&c&%C3%A9=é&d=100%") == {
        "a": ["1", "x y+"],
        "b": [""],
        "c": [""],
        "é": ["é"],
        "d": ["100%"],
    }
    assert paths.parse_query("") == {}


def test_a_query_is_bounded_and_must_be_utf8() -> None:
    assert len(paths.parse_query("&".join(f"f{n}" for n in range(1000)))) == 1000
    for bad in ("&".join(f"f{n}" for n in range(1001)), "a=%ff", "a=\udcff"):
        with refused("bad_request"):
            paths.parse_query(bad)


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


def test_the_longest_legal_paths_pass() -> None:
    assert paths.check_path("a" * 255) == ("a" * 255,)
    assert len(paths.check_path("/" + "/".join("a" * 100))) == 100
    assert (
        paths.check_path("/".join(["a" * 249] * 14)) == ("a" * 249,) * 14
    )  # 3500 bytes with its slashes


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/upload/../x", "segment 2 of the path is a dot segment"),
        ("upload//x", "segment 2 of the path is empty"),
        ("", "segment 1 of the path is empty"),
        ("//upload", "segment 1 of the path is empty"),
        ("/a/b\0", "segment 2 of the path contains a control character"),
        ("/a/\udc80", "segment 2 of the path contains a control character"),
        ("/a\\b", "segment 1 of the path contains a backslash"),
        ("/.gateway/incoming/0/x", "segment 1 of the path is reserved"),
        ("/" + "/".join("a" * 101), "more than 100 segments"),
        ("/".join(["a" * 249] * 13 + ["a" * 250]), "longer than 3500 bytes"),
        ("/" + "é" * 128, "segment 1 of the path is longer than 255 bytes"),
    ],
)
def test_a_bad_path_is_refused_with_rule_and_place(path: str, reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        paths.check_path(path)
    assert caught.value.code == "bad_path"
    assert reason in caught.value.message
    assert caught.value.message.isprintable()


def test_the_state_folder_is_reserved_only_at_the_top() -> None:
    assert paths.check_path("/upload/.gateway/x") == ("upload", ".gateway", "x")


def test_control_characters_are_those_of_unicode() -> None:
    for code in range(0x110000):
        legal = unicodedata.category(chr(code)) not in {"Cc", "Cs", "Zl", "Zp"}
        assert (paths.CONTROL_CHARACTER.search(chr(code)) is None) == legal, hex(code)


@given(HOSTILE)
@example("/.././..")
def test_whatever_check_accepts_stays_below_any_root(path: str) -> None:
    with suppress(Refusal):
        assert "/".join(paths.check_path(path)) == path.removeprefix("/")
        assert stays_below_root(path)


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
