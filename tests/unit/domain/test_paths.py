"""Request targets and legal names: nothing leads out of a root."""

from __future__ import annotations

import unicodedata
from contextlib import suppress

import pytest
from hypothesis import example, given

from gateway.domain import paths
from gateway.errors import Refusal
from tests.support.hostile_paths import HOSTILE, refused, stays_below_root


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
