"""Whether a body is the whole file itself, by the headers of its request."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.endpoints.uploads.preconditions import check_conditions
from gateway.endpoints.uploads.whole_file import (
    COMPLETE_FIELDS,
    LENGTH_FIELDS,
    PART_FIELDS,
    PART_TYPES,
    UNSUPPORTED_FIELDS,
    check_whole_file,
)
from gateway.errors import Refusal
from gateway.http.header_fields import Lines, read_headers


def lines_of(*lines: str) -> Lines:
    fields = (line.partition(": ") for line in lines)
    return read_headers(CIMultiDict((name, value) for name, _, value in fields)).lines


def refused(*lines: str, length: int | None = 10) -> str:
    with pytest.raises(Refusal) as caught:
        check_whole_file(lines_of(*lines), {}, length)
    return caught.value.code


@pytest.mark.parametrize("name", sorted(PART_FIELDS))
def test_a_header_of_a_part_is_refused_whatever_its_value(name: str) -> None:
    assert refused(f"{name}: 0") == "bad_range"


@pytest.mark.parametrize("media_type", sorted(PART_TYPES))
def test_a_media_type_of_parts_is_refused(media_type: str) -> None:
    assert refused(f"Content-Type: {media_type.upper()}; a=b") == "bad_range"


@pytest.mark.parametrize(("name", "whole"), COMPLETE_FIELDS.items())
def test_only_the_value_that_says_so_makes_a_complete_upload(name: str, whole: str) -> None:
    assert check_whole_file(lines_of(f"{name}: {whole};a=1"), {}, 10) == 10
    part = "?0" if whole == "?1" else "?1"
    assert refused(f"{name}: {part}") == "bad_range"
    for value in ("true", "1", ""):
        if name == "upload-complete":  # a structured field of another type counts as not sent
            assert check_whole_file(lines_of(f"{name}: {value}"), {}, 10) == 10
        else:
            assert refused(f"{name}: {value}") == "bad_range"
    assert refused(f"{name}: {whole}", f"{name}: {part}") == "bad_range"


@pytest.mark.parametrize("name", LENGTH_FIELDS)
def test_the_length_of_the_file_is_that_of_the_body(name: str) -> None:
    assert check_whole_file(lines_of(f"{name}: 10"), {}, 10) == 10
    assert check_whole_file(lines_of(f"{name}: 10"), {}, None) == 10
    assert refused(f"{name}: 20") == "bad_range"
    assert refused(f"{name}: 10", f"{name}: 20", length=None) == "bad_range"
    assert refused(f"{name}: -10") == "bad_range"


def test_content_range_is_taken_for_the_whole_file_only() -> None:
    assert check_whole_file(lines_of("Content-Range: bytes 0-9/10"), {}, 10) == 10
    assert check_whole_file(lines_of("Content-Range: bytes 0-9/10"), {}, None) == 10
    assert check_whole_file(lines_of("Content-Range: bytes 0--1/0"), {}, 0) == 0  # curl, empty file
    for value in (
        "bytes 1-9/10",
        "bytes 0--1/10",
        "bytes 0--2/-1",
        "bytes 0-8/10",
        "bytes 0-9/*",
        "bytes 0-19/20",
        "items 0-9/10",
        "bytes 0-\u0669/10",
    ):
        assert refused(f"Content-Range: {value}") == "bad_range", value
    assert refused("Content-Range: bytes 0-9/10", "Content-Range: bytes 5-9/10") == "bad_range"


@pytest.mark.parametrize(
    "query", [{"uploadId": ["a"], "partNumber": ["1"]}, {"comp": ["block"], "blockid": ["AA=="]}]
)
def test_a_part_is_known_by_its_query_too(query: dict[str, list[str]]) -> None:
    with pytest.raises(Refusal) as caught:
        check_whole_file({}, query, 10)
    assert caught.value.code == "bad_range"
    for name in query:
        assert check_whole_file({}, {name: ["1"]}, 10) == 10


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: Multipart/Form-Data",
        "Content-Type: multipart/mixed; Boundary=x",
        "Content-Encoding: aws-chunked",
        "Content-Encoding: gzip, AWS-Chunked",
        "Content-Encoding: aws-chunked,gzip",
        "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-trailer: x-amz-checksum-crc32",
        "x-ms-structured-body: XSM/1.0; properties=crc64",
        "Content-Transfer-Encoding: base64",
    ],
)
def test_an_envelope_is_refused(line: str) -> None:
    assert refused(line) == "unsupported_media_type"
    name = line.partition(": ")[0]
    assert refused(f"{name}: text/plain", line) == "unsupported_media_type"


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_FIELDS))
def test_a_put_without_the_bytes_of_its_file_is_refused(name: str) -> None:
    assert refused(f"{name}: /bucket/key", length=0) == "not_implemented"


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: multipart/related",
        "Content-Encoding: gzip, br",
        "Content-Transfer-Encoding: Binary",
        "x-amz-content-sha256: UNSIGNED-PAYLOAD",
        "Upload-Draft-Interop-Version: 6",
        "X-OC-Mtime: 1700000000",
        "Range: bytes=0-3",
    ],
)
def test_what_says_nothing_about_the_body_is_taken(line: str) -> None:
    assert check_whole_file(lines_of(line), {}, 10) == 10


@pytest.mark.parametrize(
    "line",
    [
        "If: (<urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2>)",
        "If-Unmodified-Since: Sat, 29 Oct 2025 19:43:31 GMT",
        'If-None-Match: "a"',
        'If-Match: "a"',
        "x-goog-if-generation-match: 0",
    ],
)
def test_a_condition_that_is_not_compared_is_refused(line: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_conditions(lines_of(line))
    assert caught.value.code == "precondition_failed"


def test_conditions_that_are_compared_pass() -> None:
    check_conditions(lines_of("If-None-Match: *", "If-Match: *", "If-Modified-Since: x"))


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: multipart/\udcff; boundary=x",
        "Upload-Incomplete: \udcff",
        "Upload-Length: \udcff",
        "Content-Range: \udcff",
        "Content-Transfer-Encoding: \udcff",
    ],
)
def test_a_refusal_of_bytes_that_are_no_text_is_text(line: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_whole_file(lines_of(line), {}, 10)
    assert caught.value.message.encode()
