"""The IETF draft: what a request asks for, and what each response says, by version."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.model import Stored
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.uploads.digests import ExpectedDigest
from gateway.endpoints.uploads.resumable.draft import (
    INTEROP_FIELD,
    DraftResponses,
    Interop,
    check_lengths,
    check_resource_request,
    creates_upload,
    limit_field,
    read_append,
    read_creation,
    split_digests,
)
from gateway.endpoints.uploads.resumable.operations import (
    Append,
    BodyTerms,
    PartialRefusal,
    PartialResult,
    UploadLimits,
)
from gateway.errors import Refusal
from gateway.http.header_fields import Lines, read_headers

VERSIONS = (None, 5, 6, 7, 8, 9, 10)
URL = "http://host/upload/a?upload=ID.SECRET"
DIGEST = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
PART = "Content-Type: application/partial-upload"


def lines_of(*lines: str) -> Lines:
    fields = (line.partition(": ") for line in lines)
    return read_headers(CIMultiDict((name, value) for name, _, value in fields)).lines


def result(offset: int = 4, length: int | None = 10, **named: Any) -> PartialResult:
    named.setdefault("expires", time.time() + 1000.5)
    return PartialResult("ID", URL, offset, length, named.pop("is_complete", False), **named)


def stored(*, replaced: bool = False) -> Stored:
    return Stored("ID", "/upload/a", 10, "text/plain", replaced, {})


def responses(version: int | None = None, max_size: int | None = None) -> DraftResponses:
    urls = StoredUrls(UploadPathTemplate.parse("/upload/{filepath}"), "http://host")
    return DraftResponses(Interop(version), UploadLimits(max_size, 86400.0), urls)


def refusal_code(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value.code


# -- versions


@pytest.mark.parametrize(
    ("text", "version"),
    [("4", None), ("5", 5), ("6", 6), ("10", 10), ("11", None), ("?1", None), ("6.0", None), ("", None)],
)
def test_a_version_counts_if_it_is_known(text: str, version: int | None) -> None:
    assert Interop.read(lines_of(f"Upload-Draft-Interop-Version: {text}")) == Interop(version)


# -- creation


@pytest.mark.parametrize(
    ("value", "creates"), [("?1", True), ("?0", True), ("true", False), ("1", False), ("", False)]
)
def test_a_creation_says_whether_the_upload_is_complete(value: str, creates: bool) -> None:
    assert creates_upload(lines_of(f"Upload-Complete: {value}")) == creates
    assert not creates_upload(lines_of("Upload-Length: 10"))


@pytest.mark.parametrize("version", VERSIONS)
def test_up_to_version_6_the_length_may_complete_an_upload(version: int | None) -> None:
    creation = read_creation(lines_of("Upload-Complete: ?0", "Upload-Length: 10"), Interop(version), 4)
    assert creation.protocol == "draft"
    assert creation.length == 10
    assert creation.body == BodyTerms(None if version in {5, 6} else False)
    whole = read_creation(lines_of("Upload-Complete: ?1"), Interop(version), None)
    assert whole.body == BodyTerms(True)
    assert whole.length is None


def test_a_body_that_is_the_whole_file_tells_its_length() -> None:
    assert read_creation(lines_of("Upload-Complete: ?1"), Interop(6), 10).length == 10
    assert read_creation(lines_of("Upload-Complete: ?0"), Interop(6), 10).length is None
    contradicting = lines_of("Upload-Complete: ?1", "Upload-Length: 9")
    assert read_creation(contradicting, Interop(6), 10).length == 9


@pytest.mark.parametrize("value", ["-1", "1.5", "ten", "?1", "1000000000000000"])
def test_a_length_of_another_type_counts_as_not_sent(value: str) -> None:
    lines = lines_of("Upload-Complete: ?0", f"Upload-Length: {value}")
    assert read_creation(lines, Interop(None), 4).length is None


def test_a_creation_has_no_offset() -> None:
    lines = lines_of("Upload-Complete: ?0", "Upload-Offset: 0")
    assert refusal_code(read_creation, lines, Interop(None), 4) == "bad_request"


def test_a_range_beside_the_fields_of_the_draft_is_refused() -> None:
    line = "Content-Range: bytes 4-9/10"
    lines = lines_of("Upload-Complete: ?1", line)
    assert refusal_code(read_creation, lines, Interop(None), 6) == "bad_range"
    lines = lines_of(PART, "Upload-Offset: 4", "Upload-Complete: ?1", line)
    assert refusal_code(read_append, lines, Interop(None)) == "bad_range"


def test_a_creation_in_a_folder_may_name_its_file() -> None:
    lines = lines_of("Upload-Complete: ?1", 'Content-Disposition: inline; filename="a b.bin"')
    assert read_creation(lines, Interop(None), 4).filename == "a b.bin"


def test_digests_of_the_file_and_of_the_request_are_told_apart() -> None:
    creation = read_creation(
        lines_of(
            "Upload-Complete: ?0",
            f"Repr-Digest: sha-256=:{DIGEST}:",
            f"Content-Digest: sha-256=:{DIGEST}:",
        ),
        Interop(None),
        4,
    )
    assert [digest.header for digest in creation.digests] == ["Repr-Digest"]
    assert creation.body is not None
    assert [digest.header for digest in creation.body.digests] == ["Content-Digest"]


def test_a_digest_that_is_not_computed_here_is_refused() -> None:
    lines = lines_of("Upload-Complete: ?0", "Content-Digest: unixsum=:AA==:")
    assert refusal_code(read_creation, lines, Interop(None), 4) == "bad_digest"


def test_wanted_digests_are_those_that_are_computed_here() -> None:
    lines = lines_of("Upload-Complete: ?1", "Want-Repr-Digest: sha-256=10, md5=0, sha-512=1, unixsum=3")
    creation = read_creation(lines, Interop(None), 4)
    assert creation.body is not None
    assert creation.body.wanted == ("sha256", "sha512")


@pytest.mark.parametrize(
    ("line", "length", "content_length", "good"),
    [
        ("?1", 10, 10, True),
        ("?1", 10, 9, False),
        ("?1", 10, 11, False),
        ("?0", 10, 9, True),
        ("?0", 10, 11, False),
        ("?1", 90, 80, True),  # too large in the first place
        ("?0", 10, 80, True),
    ],
)
def test_a_body_contradicts_a_length_unless_both_are_too_large(
    line: str, length: int, content_length: int, good: bool
) -> None:
    lines = lines_of(f"Upload-Complete: {line}", f"Upload-Length: {length}")
    creation = read_creation(lines, Interop(None), content_length)
    limits = UploadLimits(50, 86400.0)
    if good:
        check_lengths(creation, content_length, limits)
    else:
        assert refusal_code(check_lengths, creation, content_length, limits) == "inconsistent_length"


# -- append


def test_an_append_has_offset_end_and_length() -> None:
    lines = lines_of(PART, "Upload-Offset: 4", "Upload-Complete: ?0", "Upload-Length: 10")
    assert read_append(lines, Interop(None)) == Append(4, BodyTerms(False), 10)
    last = lines_of(f"{PART}; a=b", "Upload-Offset: 4", "Upload-Complete: ?1")
    assert read_append(last, Interop(10)) == Append(4, BodyTerms(True), None)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_append_without_an_end_is_the_last_up_to_version_6(version: int | None) -> None:
    lines = lines_of(PART, "Upload-Offset: 4")
    if version in {5, 6}:
        assert read_append(lines, Interop(version)).body == BodyTerms(True)
    else:
        assert refusal_code(read_append, lines, Interop(version)) == "bad_request"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("content_type", [(), ("Content-Type: application/octet-stream",)])
def test_version_5_alone_appends_with_any_media_type(
    version: int | None, content_type: tuple[str, ...]
) -> None:
    lines = lines_of(*content_type, "Upload-Offset: 4", "Upload-Complete: ?0")
    if version == 5:
        assert read_append(lines, Interop(version)).offset == 4
    else:
        assert refusal_code(read_append, lines, Interop(version)) == "unsupported_media_type"


@pytest.mark.parametrize(
    "offset", [(), ("Upload-Offset: -1",), ("Upload-Offset: ?1",), ("Upload-Offset: 4.0",)]
)
def test_an_append_without_an_offset_is_refused(offset: tuple[str, ...]) -> None:
    lines = lines_of(PART, *offset, "Upload-Complete: ?0")
    assert refusal_code(read_append, lines, Interop(None)) == "bad_request"


def test_a_digest_of_the_file_comes_with_its_end() -> None:
    digest = f"Repr-Digest: sha-256=:{DIGEST}:"
    lines = lines_of(PART, "Upload-Offset: 4", "Upload-Complete: ?1", digest)
    assert [one.header for one in read_append(lines, Interop(None)).digests] == ["Repr-Digest"]
    lines = lines_of(PART, "Upload-Offset: 4", "Upload-Complete: ?0", digest)
    assert refusal_code(read_append, lines, Interop(None)) == "bad_digest"


@pytest.mark.parametrize("field", ["Upload-Offset: 0", "Upload-Complete: ?0", "Upload-Complete: x"])
def test_a_request_without_content_has_no_fields_of_content(field: str) -> None:
    assert refusal_code(check_resource_request, lines_of(field)) == "bad_request"
    check_resource_request(lines_of("Upload-Draft-Interop-Version: 6"))


# -- responses


@pytest.mark.parametrize("version", VERSIONS)
def test_every_response_tells_all_that_is_known(version: int | None) -> None:
    writer = responses(version, max_size=100)
    answers = {
        "created": writer.created(result()),
        "appended": writer.appended(result()),
        "described": writer.described(result()),
        "refused": writer.refused(PartialRefusal("bad_request", "no", result())),
    }
    for name, response in answers.items():
        headers = response.headers
        assert headers["Upload-Offset"] == "4", name
        assert headers["Upload-Complete"] == "?0"
        assert headers["Upload-Length"] == "10"
        assert headers["Upload-Limit"] == "max-size=100, max-age=1000"
        assert headers["Cache-Control"] == "no-store"
        assert headers.get(INTEROP_FIELD) == (None if version is None else str(version))
    assert answers["created"].status == 201
    assert answers["created"].headers["Location"] == URL
    assert answers["appended"].status == (201 if version in {5, 6} else 204)
    assert "Location" not in answers["appended"].headers
    assert answers["described"].status == 204


def test_a_length_that_is_not_known_is_not_told() -> None:
    assert "Upload-Length" not in responses().described(result(length=None)).headers


@pytest.mark.parametrize("replaced", [False, True])
def test_a_complete_upload_is_answered_as_a_plain_one(replaced: bool) -> None:
    whole = result(10, is_complete=True, expires=None, stored=stored(replaced=replaced))
    created, appended = responses(6).created(whole), responses(6).appended(whole)
    for response in (created, appended):
        assert response.status == (200 if replaced else 201)
        assert response.headers["Upload-Complete"] == "?1"
        assert response.headers["Upload-Offset"] == "10"
        assert response.headers["Upload-Limit"] == "min-size=0"
        assert isinstance(response.body, bytes)
        assert json.loads(response.body)["bytes"] == 10
    assert created.headers["Location"] == URL
    assert appended.headers["Location"] == "/-/uploads/ID"


def test_a_cancellation_has_no_state() -> None:
    response = responses(8).cancelled()
    assert response.status == 204
    assert response.headers[INTEROP_FIELD] == "8"
    assert "Upload-Offset" not in response.headers


def test_an_interim_response_tells_the_url() -> None:
    assert responses(8, max_size=5).interim_fields(result()) == {
        "Location": URL, "Upload-Limit": "max-size=5, max-age=1000", INTEROP_FIELD: "8",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("max_size", "partial", "field"),
    [
        (None, None, "max-age=86400"),
        (7, None, "max-size=7, max-age=86400"),
        (7, result(expires=time.time() - 5), "max-size=7, max-age=0"),
        (None, result(10, is_complete=True, expires=None), "min-size=0"),
    ],
)
def test_a_limit_is_always_told(max_size: int | None, partial: PartialResult | None, field: str) -> None:
    assert limit_field(UploadLimits(max_size, 86400.0), partial) == field


def problem(response: Any) -> Any:
    assert response.headers["Content-Type"] == "application/problem+json"
    return json.loads(response.body)


def test_a_wrong_offset_is_a_problem_with_both_offsets() -> None:
    refusal = PartialRefusal("mismatching_offset", "the next byte is 4", result())
    response = responses().refused(refusal, Append(9, BodyTerms()))
    assert response.status == 409
    body = problem(response)
    assert body["type"] == "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
    assert (body["expected-offset"], body["provided-offset"]) == (4, 9)
    assert body["status"] == 409
    assert body["title"]
    assert (body["error"], body["message"]) == ("mismatching_offset", "the next byte is 4")
    assert response.headers["Upload-Complete"] == "?0"
    assert response.headers["Upload-Offset"] == "4"


def test_a_wrong_length_is_a_problem_and_the_upload_is_not_complete() -> None:
    refusal = PartialRefusal("inconsistent_length", "10 and 12", result(), keeps=False)
    response = responses(10).refused(refusal)
    assert response.status == 400
    assert problem(response)["type"].endswith("#inconsistent-upload-length")
    assert response.headers["Upload-Complete"] == "?0"


def test_other_errors_are_those_of_the_table() -> None:
    response = responses(6).refused(Refusal("unauthorized", "who?"))
    assert response.status == 401
    assert response.headers["Content-Type"].startswith("application/json")
    assert response.headers[INTEROP_FIELD] == "6"
    assert "Upload-Complete" not in response.headers


def test_what_is_too_large_is_told_the_limit() -> None:
    response = responses(max_size=10).refused(Refusal("too_large", "11 bytes"))
    assert response.status == 413
    assert response.headers["Upload-Limit"] == "max-size=10, max-age=86400"


@pytest.mark.parametrize(
    ("code", "keeps", "complete"),
    [
        ("conflict", False, "?1"),
        ("precondition_failed", False, "?1"),
        ("digest_mismatch", False, "?1"),
        ("digest_mismatch", True, "?0"),
        ("storage_unavailable", True, "?0"),
        ("no_space", True, "?0"),
        ("length_exceeded", False, "?0"),
    ],
)
def test_only_a_refusal_of_the_whole_file_is_the_last_response(
    code: str, keeps: bool, complete: str
) -> None:
    response = responses(9).refused(PartialRefusal(code, "no", result(), keeps=keeps))
    assert response.headers["Upload-Complete"] == complete


def test_a_thousand_digests_are_not_compared_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def compared(*_: object) -> bool:
        raise AssertionError("the time would grow with the square of their number")

    monkeypatch.setattr(ExpectedDigest, "__eq__", compared)
    of_body = [ExpectedDigest("md5", bytes(16), "Content-Digest") for _ in range(2)]
    of_whole = [ExpectedDigest("md5", bytes(16), "Repr-Digest") for _ in range(2)]
    whole, body = split_digests((of_whole[0], of_body[0], of_whole[1], of_body[1]))
    assert [digest.header for digest in (*whole, *body)] == ["Repr-Digest"] * 2 + ["Content-Digest"] * 2
