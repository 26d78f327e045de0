"""Requests of tus as operations: what is read, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest
from multidict import CIMultiDict

from gateway.domain.digests import SIZES
from gateway.endpoints.uploads.resumable.operations import Append, BodyTerms, Concatenation, Creation
from gateway.endpoints.uploads.resumable.tus_request import (
    CHECKSUM_ALGORITHMS,
    check_version,
    effective_method,
    read_append,
    read_creation,
)
from gateway.errors import Refusal
from gateway.http.header_fields import Lines, read_headers

BYTES = "Content-Type: application/offset+octet-stream"
UNSUPPORTED = "unsupported_media_type"
SHA1 = base64.b64encode(hashlib.sha1(b"hello world").digest()).decode()
SHA256 = base64.b64encode(hashlib.sha256(b"hello world").digest()).decode()


def lines_of(*lines: str) -> Lines:
    fields = (line.partition(": ") for line in lines)
    return read_headers(CIMultiDict((name, value) for name, _, value in fields)).lines


def creation(*lines: str) -> Creation:
    return read_creation(lines_of(*lines))


def append(*lines: str) -> Append:
    return read_append(lines_of(BYTES, *lines))


def refused_creation(*lines: str) -> str:
    with pytest.raises(Refusal) as caught:
        creation(*lines)
    return caught.value.code


def refused_append(*lines: str) -> str:
    with pytest.raises(Refusal) as caught:
        read_append(lines_of(*lines))
    return caught.value.code


# -- the version


def test_only_version_1_0_0_is_spoken() -> None:
    check_version(lines_of("Tus-Resumable: 1.0.0"))
    check_version(lines_of("tus-resumable:  1.0.0 ", "Tus-Resumable: 1.0.0"))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Tus-Resumable: "],
        ["Tus-Resumable: 1.0"],
        ["Tus-Resumable: 0.2.2"],
        ["Tus-Resumable: 2.0.0"],
        ["Tus-Resumable: 1.0.0, 1.0.0"],
        ["Tus-Resumable: 1.0.0", "Tus-Resumable: 0.2.2"],
    ],
)
def test_another_version_is_refused_with_the_supported_one(lines: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        check_version(lines_of(*lines))
    assert caught.value.status == 412
    assert caught.value.headers["Tus-Version"] == "1.0.0"


# -- the method


@pytest.mark.parametrize("override", ["PATCH", "DELETE"])
def test_a_post_to_an_upload_can_stand_for_another_method(override: str) -> None:
    lines = lines_of(f"X-HTTP-Method-Override: {override}")
    assert effective_method("POST", lines, is_upload=True) == override


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE"])
def test_without_an_override_the_method_is_what_was_sent(method: str) -> None:
    assert effective_method(method, lines_of(), is_upload=True) == method
    lines = lines_of(f"X-HTTP-Method-Override: {method}")
    assert effective_method(method, lines, is_upload=False) == method


@pytest.mark.parametrize(
    ("method", "overrides", "is_upload"),
    [
        ("POST", ["PATCH"], False),
        ("POST", ["DELETE"], False),
        ("POST", ["HEAD"], True),
        ("POST", ["PUT"], True),
        ("POST", ["patch"], True),
        ("POST", [""], True),
        ("POST", ["PATCH", "PATCH"], True),
        ("POST", ["PATCH, DELETE"], True),
        ("GET", ["DELETE"], True),
        ("HEAD", ["DELETE"], True),
        ("PUT", ["PATCH"], True),
        ("PATCH", ["DELETE"], True),
        ("DELETE", ["PATCH"], True),
    ],
)
def test_no_other_request_stands_for_another_method(
    method: str, overrides: list[str], is_upload: bool
) -> None:
    lines = lines_of(*(f"X-HTTP-Method-Override: {override}" for override in overrides))
    with pytest.raises(Refusal) as caught:
        effective_method(method, lines, is_upload=is_upload)
    assert caught.value.code == "bad_request"


# -- creation


def test_a_creation_has_a_length_and_no_body() -> None:
    assert creation("Upload-Length: 100") == Creation(protocol="tus", length=100, body=None)
    assert creation("Upload-Length: 100", "Content-Length: 0") == creation("Upload-Length: 100")


def test_a_creation_may_have_the_first_bytes() -> None:
    for body in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        assert creation("Upload-Length: 100", BYTES, body).body == BodyTerms()


def test_an_empty_file_is_whole_at_once() -> None:
    assert creation("Upload-Length: 0").body == BodyTerms()


def test_the_length_may_be_told_later() -> None:
    deferred = creation("Upload-Defer-Length: 1")
    assert deferred == Creation(protocol="tus", length=None, body=None)


def test_metadata_is_read() -> None:
    read = creation(
        "Upload-Length: 1", "Upload-Metadata: filename YS50eHQ=,type dGV4dC9wbGFpbg==,k dg=="
    )
    assert (read.filename, read.content_type, read.metadata) == ("a.txt", "text/plain", {"k": "v"})
    assert read.metadata_text == "filename YS50eHQ=,type dGV4dC9wbGFpbg==,k dg=="


def test_the_media_type_of_the_request_is_not_that_of_the_file() -> None:
    assert creation("Upload-Length: 1", "Content-Type: text/html").content_type is None
    assert creation("Upload-Length: 1", BYTES, "Content-Length: 1").content_type is None


def test_a_part_is_an_upload_with_a_length() -> None:
    part = creation("Upload-Concat: partial", "Upload-Length: 5", BYTES, "Content-Length: 5")
    assert part == Creation(protocol="tus", length=5, body=BodyTerms(), part_of_concat=True)
    assert creation("Upload-Concat: partial", "Upload-Defer-Length: 1").part_of_concat


def test_a_file_of_parts_has_neither_a_length_nor_a_body() -> None:
    text = "final;/upload/a?upload=A.s /upload/b?upload=B.s"
    whole = creation(f"Upload-Concat: {text}", "Content-Length: 0")
    assert whole == Creation(
        protocol="tus", length=None, body=None, concat=Concatenation(["A.s", "B.s"], text)
    )
    for line in ("Upload-Length: 0", "Upload-Defer-Length: 1", "Content-Length: 1"):
        assert refused_creation(f"Upload-Concat: {text}", BYTES, line) == "bad_request"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([], "bad_request"),
        (["Upload-Concat: partial"], "bad_request"),
        (["Upload-Length: "], "bad_request"),
        (["Upload-Length: -1"], "bad_request"),
        (["Upload-Length: +1"], "bad_request"),
        (["Upload-Length: 1.0"], "bad_request"),
        (["Upload-Length: 1_0"], "bad_request"),
        (["Upload-Length: \u0661"], "bad_request"),
        (["Upload-Length: 0x10"], "bad_request"),
        (["Upload-Length: 10, 10"], "bad_request"),
        (["Upload-Length: 10", "Upload-Length: 10"], "bad_request"),
        (["Upload-Length: 1" + "0" * 18], "too_large"),
        (["Upload-Length: 1" + "0" * 5000], "too_large"),
        (["Upload-Defer-Length: 0"], "bad_request"),
        (["Upload-Defer-Length: true"], "bad_request"),
        (["Upload-Defer-Length: 1", "Upload-Defer-Length: 1"], "bad_request"),
        (["Upload-Length: 1", "Upload-Defer-Length: 1"], "bad_request"),
        (["Upload-Length: 1", "Upload-Defer-Length: 0"], "bad_request"),
        (["Upload-Length: 1", "Upload-Concat: both"], "bad_request"),
        (["Upload-Length: 1", "Upload-Metadata: filename a"], "bad_request"),
        (["Upload-Length: 9", "Content-Length: 1"], UNSUPPORTED),
        (["Upload-Length: 9", "Content-Length: 1", "Content-Type: text/plain"], UNSUPPORTED),
        (["Upload-Length: 9", "Transfer-Encoding: chunked"], UNSUPPORTED),
        (["Upload-Length: 9", "Content-Length: 1", BYTES, "Content-Encoding: gzip"], UNSUPPORTED),
        (["Upload-Length: 9", "Upload-Checksum: sha3 YQ=="], "bad_digest"),
        (["Upload-Length: 9", "X-Goog-Hash: crc32c=YQ=="], "bad_digest"),
    ],
)
def test_a_creation_that_is_not_clear_is_refused(lines: list[str], code: str) -> None:
    assert refused_creation(*lines) == code


# -- append


def test_an_append_has_an_offset() -> None:
    assert append("Upload-Offset: 70", "Content-Length: 30") == Append(70, BodyTerms())
    assert append("Upload-Offset: 0") == Append(0, BodyTerms())


def test_an_append_can_fix_the_length() -> None:
    assert append("Upload-Offset: 70", "Upload-Length: 100") == Append(70, BodyTerms(), 100)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([BYTES], "bad_request"),
        ([BYTES, "Upload-Offset: "], "bad_request"),
        ([BYTES, "Upload-Offset: -1"], "bad_request"),
        ([BYTES, "Upload-Offset: 1", "Upload-Offset: 1"], "bad_request"),
        ([BYTES, "Upload-Offset: 1" + "0" * 18], "bad_request"),
        ([BYTES, "Upload-Offset: 1", "Upload-Length: x"], "bad_request"),
        ([BYTES, "Upload-Offset: 1", "Content-Encoding: br"], UNSUPPORTED),
        (["Upload-Offset: 1"], UNSUPPORTED),
        (["Upload-Offset: 1", "Content-Type: application/partial-upload"], UNSUPPORTED),
        (["Upload-Offset: 1", "Content-Type: application/octet-stream"], UNSUPPORTED),
        ([BYTES, "Upload-Offset: 1", "Trailer: Content-Digest"], "bad_digest"),
    ],
)
def test_an_append_that_is_not_clear_is_refused(lines: list[str], code: str) -> None:
    assert refused_append(*lines) == code


def test_the_media_type_has_no_case_and_may_have_parameters() -> None:
    lines = lines_of("Content-Type: Application/Offset+Octet-Stream; a=b", "Upload-Offset: 1")
    assert read_append(lines).offset == 1


# -- checksums


@pytest.mark.parametrize("name", CHECKSUM_ALGORITHMS)
def test_every_algorithm_is_that_of_a_digest(name: str) -> None:
    value = bytes(range(SIZES[name]))
    text = base64.b64encode(value).decode()
    [digest] = append("Upload-Offset: 0", f"Upload-Checksum: {name} {text}").body.digests
    assert (digest.algorithm, digest.value, digest.header) == (name, value, "Upload-Checksum")
    assert digest.mismatch_code == "checksum_mismatch"


def test_sha1_is_there_for_the_protocol_requires_it() -> None:
    assert CHECKSUM_ALGORITHMS[0] == "sha1"
    assert set(CHECKSUM_ALGORITHMS) == SIZES.keys()


def test_a_checksum_is_of_the_bytes_of_its_request() -> None:
    read = creation("Upload-Length: 11", BYTES, "Content-Length: 11", f"Upload-Checksum: sha1 {SHA1}")
    assert read.body is not None
    assert [digest.algorithm for digest in read.body.digests] == ["sha1"]
    assert read.digests == ()


def test_a_checksum_without_bytes_is_compared_with_nothing() -> None:
    crc = base64.b64encode(zlib.crc32(b"").to_bytes(4, "big")).decode()
    read = creation("Upload-Length: 11", f"Upload-Checksum: crc32 {crc}")
    assert read.body is not None
    assert len(read.body.digests) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha1",
        "sha1 ",
        f"sha1:{SHA1}",
        f"sha1  {SHA1}",
        f"SHA1 {SHA1}",
        f"sha-1 {SHA1}",
        f"sha1 {SHA256}",
        f"sha1 {SHA1[:-1]}",
        f"sha1 {SHA1} {SHA1}",
        f"sha1 {SHA1},md5 {SHA1}",
        f"crc32c {SHA1}",
        "sha1 YQ==",
    ],
)
def test_a_checksum_that_cannot_be_verified_is_refused(text: str) -> None:
    assert refused_append(BYTES, "Upload-Offset: 0", f"Upload-Checksum: {text}") == "bad_digest"


def test_other_digests_count_too() -> None:
    lines = (f"Content-Digest: sha-256=:{SHA256}:", f"Repr-Digest: sha-256=:{SHA256}:")
    read_last = append("Upload-Offset: 0", *lines)
    assert [digest.header for digest in read_last.body.digests] == ["Content-Digest"]
    assert [digest.header for digest in read_last.digests] == ["Repr-Digest"]
    read = creation("Upload-Length: 11", f"Repr-Digest: sha-256=:{SHA256}:")
    assert [digest.header for digest in read.digests] == ["Repr-Digest"]
    assert read.body is None
