"""PUT with a range: which ranges are taken, and what is told of an upload."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.model import Stored
from gateway.domain.partial import ranged_identity
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.resumable.operations import (
    Append,
    BodyTerms,
    Creation,
    PartialRefusal,
    PartialResult,
)
from gateway.endpoints.uploads.resumable.ranged import (
    is_piece,
    offset_fields,
    piece_response,
    put_response,
    read_key,
    read_put,
    refused_response,
    resumes,
)
from gateway.errors import Refusal
from gateway.http.header_fields import Lines, read_headers

KEY = "k" * 16
URLS = StoredUrls(UploadPathTemplate.parse("/upload/{filepath}"), "http://host")


def lines_of(*lines: str) -> Lines:
    fields = (line.partition(": ") for line in lines)
    return read_headers(CIMultiDict((name, value) for name, _, value in fields)).lines


def ranged(text: str, content_length: int | None = None, key: str = KEY) -> Creation | Append:
    return read_put(lines_of(f"Content-Range: {text}"), key, content_length)


def result(offset: int, length: int | None = 10, **named: Any) -> PartialResult:
    return PartialResult("ID", "http://host/", offset, length, named.pop("is_complete", False), **named)


@pytest.mark.parametrize("content_length", [None, 10])
def test_a_range_from_the_first_byte_is_a_new_upload(content_length: int | None) -> None:
    assert ranged("bytes 0-9/10", content_length) == Creation("ranged", 10, BodyTerms(), resume_key=KEY)


@pytest.mark.parametrize("content_length", [None, 6])
def test_a_range_that_reaches_the_end_goes_on(content_length: int | None) -> None:
    assert ranged("bytes 4-9/10", content_length) == Append(4, BodyTerms(), 10)


def test_a_range_of_no_byte_is_the_end() -> None:
    assert ranged("bytes 10-9/10", 0) == Append(10, BodyTerms(), 10)
    assert ranged("bytes 0--1/0", 0) == Creation("ranged", 0, BodyTerms(), resume_key=KEY)


@pytest.mark.parametrize(
    "text",
    [
        "bytes 4000-3998/3999",  # curl -C 4000 -T -
        "bytes 4-10/10",
        "bytes 4-3/10",
        "bytes 11-9/10",
        "bytes 4-9/*",
        "bytes */10",
        "bytes 9-4/10",
        "bytes -1-9/10",
        "octets 4-9/10",
        "bytes=4-9/10",
        "bytes 4-9/1000000000000000",
        "bytes 4-9",
        "",
    ],
)
def test_another_range_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        ranged(text)
    assert caught.value.code == "bad_range"


@pytest.mark.parametrize("text", ["bytes 0-4/10", "bytes 4-8/10"])
def test_a_range_that_ends_before_the_file_needs_a_key(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        ranged(text, key="")
    assert caught.value.code == "bad_range"
    assert is_piece(lines_of(f"Content-Range: {text}"))


def test_with_a_key_a_range_may_be_a_piece() -> None:
    assert ranged("bytes 0-4/10", 5) == Creation("ranged", 10, BodyTerms(), resume_key=KEY)
    assert ranged("bytes 4-8/10", 5) == Append(4, BodyTerms(), 10)
    response = piece_response(result(9), KEY)
    assert response.status == 204
    assert (response.headers["Upload-Offset"], response.headers["Upload-Complete"]) == ("9", "?0")


@pytest.mark.parametrize(
    ("text", "content_length"), [("bytes 0-8/10", 10), ("bytes 0-9/10", 6), ("bytes 4-9/10", 10)]
)
def test_a_range_and_a_body_of_another_length_are_refused(text: str, content_length: int) -> None:
    with pytest.raises(Refusal) as caught:
        ranged(text, content_length)
    assert caught.value.code == "bad_range"


@pytest.mark.parametrize(
    "line",
    ["Upload-Offset: 4", "Upload-Complete: false", "Upload-Defer-Length: 1", "Upload-Concat: partial"],
)
def test_a_field_of_another_protocol_is_refused(line: str) -> None:
    for lines in ((line,), (line, "Content-Range: bytes 0-9/10")):
        with pytest.raises(Refusal) as caught:
            read_put(lines_of(*lines), KEY, 10)
        assert caught.value.code == "bad_range"


def test_two_ranges_are_refused() -> None:
    with pytest.raises(Refusal):
        read_put(lines_of("Content-Range: bytes 4-9/10", "content-range: bytes 4-9/10"), KEY, None)


def test_a_key_alone_makes_a_new_upload() -> None:
    assert read_put(lines_of(), KEY, 10) == Creation("ranged", 10, BodyTerms(), resume_key=KEY)
    unknown = read_put(lines_of(), KEY, None)
    assert unknown == Creation("ranged", None, BodyTerms(completes=True), resume_key=KEY)


def test_a_put_resumes_by_a_range_or_by_a_key() -> None:
    assert resumes(lines_of("Content-Range: x"), {})
    assert resumes(lines_of(), {"resume": [KEY]})
    assert not resumes(lines_of("Range: bytes=0-1"), {"a": ["b"]})


@pytest.mark.parametrize("key", ["k" * 16, "k" * 64, "a+b/c=d e~" + "\u00e9" * 6])
def test_a_key_has_16_to_64_characters(key: str) -> None:
    assert read_key({"resume": [key]}) == key


@pytest.mark.parametrize("keys", [[""], ["k" * 15], ["k" * 65], [KEY, KEY]])
def test_another_key_is_refused(keys: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        read_key({"resume": keys})
    assert caught.value.code == "bad_request"


def test_without_a_key_the_identity_has_an_empty_one() -> None:
    assert read_key({}) == ""


def test_identities_differ_by_path_principal_and_key() -> None:
    token = {"kind": "token", "name": "a"}
    identities = {
        ranged_identity("/upload/a", None, ""),
        ranged_identity("/upload/a", None, KEY),
        ranged_identity("/upload/b", None, ""),
        ranged_identity("/upload/a", token, ""),
        ranged_identity("/upload/a", {"kind": "jwt", "name": "a"}, ""),
        ranged_identity("/upload/a", {"kind": "token", "name": ""}, "a"),
        ranged_identity("/upload/\udcff", token, ""),
    }
    assert len(identities) == 7
    assert ranged_identity("/upload/a", {**token, "groups": ["x"]}, KEY) == ranged_identity(
        "/upload/a", token, KEY
    )


# -- responses


@pytest.mark.parametrize(
    ("offset", "length", "told"),
    [(0, 10, 0), (4, 10, 4), (9, 10, 9), (10, 10, 9), (4, None, 4), (0, 0, 0)],
)
def test_the_offset_that_is_told_is_less_than_the_length(
    offset: int, length: int | None, told: int
) -> None:
    fields = offset_fields(result(offset, length), "")
    assert fields["Upload-Offset"] == str(told)
    assert fields["Upload-Complete"] == "?0"
    assert fields["Cache-Control"] == "no-store"
    assert fields.get("Upload-Length") == (None if length is None else str(length))


def test_a_complete_upload_without_a_key_has_no_offset_to_go_on_from() -> None:
    complete = result(10, is_complete=True)
    assert offset_fields(complete, "") == {
        "Upload-Complete": "?1", "Upload-Length": "10", "Cache-Control": "no-store",
        "Link": '</-/uploads/ID>; rel="status"',
    }  # fmt: skip
    assert offset_fields(complete, KEY)["Upload-Offset"] == "9"


def test_a_complete_upload_is_answered_as_a_plain_one() -> None:
    stored = Stored("ID", "/upload/a", 10, "text/plain", False, {})
    response = put_response(result(10, is_complete=True, stored=stored), URLS)
    assert response.status == 201
    assert response.headers["Upload-Complete"] == "?1"
    assert response.headers["Location"] == "/-/uploads/ID"
    again = put_response(result(10, is_complete=True), URLS)
    assert again.status == 200
    assert isinstance(again.body, bytes)
    assert json.loads(again.body) == {"upload_id": "ID", "bytes": 10}


def test_a_body_that_ends_before_the_file_is_refused_and_kept() -> None:
    with pytest.raises(PartialRefusal) as caught:
        put_response(result(4), URLS)
    response = refused_response(caught.value, "")
    assert response.status == 400
    assert response.headers["Upload-Offset"] == "4"


def test_a_refusal_tells_the_offset_where_the_upload_is_kept() -> None:
    refusal = PartialRefusal("mismatching_offset", "the next byte is 4", result(4))
    assert refused_response(refusal, "").headers["Upload-Offset"] == "4"
    ended = PartialRefusal("conflict", "no", result(4), keeps=False)
    assert "Upload-Offset" not in refused_response(ended, "").headers
    assert "Upload-Offset" not in refused_response(Refusal("unauthorized", "who?"), "").headers
