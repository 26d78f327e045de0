"""tus 1.0.0, rule by rule: core, creation, expiration, checksum, termination."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path

import pytest

from gateway.commit.local_open_partial import LocalOpenPartial
from gateway.domain.digests import new_digest
from gateway.domain.partial import PARTIAL_TTL
from gateway.endpoints.uploads.resumable.tus_request import CHECKSUM_ALGORITHMS
from gateway.errors import Refusal
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    RawResponse,
    get,
    put,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.recorders import EventRecorder
from tests.support.resumable import upload_id, wait_received
from tests.support.tus import (
    ALICE,
    BOB,
    BYTES,
    TOKENS,
    VERSION,
    b64,
    checksum,
    create,
    kept,
    metadata,
    offset_of,
    patch,
    stored,
    target_of,
    tus,
)


async def refused(
    gateway: Gateway, method: str, target: str, *lines: str, body: bytes | None = None
) -> str:
    answer = await tus(gateway, method, target, *lines, body=body)
    error = str(answer.json["error"]) if answer.body else ""
    return f"{answer.status} {error}".strip()


# -- core


async def test_a_file_that_comes_in_pieces_is_stored_with_the_last_one(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a/b.txt", length=11)
    assert target_of(url).startswith("/upload/a/b.txt?upload=")
    assert await offset_of(gateway, url) == 0
    answer = await patch(gateway, url, 0, b"hello")
    assert (answer.status, answer.headers["Upload-Offset"], answer.body) == (204, "5", b"")
    assert stored(data) == {}
    answer = await patch(gateway, url, 5, b" world")
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "11")
    assert stored(data) == {"upload/a/b.txt": b"hello world"}
    assert "Upload-Expires" not in answer.headers
    status = await tus(gateway, "HEAD", url)
    assert status.headers["Upload-Offset"] == status.headers["Upload-Length"] == "11"


async def test_every_answer_names_the_page_with_the_status_of_the_upload(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    answer = await tus(gateway, "POST", "/upload/a", "Upload-Length: 1")
    link = answer.headers["Link"]
    assert link.endswith('>; rel="status"')
    page = link[1:].partition(">")[0]
    url = answer.headers["Location"]
    assert (await tus(gateway, "HEAD", url)).headers["Link"] == link
    assert (await patch(gateway, url, 0, b"x")).headers["Link"] == link
    assert (await get(gateway, page)).json["state"] == "stored"


async def test_the_url_of_an_upload_is_absolute_and_never_from_the_host_of_the_client(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(public_url="https://files.example/base")
    url = await create(gateway, "/upload/a", length=1)
    assert url.startswith("https://files.example/base/upload/a?upload=")


@pytest.mark.parametrize("offset", [0, 4, 6, 100])
async def test_another_offset_is_refused_with_the_true_one(
    start_gateway: StartGateway, data: Path, offset: int
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    await patch(gateway, url, 0, b"hello")
    answer = await patch(gateway, url, offset, b"x")
    assert (answer.status, answer.json["error"]) == (409, "mismatching_offset")
    assert answer.headers["Upload-Offset"] == "5"
    assert await offset_of(gateway, url) == 5
    assert (await patch(gateway, url, 5, b" world")).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


async def test_a_client_that_expects_100_continue_sends_nothing_to_a_wrong_offset(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    lines = (VERSION, BYTES, "Content-Length: 11", "Expect: 100-continue")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PATCH", target_of(url), *lines, "Upload-Offset: 3"))
        assert await connection.line() == b"HTTP/1.1 409 Conflict\r\n"
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PATCH", target_of(url), *lines, "Upload-Offset: 0"))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        await connection.line()
        await connection.send(b"hello world")
        assert (await connection.answer()).status == 204


async def test_what_came_before_a_cut_is_kept(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    async with raw_connection(gateway) as connection:
        lines = (VERSION, BYTES, "Content-Length: 11", "Upload-Offset: 0")
        await connection.send(request_head("PATCH", target_of(url), *lines) + b"hello")
        await wait_received(gateway, upload_id(url), 5)  # a reset drops what the kernel still has
        connection.reset()
    assert await offset_of(gateway, url) == 5
    assert (await patch(gateway, url, 5, b" world")).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
async def test_an_upload_that_is_not_there_is_not_found(
    start_gateway: StartGateway, method: str
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    body, lines = (b"hello", ("Upload-Offset: 0",)) if method == "PATCH" else (None, ())
    for target in ("/upload/a?upload=x", url[:-1] + ("a" if url[-1] != "a" else "b"), "/upload/a"):
        answer = await tus(gateway, method, target, *lines, body=body)
        assert answer.status == 404
        assert "Upload-Offset" not in answer.headers
    assert await offset_of(gateway, url) == 0


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Upload-Offset: 0", "Content-Type: text/plain"], "415 unsupported_media_type"),
        (["Upload-Offset: 0"], "415 unsupported_media_type"),
        ([BYTES], "400 bad_request"),
        ([BYTES, "Upload-Offset: -1"], "400 bad_request"),
        ([BYTES, "Upload-Offset: 0", "Upload-Length: 10"], "400 inconsistent_length"),
    ],
)
async def test_an_append_that_breaks_a_rule_leaves_the_upload_as_it_is(
    start_gateway: StartGateway, lines: list[str], expected: str
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    async with raw_connection(gateway) as connection:
        head = request_head("PATCH", target_of(url), VERSION, "Content-Length: 5", *lines)
        await connection.send(head + b"hello")
        answer = await connection.answer()
    assert f"{answer.status} {answer.json['error']}" == expected
    assert await offset_of(gateway, url) == 0


async def test_more_bytes_than_the_file_has_end_the_upload(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=5)
    answer = await patch(gateway, url, 0, b"hello!")
    assert (answer.status, answer.json["error"]) == (400, "length_exceeded")
    assert (await tus(gateway, "HEAD", url)).status == 404
    assert stored(data) == {}


async def test_another_version_is_refused_before_anything_is_done(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("POST", "/upload/a", "Tus-Resumable: 0.2.2", "Upload-Length: 1")
        )
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (412, "unsupported_version")
    assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
    assert kept(data) == {}


async def test_what_is_supported_is_told_without_a_version(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_bytes="1000")
    for target in ("/upload/a", "/upload/"):
        for lines in ((), ("Tus-Resumable: 0.0.1",)):
            async with raw_connection(gateway) as connection:
                await connection.send(request_head("OPTIONS", target, *lines))
                answer = await connection.answer()
            assert answer.status == 204
            assert answer.headers["Tus-Version"] == "1.0.0"
            assert answer.headers["Tus-Max-Size"] == "1000"
            assert answer.headers["Tus-Checksum-Algorithm"] == ",".join(CHECKSUM_ALGORITHMS)
            assert set(answer.headers["Tus-Extension"].split(",")) == {
                "creation", "creation-with-upload", "creation-defer-length", "expiration",
                "checksum", "termination", "concatenation",
            }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [("PUT", "/upload/a", "POST, OPTIONS"), ("POST", "url", "HEAD, PATCH, DELETE, OPTIONS")],
)
async def test_other_methods_are_not_allowed(
    start_gateway: StartGateway, method: str, target: str, allowed: str
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=5)
    answer = await tus(gateway, method, url if target == "url" else target, "Upload-Length: 5")
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)


# -- the method override


async def test_a_post_can_stand_for_patch_and_for_delete(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=5)
    lines = ("X-HTTP-Method-Override: PATCH", "Upload-Offset: 0")
    assert (await tus(gateway, "POST", url, *lines, body=b"hello")).status == 204
    assert stored(data) == {"upload/a": b"hello"}
    url = await create(gateway, "/upload/b", length=5)
    assert (await tus(gateway, "POST", url, "X-HTTP-Method-Override: DELETE")).status == 204
    assert (await tus(gateway, "HEAD", url)).status == 404


async def test_nothing_else_can_stand_for_another_method(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=5)
    for method, target, override in (
        ("POST", "/upload/b", "PATCH"),
        ("POST", "/upload/b", "DELETE"),
        ("POST", url, "HEAD"),
        ("HEAD", url, "DELETE"),
        ("PATCH", url, "DELETE"),
    ):
        lines = (f"X-HTTP-Method-Override: {override}", "Upload-Length: 1")
        assert (await tus(gateway, method, target, *lines)).status == 400
    assert await offset_of(gateway, url) == 0


async def test_a_request_without_tus_keeps_its_method(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway(downloads=True)
    assert (await put(gateway, "/upload/a", b"x", "X-HTTP-Method-Override: DELETE")).status == 201
    assert (await get(gateway, "/upload/a", "X-HTTP-Method-Override: DELETE")).body == b"x"
    assert stored(data) == {"upload/a": b"x"}


# -- creation


async def test_an_empty_file_is_stored_at_once(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=0)
    assert stored(data) == {"upload/a": b""}
    assert await offset_of(gateway, url) == 0


async def test_a_creation_with_all_bytes_stores_the_file(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    answer = await tus(gateway, "POST", "/upload/a.txt", "Upload-Length: 5", body=b"hello")
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "5")
    assert answer.json["path"] == "/upload/a.txt"
    assert stored(data) == {"upload/a.txt": b"hello"}
    assert await offset_of(gateway, answer.headers["Location"]) == 5
    again = await tus(gateway, "POST", "/upload/a.txt", "Upload-Length: 3", body=b"new")
    assert again.status == 201
    assert stored(data) == {"upload/a.txt": b"new"}


async def test_a_creation_with_the_first_bytes_goes_on(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    answer = await tus(gateway, "POST", "/upload/a", "Upload-Length: 11", body=b"hello")
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "5")
    assert stored(data) == {}
    assert (await patch(gateway, answer.headers["Location"], 5, b" world")).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ([metadata(filename="a b.txt")], "upload/f/a b.txt"),
        ([metadata(name="käse€.txt")], "upload/f/käse€.txt"),
        ([metadata(filename="a.txt", relativePath="/x/y/a.txt")], "upload/f/x/y/a.txt"),
        ([metadata(filename="a.txt", relativePath="null")], "upload/f/a.txt"),
        ([metadata(filename="100%.txt?a=b#c")], "upload/f/100%.txt?a=b#c"),
        (['Content-Disposition: attachment; filename="x.txt"'], "upload/f/x.txt"),
        ([metadata(filename="a"), 'Content-Disposition: attachment; filename="x"'], "upload/f/a"),
    ],
)
async def test_in_a_folder_the_metadata_names_the_file(
    start_gateway: StartGateway, data: Path, lines: list[str], path: str
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/f/", *lines, length=1)
    assert (await patch(gateway, url, 0, b"x")).status == 204
    assert stored(data) == {path: b"x"}


async def test_in_a_folder_a_file_without_a_name_gets_a_uuid(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    for folder in ("/upload/", "/upload/f/"):
        url = await create(gateway, folder, length=1, body=b"x")
        assert target_of(url).startswith(folder)
    names = [Path(path).name for path in stored(data)]
    assert len({*names}) == 2
    assert all(len(name) == 36 for name in names)


@pytest.mark.parametrize(
    "name",
    ["..", "../../x", "a/../../x", "/", "a//b", "a\\b", "a\x00b", "a\nb", "a/", ".", "x" * 256],
)
async def test_a_name_that_is_no_legal_path_is_refused(
    start_gateway: StartGateway, data: Path, name: str
) -> None:
    gateway = await start_gateway()
    expected = "400 bad_path"
    assert (
        await refused(gateway, "POST", "/upload/f/", metadata(filename=name), "Upload-Length: 1")
        == expected
    )
    relative = metadata(relativePath=name)
    if name != "/":  # that is no name at all
        assert await refused(gateway, "POST", "/upload/f/", relative, "Upload-Length: 1") == expected
    assert kept(data) == stored(data) == {}


async def test_an_exact_path_is_the_name_whatever_the_metadata_says(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    await create(gateway, "/upload/a.txt", metadata(filename="../../b"), length=1, body=b"x")
    assert stored(data) == {"upload/a.txt": b"x"}


async def test_a_folder_may_have_a_variable_of_the_template(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway(
        file_upload_api_path="/api/{tenant}/{filename}", stored_path="/{tenant}/{filename}"
    )
    url = await create(gateway, "/api/acme/", metadata(filename="a.txt"), length=1, body=b"x")
    assert target_of(url).startswith("/api/acme/a.txt?upload=")
    assert stored(data) == {"acme/a.txt": b"x"}
    lines = (metadata(filename="x/a.txt"), "Upload-Length: 1")
    assert await refused(gateway, "POST", "/api/acme/", *lines) == "400 bad_path"


async def test_the_length_may_come_with_any_append(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", "Upload-Defer-Length: 1")
    answer = await tus(gateway, "HEAD", url)
    assert answer.headers["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in answer.headers
    await patch(gateway, url, 0, b"hello")
    await patch(gateway, url, 5, b" ", "Upload-Length: 11")
    answer = await tus(gateway, "HEAD", url)
    assert (answer.headers["Upload-Offset"], answer.headers["Upload-Length"]) == ("6", "11")
    assert "Upload-Defer-Length" not in answer.headers
    answer = await patch(gateway, url, 6, b"x", "Upload-Length: 12")
    assert (answer.status, answer.json["error"]) == (400, "inconsistent_length")
    assert (await patch(gateway, url, 6, b"world", "Upload-Length: 11")).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


async def test_an_empty_append_with_the_length_completes_the_file(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", "Upload-Defer-Length: 1")
    await patch(gateway, url, 0, b"hello")
    answer = await patch(gateway, url, 5, b"", "Upload-Length: 4")
    assert (answer.status, answer.json["error"]) == (400, "inconsistent_length")
    assert (await patch(gateway, url, 5, b"", "Upload-Length: 5")).status == 204
    assert stored(data) == {"upload/a": b"hello"}
    # Its client may not have received the answer.
    again = await patch(gateway, url, 5, b"", "Upload-Length: 5")
    assert (again.status, again.headers["Upload-Offset"]) == (204, "5")


async def test_a_file_that_is_too_large_is_refused_with_the_greatest_size(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway(max_bytes="10")
    answer = await tus(gateway, "POST", "/upload/a", "Upload-Length: 11")
    assert (answer.status, answer.headers["Tus-Max-Size"]) == (413, "10")
    assert (await tus(gateway, "POST", "/upload/a", "Upload-Length: 1" + "0" * 30)).status == 413
    assert kept(data) == {}
    url = await create(gateway, "/upload/a", "Upload-Defer-Length: 1")
    assert (await patch(gateway, url, 0, b"x" * 11)).status == 413
    assert (await tus(gateway, "HEAD", url)).status == 404


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Upload-Length: x"],
        ["Upload-Length: 1", "Upload-Defer-Length: 1"],
        ["Upload-Defer-Length: 0"],
        ["Upload-Length: 1", "Upload-Metadata: filename ????"],
        ["Upload-Length: 1", "Upload-Metadata: a YQ==,a YQ=="],
        ["Upload-Length: 1", "Upload-Concat: whole"],
    ],
)
async def test_a_creation_that_breaks_a_rule_leaves_nothing(
    start_gateway: StartGateway, data: Path, lines: list[str]
) -> None:
    gateway = await start_gateway()
    assert await refused(gateway, "POST", "/upload/a", *lines) == "400 bad_request"
    assert kept(data) == {}


# -- metadata


async def test_metadata_is_that_of_the_file_and_never_a_header(
    start_gateway: StartGateway, tmp_path: Path, events: EventRecorder
) -> None:
    plugins = events.write_handler(tmp_path / "plugins", "APIGW.OnFileUploaded", "after")
    gateway = await start_gateway(plugins=plugins, downloads=True)
    lines = metadata(
        filename="x", filetype="image/png", Album="Sömmer", evil="a\r\nSet-Cookie: b=c", type="text/html"
    )
    answer = await tus(gateway, "POST", "/upload/a.txt", "Upload-Length: 1", lines, body=b"x")
    assert answer.status == 201
    _, event = await events.next_event()
    assert event["metadata"] == {"album": "Sömmer"}
    assert event["content_type"] == event["mime"] == "image/png"
    served = await get(gateway, "/upload/a.txt")
    assert "Set-Cookie" not in served.headers
    assert served.headers["Content-Type"] == "image/png"


async def test_metadata_of_more_than_four_kibibytes_is_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    longest = "a" * 4096
    url = await create(gateway, "/upload/a", f"Upload-Metadata: {longest}", length=1)
    assert (await tus(gateway, "HEAD", url)).headers["Upload-Metadata"] == longest
    lines = (f"Upload-Metadata: {longest}a", "Upload-Length: 1")
    assert await refused(gateway, "POST", "/upload/a", *lines) == "431 headers_too_large"


# -- expiration


async def test_every_answer_says_until_when_the_upload_can_go_on(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    answer = await tus(gateway, "POST", "/upload/a", "Upload-Length: 11")
    url = answer.headers["Location"]
    answers = [answer, await tus(gateway, "HEAD", url), await patch(gateway, url, 0, b"hello")]
    answers += [await patch(gateway, url, 3, b"x"), await tus(gateway, "HEAD", url)]
    for answer in answers:
        expires = email.utils.parsedate_to_datetime(answer.headers["Upload-Expires"])
        assert answer.headers["Upload-Expires"].endswith(" GMT")
        assert PARTIAL_TTL - 60 < expires.timestamp() - time.time() <= PARTIAL_TTL


# -- checksum


@pytest.mark.parametrize("name", CHECKSUM_ALGORITHMS)
async def test_bytes_with_their_checksum_are_taken(
    start_gateway: StartGateway, data: Path, name: str
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    for offset, body in ((0, b"hello"), (5, b" world")):
        digest = new_digest(name)
        digest.update(body)
        line = f"Upload-Checksum: {name} {b64(digest.digest())}"
        assert (await patch(gateway, url, offset, body, line)).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


async def test_nothing_of_bytes_with_another_checksum_is_taken(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    await patch(gateway, url, 0, b"hello")
    answer = await patch(gateway, url, 5, b" w0rld", checksum("sha1", b" world"))
    assert (answer.status, answer.json["error"]) == (460, "checksum_mismatch")
    assert answer.headers["Upload-Offset"] == "5"
    assert await offset_of(gateway, url) == 5
    assert (await patch(gateway, url, 5, b" world", checksum("sha1", b" world"))).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


async def test_a_creation_with_another_checksum_leaves_nothing_to_be_stored(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    lines = ("Upload-Length: 5", checksum("md5", b"hello"))
    assert (await tus(gateway, "POST", "/upload/a", *lines, body=b"hallo")).status == 460
    assert stored(data) == {}
    assert (await tus(gateway, "POST", "/upload/a", *lines, body=b"hello")).status == 201
    assert stored(data) == {"upload/a": b"hello"}


@pytest.mark.parametrize("line", ["Upload-Checksum: sha3 YQ==", "Upload-Checksum: sha1 YQ=="])
async def test_a_checksum_that_is_not_computed_is_refused(
    start_gateway: StartGateway, line: str
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=5)
    answer = await patch(gateway, url, 0, b"hello", line)
    assert (answer.status, answer.json["error"]) == (400, "bad_digest")
    assert await offset_of(gateway, url) == 0


async def test_a_cut_drops_all_bytes_of_a_request_with_a_checksum(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    await patch(gateway, url, 0, b"he")
    async with raw_connection(gateway) as connection:
        lines = (VERSION, BYTES, "Content-Length: 9", "Upload-Offset: 2", checksum("sha1", b"llo world"))
        await connection.send(request_head("PATCH", target_of(url), *lines) + b"llo")
        await wait_received(gateway, upload_id(url), 3)
        connection.reset()
    assert await offset_of(gateway, url) == 2
    assert (await patch(gateway, url, 2, b"llo world")).status == 204
    assert stored(data) == {"upload/a": b"hello world"}


async def test_a_digest_of_the_whole_file_is_verified_at_its_end(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    line = f"Repr-Digest: md5=:{checksum('md5', b'hello').rpartition(' ')[2]}:"
    url = await create(gateway, "/upload/a", line, length=5)
    await patch(gateway, url, 0, b"ha")
    answer = await patch(gateway, url, 2, b"llo")
    assert (answer.status, answer.json["error"]) == (400, "digest_mismatch")
    assert (await tus(gateway, "HEAD", url)).status == 404
    assert stored(data) == {}


# -- termination


async def test_an_upload_that_is_terminated_is_gone(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=11)
    await patch(gateway, url, 0, b"hello")
    answer = await tus(gateway, "DELETE", url)
    assert (answer.status, answer.body) == (204, b"")
    assert (await tus(gateway, "HEAD", url)).status == 404
    assert (await patch(gateway, url, 5, b" world")).status == 404
    assert (await tus(gateway, "DELETE", url)).status == 404
    assert stored(data) == kept(data) == {}


async def test_a_stored_file_is_not_removed_by_termination(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    url = await create(gateway, "/upload/a", length=5, body=b"hello")
    assert (await tus(gateway, "DELETE", url)).status == 404
    assert stored(data) == {"upload/a": b"hello"}


# -- authorization, and the end


async def test_only_its_creator_goes_on_with_an_upload(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway(**TOKENS)
    answer = await tus(gateway, "POST", "/upload/a", "Upload-Length: 5")
    assert (answer.status, answer.json["error"]) == (401, "unauthorized")
    url = await create(gateway, "/upload/a", ALICE, length=5)
    requests: list[tuple[str, tuple[str, ...], bytes | None]] = [
        ("HEAD", (), None), ("PATCH", ("Upload-Offset: 0",), b"hello"), ("DELETE", (), None),
    ]  # fmt: skip
    for method, lines, body in requests:
        assert (await tus(gateway, method, url, *lines, body=body)).status == 401
        assert (await tus(gateway, method, url, *lines, BOB, body=body)).status == 404
    assert (await patch(gateway, url, 0, b"hello", ALICE)).status == 204
    assert stored(data) == {"upload/a": b"hello"}


async def test_a_handler_decides_once_about_the_whole_file(
    start_gateway: StartGateway, tmp_path: Path, events: EventRecorder
) -> None:
    plugins = events.write_handler(tmp_path / "plugins", "APIGW.OnFileUploading", "before")
    gateway = await start_gateway(plugins=plugins)
    url = await create(gateway, "/upload/a", metadata(filetype="image/png"), length=11)
    await patch(gateway, url, 0, b"hello")
    await patch(gateway, url, 5, b" world")
    _, event = await events.next_event()
    assert events.is_empty()
    assert event["content_length"] == 11
    assert event["content_type"] == "image/png"
    assert event["resumable"] == "tus"


async def test_a_refusal_at_the_end_is_final(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway(on_conflict="reject")
    url = await create(gateway, "/upload/a", length=11)
    await patch(gateway, url, 0, b"hello")
    assert (await put(gateway, "/upload/a", b"mine")).status == 201
    answer = await patch(gateway, url, 5, b" world")
    assert (answer.status, answer.json["error"]) == (409, "conflict")
    assert "Upload-Offset" not in answer.headers
    assert (await tus(gateway, "HEAD", url)).status == 404
    assert stored(data) == {"upload/a": b"mine"}
    assert kept(data) == {}


async def test_the_switch_turns_it_off(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway(resumable=False)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("POST", "/upload/a", VERSION, "Upload-Length: 5"))
        answer: RawResponse = await connection.answer()
    assert 400 <= answer.status < 500
    assert "Tus-Resumable" not in answer.headers
    assert kept(data) == stored(data) == {}


async def test_metadata_comes_back_to_the_letter_after_the_end_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    text = f"is_secret,filename {b64('a.txt')}, bytes {b64(bytes(range(256)))},Empty "
    url = await create(gateway, "/upload/a", f"Upload-Metadata: {text}", length=1)
    for offset in (0, 1):
        answer = await tus(gateway, "HEAD", url)
        assert answer.headers["Upload-Metadata"] == text.strip()
        assert answer.headers["Upload-Offset"] == str(offset)
        await patch(gateway, url, 0, b"x")


async def test_every_process_knows_the_headers_of_an_upload_that_is_complete(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process("--processes", "2")
    tells = metadata(filename="a.txt", note="b")
    urls = [await create(gateway, "/upload/a", tells, length=1, body=b"x") for _ in range(4)]
    for url in urls * 4:
        answer = await tus(gateway, "HEAD", url)
        assert answer.headers["Upload-Metadata"] == tells.partition(": ")[2]
    page = f"/-/uploads/{url.partition('upload=')[2].partition('.')[0]}"
    story = (await get(gateway, page)).json
    assert story["state"] == "stored"
    assert "kept_headers" not in story


async def test_the_whole_length_is_not_told_while_the_file_cannot_be_stored(
    start_gateway: StartGateway, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    url, commit = await create(gateway, "/upload/a", length=11, body=b"hello"), LocalOpenPartial.commit

    async def refuse(*_: object) -> None:
        raise Refusal("journal_unavailable", "the journal cannot be written now")

    monkeypatch.setattr(LocalOpenPartial, "commit", refuse)
    for answer in (await patch(gateway, url, 5, b" world"), await tus(gateway, "HEAD", url)):
        assert answer.status == 503
        assert "Upload-Offset" not in answer.headers
        assert answer.headers["Retry-After"]
        assert answer.headers["Upload-Expires"]
    assert stored(data) == {}
    monkeypatch.setattr(LocalOpenPartial, "commit", commit)
    assert await offset_of(gateway, url) == 11
    assert stored(data) == {"upload/a": b"hello world"}


async def test_a_creation_that_is_cut_leaves_nothing(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = (VERSION, BYTES, "Content-Length: 11", "Upload-Length: 11")
        await connection.send(request_head("POST", "/upload/a", *lines) + b"hello")
        await wait_until(lambda: kept(data))
        connection.reset()
    await wait_until(lambda: not kept(data))
