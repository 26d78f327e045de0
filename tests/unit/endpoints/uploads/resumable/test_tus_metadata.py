"""`Upload-Metadata`: what is read of it, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.uploads.resumable.tus_metadata import (
    MAX_METADATA_TEXT_BYTES,
    TusMetadata,
    read_tus_metadata,
)
from gateway.errors import Refusal

NAMES = {"filename", "name", "relativePath"}


def b64(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def read(**values: str | bytes) -> TusMetadata:
    return read_tus_metadata([",".join(f"{key} {b64(value)}" for key, value in values.items())])


def refused(*lines: str) -> tuple[str, str]:
    with pytest.raises(Refusal) as caught:
        read_tus_metadata(lines)
    return caught.value.code, caught.value.message


def test_a_name_and_a_type_are_read() -> None:
    metadata = read(filename="Käse €.txt", filetype="text/plain; charset=utf-8")
    assert metadata.filename == "Käse €.txt"
    assert metadata.content_type == "text/plain; charset=utf-8"
    assert metadata.file_metadata == {}


@pytest.mark.parametrize("lines", [[], [""], ["   "], ["", ""]])
def test_a_header_without_a_pair_has_no_metadata(lines: list[str]) -> None:
    assert read_tus_metadata(lines) == TusMetadata()


def test_a_key_may_stand_without_a_value() -> None:
    text = "is_secret,filename YS50eHQ=,note , last"
    metadata = read_tus_metadata([text])
    assert metadata == TusMetadata(text, "a.txt", None, {"note": "", "last": ""})


def test_two_lines_are_one_list() -> None:
    metadata = read_tus_metadata(["filename YQ==", " name Yg== "])
    assert metadata.text == "filename YQ==,name Yg=="
    assert metadata.filename == "a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" , ", "no key"),
        ("filename YQ==,", "pair 2 has no key"),
        ("filename  YQ==", "pair 1 is not base64"),
        ("filename YQ== Yg==", "pair 1 is not base64"),
        ("filename\tYQ==", "no key"),
        ("a YQ", "pair 1 is not base64"),
        ("a YQ===", "pair 1 is not base64"),
        ("a Y_-=", "pair 1 is not base64"),
        ("a é", "pair 1 is not base64"),
        ("ä YQ==", "no key"),
        ("a\x00b YQ==", "no key"),
        ("a\udcff YQ==", "no key"),
        ("a YQ==,b YQ==,a Yg==", "pair 3 is there twice"),
        ("a,a", "twice"),
        ("filename /w==", "filename is not UTF-8"),
        ("relativePath /w==", "relativePath is not UTF-8"),
    ],
)
def test_what_is_not_exactly_a_list_of_pairs_is_refused(text: str, reason: str) -> None:
    code, message = refused(text)
    assert code == "bad_request"
    assert reason in message


def test_the_header_has_a_limit() -> None:
    longest = "a" * (MAX_METADATA_TEXT_BYTES - 2) + ",b"
    assert len(read_tus_metadata([longest]).text) == MAX_METADATA_TEXT_BYTES
    assert refused(longest + "c")[0] == "headers_too_large"
    assert refused(longest, "c")[0] == "headers_too_large"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"filename": "a", "name": "b"}, "a"),
        ({"filename": "", "name": "b"}, "b"),
        ({"name": "b"}, "b"),
        ({"filename": "a.txt", "relativePath": "/x/y/a.txt"}, "x/y/a.txt"),
        ({"filename": "a.txt", "relativePath": "x/a.txt"}, "x/a.txt"),
        ({"filename": "a.txt", "relativePath": "null"}, "a.txt"),
        ({"name": "a.txt", "relativePath": "undefined"}, "a.txt"),
        ({"filename": "a.txt", "relativePath": ""}, "a.txt"),
        ({"relativePath": "x/a.txt"}, "x/a.txt"),
        ({"relativePath": "/"}, None),
        ({}, None),
    ],
)
def test_the_file_has_one_name(values: dict[str, str], name: str | None) -> None:
    assert read(**values).filename == name


@pytest.mark.parametrize(
    ("values", "media_type"),
    [
        ({"filetype": "image/png", "type": "image/gif"}, "image/png"),
        ({"type": "application/vnd.x+json"}, "application/vnd.x+json"),
        ({"filetype": "null", "type": "image/gif"}, "image/gif"),
        ({"filetype": "text/html\r\nSet-Cookie: a=b"}, None),
        ({"filetype": "text/plain;\x00"}, None),
        ({"filetype": "text/plain\n"}, None),
        ({"filetype": "text"}, None),
        ({"filetype": "text/"}, None),
        ({"filetype": "text /plain"}, None),
        ({"filetype": b"text/\xff"}, None),
        ({"filetype": "text/" + "a" * 128}, None),
        ({"filetype": "text/plain;" + "a" * 128}, None),
    ],
)
def test_a_media_type_is_valid_or_none(values: dict[str, Any], media_type: str | None) -> None:
    assert read(**values).content_type == media_type


def test_other_pairs_are_metadata_of_the_file_where_they_can_be() -> None:
    metadata = read_tus_metadata(
        [
            f"Album {b64('Sömmer')},user_id {b64('7')},raw {b64(bytes([255]))},"
            f"lines {b64('a' + chr(10))},Twice {b64('1')},twice {b64('2')},"
            f"{'k' * 101} {b64('1')},order {b64('')}"
        ]
    )
    assert metadata.file_metadata == {"album": "Sömmer", "order": ""}


def test_more_metadata_than_a_file_may_have_is_refused() -> None:
    assert read(a="x" * 2047).file_metadata == {"a": "x" * 2047}
    for values in ({"a": "x" * 2048}, {"a": "x" * 1024, "b": "x" * 1023}):
        code, message = refused(",".join(f"{key} {b64(value)}" for key, value in values.items()))
        assert code == "bad_request"
        assert "2048" in message


@given(st.text(max_size=300))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        metadata = read_tus_metadata([text])
    except Refusal:
        return
    assert metadata.text.isascii()
    assert metadata.text.isprintable()


@given(
    st.dictionaries(
        st.from_regex(r"\A[!-+\--~]{1,20}\Z").filter(lambda key: key not in NAMES),
        st.binary(max_size=30),
        max_size=20,
    )
)
def test_any_bytes_are_legal_values(values: dict[str, bytes]) -> None:
    text = ",".join(f"{key} {b64(value)}" for key, value in values.items())
    assert read_tus_metadata([text]).text == text.strip()
