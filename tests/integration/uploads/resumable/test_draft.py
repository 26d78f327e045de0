"""The IETF draft over real sockets: every rule, as clients of each version meet it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import curl, files_below, raw_connection, request_head
from tests.support.resumable import (
    PART_TYPE,
    Exchange,
    answers,
    append,
    offset_of,
    request,
    target_of,
    wait_received,
)

BODY = os.urandom(100_000)
OPEN, WHOLE = "Upload-Complete: ?0", "Upload-Complete: ?1"
PROBLEMS = "https://iana.org/assignments/http-problem-types#"


def interop(version: int | None) -> tuple[str, ...]:
    return () if version is None else (f"Upload-Draft-Interop-Version: {version}",)


def digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


async def created(
    gateway: Gateway, *lines: str, body: bytes = b"", target: str = "/upload/x"
) -> Exchange:
    exchange = await request(gateway, "POST", target, OPEN, *lines, body=body)
    assert exchange.status == 201, exchange
    return exchange


def stored(tmp_path: Path) -> dict[str, bytes]:
    return files_below(tmp_path / "data/upload")


# -- the whole way


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("version", [None, 5, 6, 7, 8, 9, 10])
async def test_an_upload_in_three_requests_becomes_a_file(
    start_gateway: StartGateway, tmp_path: Path, method: str, version: int | None
) -> None:
    gateway, lines = await start_gateway(), interop(version)
    first = await request(
        gateway, method, "/upload/x", OPEN, "Upload-Length: 100000", *lines, body=BODY[:30_000]
    )
    assert first.status == 201
    assert (first.offset, first.complete) == (30_000, "?0")
    assert stored(tmp_path) == {}

    described = await request(gateway, "HEAD", first.resource, *lines)
    assert described.status == 204
    assert described.final.headers["Upload-Length"] == "100000"
    assert described.final.headers["Cache-Control"] == "no-store"
    assert described.final.headers["Upload-Limit"].startswith("max-age=")
    assert (described.offset, described.complete) == (30_000, "?0")

    second = await append(gateway, first.resource, 30_000, BODY[30_000:60_000], *lines)
    assert second.status == (201 if version in {5, 6} else 204)
    assert (second.offset, second.complete) == (60_000, "?0")

    last = await append(gateway, first.resource, 60_000, BODY[60_000:], *lines, end=True)
    assert last.status == 201
    assert (last.offset, last.complete) == (100_000, "?1")
    assert last.final.json["bytes"] == 100_000
    assert stored(tmp_path) == {"x": BODY}
    for exchange in (first, described, second, last):
        assert exchange.final.headers.get("Upload-Draft-Interop-Version") == (
            None if version is None else str(version)
        )

    afterwards = await request(gateway, "GET", first.resource, *lines)
    assert (afterwards.status, afterwards.offset, afterwards.complete) == (204, 100_000, "?1")
    assert afterwards.final.headers["Upload-Length"] == "100000"


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("lines", [(), interop(6), interop(10)])
async def test_an_upload_in_one_request_becomes_a_file_that_can_be_asked_for(
    start_gateway: StartGateway, tmp_path: Path, method: str, lines: tuple[str, ...]
) -> None:
    gateway = await start_gateway()
    whole = await request(gateway, method, "/upload/x", WHOLE, *lines, body=BODY)
    assert whole.status == 201
    assert (whole.offset, whole.complete) == (100_000, "?1")
    assert whole.final.json["path"] == "/upload/x"
    assert stored(tmp_path) == {"x": BODY}
    described = await request(gateway, "HEAD", whole.resource)
    assert (described.status, described.offset, described.complete) == (204, 100_000, "?1")
    again = await request(gateway, method, "/upload/x", WHOLE, *lines, body=b"new")
    assert again.status == 200
    assert stored(tmp_path) == {"x": b"new"}


async def test_an_upload_may_begin_without_content_and_without_a_length(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    first = await request(gateway, "POST", "/upload/x", OPEN)
    assert (first.status, first.offset, first.complete) == (201, 0, "?0")
    assert "Upload-Length" not in first.final.headers
    second = await append(gateway, first.resource, 0, BODY, "Upload-Length: 100000")
    assert second.final.headers["Upload-Length"] == "100000"
    assert second.complete == "?0"  # the end has not been said
    last = await append(gateway, first.resource, 100_000, b"", end=True)
    assert (last.status, last.complete) == (201, "?1")
    assert stored(tmp_path) == {"x": BODY}


async def test_an_end_without_content_needs_no_length_either(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"all")
    last = await request(gateway, "PATCH", first.resource, PART_TYPE, "Upload-Offset: 3", WHOLE)
    assert (last.status, last.complete) == (201, "?1")
    assert last.final.headers["Upload-Length"] == "3"
    assert stored(tmp_path) == {"x": b"all"}


async def test_an_empty_file_may_be_uploaded(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    assert (await request(gateway, "POST", "/upload/x", WHOLE)).status == 201
    assert (await request(gateway, "PUT", "/upload/y", WHOLE, body=b"")).status == 201
    first = await request(gateway, "POST", "/upload/z", OPEN, "Upload-Length: 0")
    assert (first.status, first.complete) == (201, "?0")
    assert (await append(gateway, first.resource, 0, b"", end=True)).status == 201
    assert stored(tmp_path) == {"x": b"", "y": b"", "z": b""}


async def test_chunked_bodies_are_taken_everywhere(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()

    async def send(method: str, target: str, content: bytes, *lines: str) -> Exchange:
        async with raw_connection(gateway) as connection:
            head = request_head(method, target, "Transfer-Encoding: chunked", *lines)
            await connection.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))
            return await answers(connection)

    first = await send("POST", "/upload/x", b"one", OPEN)
    assert (first.status, first.offset) == (201, 3)
    last = await send("PATCH", first.resource, b"two", PART_TYPE, "Upload-Offset: 3", WHOLE)
    assert (last.status, last.offset) == (201, 6)
    whole = await send("POST", "/upload/y", b"three", WHOLE)
    assert (whole.status, whole.offset) == (201, 5)
    assert stored(tmp_path) == {"x": b"onetwo", "y": b"three"}


# -- where it may begin


async def test_a_creation_in_a_folder_gets_a_name(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    named = await request(
        gateway, "POST", "/upload/", WHOLE, 'Content-Disposition: inline; filename="a b.bin"', body=b"1"
    )
    assert named.status == 201
    assert named.final.json["path"] == "/upload/a b.bin"
    deeper = await request(gateway, "POST", "/upload/in/", WHOLE, body=b"2")
    assert deeper.status == 201
    name = deeper.final.json["path"].removeprefix("/upload/in/")
    assert len(name) == 36
    assert stored(tmp_path) == {"a b.bin": b"1", f"in/{name}": b"2"}
    assert await offset_of(gateway, named.resource) == 1
    for name in ("../x", "..", "a/../../x"):
        line = f'Content-Disposition: inline; filename="{name}"'
        answer = await request(gateway, "POST", "/upload/", WHOLE, line, body=b"3")
        assert answer.status in {200, 201, 400}
    assert sorted(files_below(tmp_path / "data")) == sorted(
        path for path in files_below(tmp_path / "data") if path.startswith(("upload/", ".gateway/"))
    )


async def test_a_folder_takes_no_put(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert (await request(gateway, "PUT", "/upload/", body=b"1")).status == 400


# -- 104


@pytest.mark.parametrize("version", [5, 6, 7, 8, 9, 10])
async def test_the_url_is_told_before_the_body_is_read(
    start_gateway: StartGateway, version: int
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = ("Content-Length: 100000", OPEN, *interop(version))
        await connection.send(request_head("POST", "/upload/x", *lines))
        interim = await connection.head()
        assert interim.status == 104
        assert interim.headers["Upload-Draft-Interop-Version"] == str(version)
        assert interim.headers["Upload-Limit"].startswith("max-age=")
        assert interim.headers["Location"].startswith(f"{gateway.url}/upload/x?upload=")
        await connection.send(BODY)
        final = await answers(connection)
    assert final.status == 201
    assert final.interim == []
    assert final.final.headers["Location"] == interim.headers["Location"]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        interop(4),
        interop(11),
        ("Upload-Draft-Interop-Version: six",),
        (*interop(6), "Via: 1.1 proxy"),
        (*interop(6), "X-Forwarded-For: 192.0.2.1"),
        (*interop(6), "Forwarded: for=192.0.2.1"),
        (*interop(6), "X-Real-IP: 192.0.2.1"),
    ],
)
async def test_no_104_goes_to_a_client_that_may_not_expect_it(
    start_gateway: StartGateway, lines: tuple[str, ...]
) -> None:
    gateway = await start_gateway(auth="none")
    exchange = await request(gateway, "POST", "/upload/x", OPEN, *lines, body=b"x")
    assert exchange.status == 201
    assert exchange.interim == []


async def test_no_104_goes_to_a_trusted_proxy_or_to_http_1_0(start_gateway: StartGateway) -> None:
    behind = await start_gateway(auth="none", trusted_proxies="127.0.0.1/32")
    exchange = await request(behind, "POST", "/upload/x", OPEN, *interop(6), body=b"x")
    assert (exchange.status, exchange.interim) == (201, [])
    direct = await start_gateway(directory=str(behind.resources.settings.directory) + "-2")
    async with raw_connection(direct) as connection:
        head = request_head("POST", "/upload/x", OPEN, *interop(6), "Content-Length: 1")
        await connection.send(head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"x")
        exchange = await answers(connection)
    assert (exchange.status, exchange.interim) == (201, [])


async def test_a_phone_that_expects_100_gets_104_100_and_201(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    lines = ("Content-Length: 100000", "Content-Type: image/heic", WHOLE, *interop(6))
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", *lines, "Expect: 100-continue"))
        assert (await connection.head()).status == 104
        assert (await connection.head()).status == 100
        await connection.send(BODY)
        exchange = await answers(connection)
    assert exchange.interim == []
    assert (exchange.status, exchange.complete) == (201, "?1")
    assert exchange.final.json["mime"] == "image/heic"
    assert stored(tmp_path) == {"x": BODY}


async def test_a_phone_whose_connection_breaks_goes_on(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = ("Content-Length: 100000", WHOLE, *interop(6))
        await connection.send(request_head("PUT", "/upload/x", *lines))
        location = (await connection.head()).headers["Location"]
        await connection.send(BODY[:70_000])
        resource = target_of(location)
        await wait_received(gateway, resource.partition("=")[2].partition(".")[0], 70_000)
        connection.reset()
    offset = await offset_of(gateway, resource, *interop(6))
    assert offset == 70_000
    assert stored(tmp_path) == {}
    last = await append(gateway, resource, offset, BODY[offset:], *interop(6), end=True)
    assert (last.status, last.complete) == (201, "?1")
    assert stored(tmp_path) == {"x": BODY}


async def test_a_refused_creation_gets_neither_104_nor_100(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_bytes="10")
    lines = ("Content-Length: 100000", WHOLE, *interop(6), "Expect: 100-continue")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", *lines))
        exchange = await answers(connection)
    assert (exchange.status, exchange.interim) == (413, [])


# -- offsets and lengths


async def test_a_wrong_offset_is_told_the_true_one(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"1234")
    for offset in (0, 3, 5):
        answer = await append(gateway, first.resource, offset, b"x")
        assert (answer.status, answer.offset, answer.complete) == (409, 4, "?0")
        assert answer.final.headers["Content-Type"] == "application/problem+json"
        problem = answer.final.json
        assert problem["type"] == f"{PROBLEMS}mismatching-upload-offset"
        assert (problem["expected-offset"], problem["provided-offset"]) == (4, offset)
    assert await offset_of(gateway, first.resource) == 4


async def test_a_wrong_offset_is_told_before_the_body_is_asked_for(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"1234")
    lines = (PART_TYPE, "Upload-Offset: 9", OPEN, "Content-Length: 5", "Expect: 100-continue")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PATCH", first.resource, *lines))
        answer = await answers(connection)
    assert (answer.status, answer.interim) == (409, [])


@pytest.mark.parametrize(
    ("lines", "body", "status", "error"),
    [
        (("Upload-Offset: 4", OPEN), b"x", 415, "unsupported_media_type"),
        ((PART_TYPE, OPEN), b"x", 400, "bad_request"),
        ((PART_TYPE, "Upload-Offset: -4", OPEN), b"x", 400, "bad_request"),
        ((PART_TYPE, "Upload-Offset: 4"), b"x", 400, "bad_request"),
        ((PART_TYPE, "Upload-Offset: 4", "Upload-Complete: 1"), b"x", 400, "bad_request"),
        ((PART_TYPE, "Upload-Offset: 4", OPEN, "Upload-Length: 11"), b"x", 400, "inconsistent_length"),
        ((PART_TYPE, "Upload-Offset: 4", WHOLE), b"x", 400, "inconsistent_length"),
    ],
)
async def test_a_bad_append_is_refused_and_the_upload_goes_on(
    start_gateway: StartGateway,
    tmp_path: Path,
    lines: tuple[str, ...],
    body: bytes,
    status: int,
    error: str,
) -> None:
    gateway = await start_gateway()
    first = await created(gateway, "Upload-Length: 10", body=b"1234")
    answer = await request(gateway, "PATCH", first.resource, *lines, body=body)
    assert answer.status == status
    assert answer.final.json["error"] == error
    assert answer.final.headers.get("Upload-Complete", "?0") == "?0"
    offset = await offset_of(gateway, first.resource)
    assert (
        await append(gateway, first.resource, offset, b"1234567890"[offset:], end=True)
    ).status == 201


async def test_a_value_of_another_type_counts_as_not_sent(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    for value in ("true", "1", '"?1"', "?2"):
        answer = await request(gateway, "PUT", "/upload/x", f"Upload-Complete: {value}", body=b"all")
        assert answer.status in {200, 201}, value
        assert "Upload-Complete" not in answer.final.headers
    assert stored(tmp_path) == {"x": b"all"}


async def test_a_contradicting_length_is_a_problem(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    first = await created(gateway, "Upload-Length: 10", body=b"1234")
    answer = await append(gateway, first.resource, 4, b"x", "Upload-Length: 11")
    assert (answer.status, answer.complete) == (400, "?0")
    assert answer.final.json["type"] == f"{PROBLEMS}inconsistent-upload-length"
    for method, lines in (("POST", (WHOLE, "Upload-Length: 9")), ("POST", (OPEN, "Upload-Length: 3"))):
        answer = await request(gateway, method, "/upload/y", *lines, body=b"1234")
        assert answer.status == 400, lines


@pytest.mark.parametrize("end", [False, True], ids=["more to come", "the end"])
async def test_bytes_past_the_length_end_the_upload(
    start_gateway: StartGateway, tmp_path: Path, end: bool
) -> None:
    gateway = await start_gateway()
    first = await created(gateway, "Upload-Length: 10", body=b"1234")
    answer = await append(gateway, first.resource, 4, b"1234567", end=end)
    assert (answer.status, answer.complete) == (400, "?0")
    assert answer.final.json["error"] == "length_exceeded"
    assert (await request(gateway, "HEAD", first.resource)).status in {404, 410}
    assert (await append(gateway, first.resource, 4, b"123456", end=True)).status in {404, 410}
    assert stored(tmp_path) == {}


@pytest.mark.parametrize("version", [None, 5, 6, 7, 10])
async def test_all_bytes_complete_an_upload_by_themselves_up_to_version_6(
    start_gateway: StartGateway, tmp_path: Path, version: int | None
) -> None:
    gateway = await start_gateway()
    first = await created(gateway, "Upload-Length: 10", *interop(version), body=b"12345")
    last = await append(gateway, first.resource, 5, b"67890", *interop(version))
    assert last.complete == ("?1" if version in {5, 6} else "?0")
    assert stored(tmp_path) == ({"x": b"1234567890"} if version in {5, 6} else {})
    assert await offset_of(gateway, first.resource) == 10


async def test_what_is_too_large_is_told_the_limit_also_where_it_is_inconsistent(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(max_bytes="10")
    for lines in ((OPEN, "Upload-Length: 11"), (WHOLE, "Upload-Length: 20")):
        answer = await request(gateway, "POST", "/upload/x", *lines, body=b"x" * 11)
        assert answer.status == 413
        assert answer.final.headers["Upload-Limit"].startswith("max-size=10, max-age=")


async def test_options_tells_the_limits(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_bytes="10")
    for target in ("/upload/x", "/upload/", "/upload/deep/x"):
        answer = await request(gateway, "OPTIONS", target)
        assert answer.status in {200, 204}
        assert answer.final.headers["Upload-Limit"] == "max-size=10, max-age=86400"
        assert {"PUT", "POST", "HEAD"} <= set(answer.final.headers["Allow"].split(", "))
    first = await created(gateway)
    answer = await request(gateway, "OPTIONS", first.resource)
    assert answer.final.headers["Upload-Limit"].startswith("max-size=10")
    assert answer.final.headers["Allow"] == "HEAD, GET, PATCH, DELETE, OPTIONS"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Content-Encoding: aws-chunked", 415),
        ("Content-Transfer-Encoding: base64", 415),
        ("x-amz-copy-source: /b/k", 501),
        ("X-Content-Range: bytes 0-2/3", 400),
    ],
)
async def test_an_append_whose_body_is_not_the_bytes_themselves_is_refused(
    start_gateway: StartGateway, tmp_path: Path, line: str, status: int
) -> None:
    gateway = await start_gateway()
    resource = (await created(gateway, body=b"abc")).resource
    assert (await append(gateway, resource, 3, b"def", line, end=True)).status == status
    assert await offset_of(gateway, resource) == 3
    assert (await append(gateway, resource, 3, b"def", end=True)).status == 201
    assert stored(tmp_path) == {"x": b"abcdef"}


async def test_a_form_is_no_append_for_the_version_that_has_no_type(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    resource = (await created(gateway, *interop(5), body=b"abc")).resource
    lines = ("Upload-Offset: 3", OPEN, "Content-Type: multipart/form-data; boundary=x", *interop(5))
    assert (await request(gateway, "PATCH", resource, *lines, body=b"def")).status == 415
    assert await offset_of(gateway, resource) == 3


@pytest.mark.parametrize(
    "name", ["*=unicode_escape''%5cud800", "*=undefined''x", "*=idna''x", f"*{'9' * 5000}=x"]
)
async def test_a_name_in_an_unknown_coding_is_none(start_gateway: StartGateway, name: str) -> None:
    line = f"Content-Disposition: attachment; filename{name}"
    exchange = await created(await start_gateway(), line, target="/upload/")
    assert len(target_of(exchange.final.headers["Location"]).partition("?")[0]) == len("/upload/") + 36


# -- digests


async def test_the_digest_of_the_file_is_checked_at_its_end(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    good = await created(gateway, f"Repr-Digest: {digest(b'onetwo')}", body=b"one")
    assert (await append(gateway, good.resource, 3, b"two", end=True)).status == 201
    bad = await created(gateway, f"Repr-Digest: {digest(b'onetwo')}", body=b"one", target="/upload/y")
    answer = await append(gateway, bad.resource, 3, b"TWO", end=True)
    assert (answer.status, answer.final.json["error"]) == (400, "digest_mismatch")
    assert answer.complete == "?1"  # the last response: it will never be stored
    assert (await request(gateway, "HEAD", bad.resource)).status in {404, 410}
    assert stored(tmp_path) == {"x": b"onetwo"}


async def test_a_body_with_another_digest_than_it_says_is_not_appended(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"one")
    answer = await append(gateway, first.resource, 3, b"TWO", f"Content-Digest: {digest(b'two')}")
    assert (answer.status, answer.final.json["error"]) == (400, "digest_mismatch")
    assert (answer.offset, answer.complete) == (3, "?0")
    assert await offset_of(gateway, first.resource) == 3
    lines = (f"Content-Digest: {digest(b'two')}",)
    assert (await append(gateway, first.resource, 3, b"two", *lines, end=True)).status == 201
    assert stored(tmp_path) == {"x": b"onetwo"}


async def test_a_body_with_a_digest_that_breaks_is_not_appended(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"one")
    upload_id = first.resource.partition("=")[2].partition(".")[0]
    lines = (PART_TYPE, "Upload-Offset: 3", OPEN, "Content-Length: 100000")
    async with raw_connection(gateway) as connection:
        digest_line = f"Content-Digest: {digest(BODY)}"
        await connection.send(request_head("PATCH", first.resource, *lines, digest_line) + BODY[:70_000])
        await wait_received(gateway, upload_id, 70_000)
        connection.reset()
    assert await offset_of(gateway, first.resource) == 3


async def test_a_digest_that_is_wanted_is_told_at_the_end(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"one")
    last = await append(gateway, first.resource, 3, b"two", "Want-Repr-Digest: sha-256=5", end=True)
    assert last.final.headers["Repr-Digest"] == digest(b"onetwo")
    whole = await request(
        gateway, "POST", "/upload/y", WHOLE, "Want-Repr-Digest: sha-256=5", body=b"three"
    )
    assert whole.final.headers["Repr-Digest"] == digest(b"three")


async def test_the_digest_of_the_setting_is_told_of_a_resumed_upload_as_of_any_other(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(digest="sha256", downloads=True, auth="none")
    first = await created(gateway, body=b"one")
    last = await append(gateway, first.resource, 3, b"two", end=True)
    assert last.final.headers["Repr-Digest"] == digest(b"onetwo")
    head = await request(gateway, "HEAD", "/upload/x")
    assert head.final.headers["Repr-Digest"] == digest(b"onetwo")
    status = await request(gateway, "GET", f"/-/uploads/{first.upload_id}")
    assert f"sha-256=:{status.final.json['digests']['sha-256']}:" == digest(b"onetwo")


# -- the upload resource


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
@pytest.mark.parametrize("line", ["Upload-Offset: 0", OPEN])
async def test_a_request_without_content_bears_no_field_of_content(
    start_gateway: StartGateway, method: str, line: str
) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"1234")
    assert (await request(gateway, method, first.resource, line)).status == 400
    assert await offset_of(gateway, first.resource) == 4


async def test_a_cancelled_upload_is_gone(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"1234")
    assert (await request(gateway, "DELETE", first.resource)).status == 204
    for method in ("HEAD", "GET", "DELETE"):
        assert (await request(gateway, method, first.resource)).status in {404, 410}
    assert (await append(gateway, first.resource, 4, b"x")).status in {404, 410}
    assert stored(tmp_path) == {}


async def test_a_complete_upload_is_not_cancelled(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    whole = await request(gateway, "POST", "/upload/x", WHOLE, body=b"1234")
    assert (await request(gateway, "DELETE", whole.resource)).status == 404
    assert stored(tmp_path) == {"x": b"1234"}


async def test_uploads_that_are_not_of_the_caller_look_like_none(start_gateway: StartGateway) -> None:
    tokens = [f"{name}:{token_digest(name)}" for name in ("me", "you")]
    gateway = await start_gateway(auth="token", tokens=tokens)
    mine, theirs = "Authorization: Bearer me", "Authorization: Bearer you"
    first = await created(gateway, mine, body=b"1234")
    unknown = first.resource[:-4] + "AAAA"
    for resource, line in ((first.resource, theirs), (unknown, mine)):
        for method in ("HEAD", "GET", "DELETE"):
            answer = await request(gateway, method, resource, line)
            assert answer.status == 404
        assert (await append(gateway, resource, 4, b"x", line)).status == 404
    assert (await request(gateway, "HEAD", first.resource)).status == 401
    assert await offset_of(gateway, first.resource, mine) == 4


async def test_another_method_on_an_upload_resource_stores_nothing(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    first = await created(gateway, body=b"1234")
    for method in ("PUT", "POST"):
        answer = await request(gateway, method, first.resource, body=b"x")
        assert answer.status == 405
        assert "PATCH" in answer.final.headers["Allow"]
    assert stored(tmp_path) == {}


async def test_the_secret_is_not_logged_and_the_plugin_does_not_see_it(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    gateway = await start_gateway()
    first = await created(gateway, body=b"1234")
    secret = first.resource.rpartition(".")[2]
    await append(gateway, first.resource, 9, b"x")
    await append(gateway, first.resource, 4, b"x", end=True)
    assert secret not in caplog.text
    assert secret not in json.dumps([record.__dict__ for record in caplog.records], default=str)


# -- settings


async def test_without_resumable_uploads_everything_is_as_before(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(resumable="off")
    assert (await request(gateway, "POST", "/upload/x", WHOLE, body=b"x")).status == 415
    assert (await request(gateway, "PUT", "/upload/x", OPEN, body=b"x")).status == 400
    assert (await request(gateway, "OPTIONS", "/upload/x")).status == 405
    whole = await request(gateway, "PUT", "/upload/x", WHOLE, *interop(6), body=b"x")
    assert (whole.status, whole.interim) == (201, [])
    assert "Upload-Complete" not in whole.final.headers
    assert stored(tmp_path) == {"x": b"x"}


async def test_curl_goes_on_by_hand(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    first = await curl("-X", "POST", "-H", OPEN, "-D", "-", "-d", "1234", f"{gateway.url}/upload/x")
    location = next(
        line.partition(": ")[2] for line in first.body.splitlines() if line.startswith("Location")
    ).strip()
    last = await curl(
        "-X", "PATCH", "-H", PART_TYPE, "-H", "Upload-Offset: 4", "-H", WHOLE, "-d", "5678", location
    )
    assert last.status == 201
    assert stored(tmp_path) == {"x": b"12345678"}
