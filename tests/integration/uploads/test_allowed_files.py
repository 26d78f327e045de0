"""`--types` and `--suffixes`: refused before any byte of the body, with every protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.integration.signed_urls.test_signed_uploads import sign
from tests.integration.uploads.test_forms import END, part, paths_of, post
from tests.support.harness import (
    RawResponse,
    curl,
    files_below,
    put,
    raw_connection,
    request_head,
    write_plugin,
)
from tests.support.resumable import request
from tests.support.tus import create, metadata, tus

LISTS: dict[str, object] = {"types": ["image/*", "application/pdf"], "suffixes": [".png", ".pdf"]}
REWRITE = """
name: rewrite
event: APIGW.OnFileUploading
script: |
  async def rewrite(event, handle):
      event["path"] = "/upload/elsewhere.exe"
"""


def stored(tmp_path: Path) -> dict[str, bytes]:
    return files_below(tmp_path / "data/upload")


async def refused_at_its_head(gateway: Gateway, method: str, target: str, *lines: str) -> RawResponse:
    """Send a head without its body, and return the response to it."""
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *lines))
        return await connection.answer()


@pytest.mark.parametrize("short_path", [True, False])
@pytest.mark.parametrize(
    ("target", "lines", "status"),
    [
        ("/upload/x.png", ("Content-Type: image/png",), 201),
        ("/upload/x.png", ("Content-Type: application/x-www-form-urlencoded",), 201),
        ("/upload/x.PNG", (), 201),
        ("/upload/x.png", ("Content-Type: text/html",), 415),
        ("/upload/x.html", ("Content-Type: image/png",), 415),
        ("/upload/x.html", (), 415),
    ],
)
async def test_both_paths_take_what_the_lists_allow_and_nothing_else(
    start_gateway: StartGateway,
    tmp_path: Path,
    short_path: bool,
    target: str,
    lines: tuple[str, ...],
    status: int,
) -> None:
    gateway = await start_gateway(**LISTS, short_path=short_path)
    answer = await put(gateway, target, b"hello", *lines)
    assert answer.status == status
    assert len(stored(tmp_path)) == (status == 201)


async def test_a_refusal_needs_no_byte_of_the_body(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(**LISTS)
    for lines in (
        ("PUT", "/upload/x.exe", "Content-Length: 1000000", "Expect: 100-continue"),
        ("PUT", "/upload/x.exe", "Transfer-Encoding: chunked"),
        ("PUT", "/upload/x.exe?resume=0123456789abcdef", "Content-Range: bytes 0-9/10",
         "Content-Length: 10"),
        ("POST", "/upload/x.exe", "Upload-Complete: ?0", "Upload-Draft-Interop-Version: 6",
         "Content-Length: 1000000"),
        ("POST", "/upload/x.exe", "Tus-Resumable: 1.0.0", "Upload-Length: 1000000",
         "Content-Type: application/offset+octet-stream", "Content-Length: 1000000"),
    ):  # fmt: skip
        answer = await refused_at_its_head(gateway, *lines)
        assert (answer.status, answer.json["error"]) == (415, "unsupported_media_type"), answer.json
        assert answer.headers["Accept"] == "image/*, application/pdf"
    assert not files_below(tmp_path / "data/.gateway/partials")


async def test_each_part_of_a_form_is_checked_by_itself(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**LISTS)
    body = part("file", b"1", "a.png", "Content-Type: image/png")
    body += part("file", b"2", "b.pdf", "Content-Type: application/octet-stream")
    body += part("file", b"3", "c.png", "Content-Type: text/html") + END
    answer = await post(gateway, "/upload/", body)
    assert answer.status == 207
    assert paths_of(answer) == [(201, "/upload/a.png"), (201, "/upload/b.pdf"), (415, None)]
    assert sorted(stored(tmp_path)) == ["a.png", "b.pdf"]
    answer = await post(gateway, "/upload/", part("file", b"1", "a.exe") + END)
    assert answer.status == 415


async def test_tus_declares_the_type_in_its_metadata(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**LISTS)
    named = metadata(filename="x.png", filetype="image/png")
    await create(gateway, "/upload/", named, length=2, body=b"hi")
    assert stored(tmp_path) == {"x.png": b"hi"}
    for told in (metadata(filename="x.png", filetype="text/html"), metadata(filename="x.exe")):
        answer = await tus(gateway, "POST", "/upload/", told, "Upload-Length: 2")
        assert answer.status == 415


async def test_the_parts_of_a_concatenation_have_no_type_and_the_whole_has(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**LISTS)
    part_url = await create(gateway, "/upload/", "Upload-Concat: partial", length=2, body=b"hi")
    final = f"Upload-Concat: final;{part_url}"
    answer = await tus(gateway, "POST", "/upload/x.exe", final)
    assert answer.status == 415
    await create(gateway, "/upload/x.png", final)
    assert stored(tmp_path) == {"x.png": b"hi"}


async def test_a_draft_upload_declares_its_type_once(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**LISTS)
    answer = await request(
        gateway,
        "PUT",
        "/upload/x.pdf",
        "Upload-Complete: ?0",
        "Content-Type: application/pdf",
        body=b"a",
    )
    assert answer.status == 201
    answer = await request(
        gateway, "PUT", "/upload/x.pdf", "Upload-Complete: ?0", "Content-Type: text/html", body=b"a"
    )
    assert answer.status == 415


async def test_a_signed_url_allows_no_other_files(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(**LISTS)
    answer = await put(gateway, await sign(gateway, "PUT", "/upload/x.png"), b"hello")
    assert answer.status == 201
    answer = await put(gateway, await sign(gateway, "PUT", "/upload/x.exe"), b"hello")
    assert answer.status == 415


async def test_what_a_handler_makes_of_the_path_is_not_checked(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins = write_plugin(tmp_path / "plugins", REWRITE)
    gateway = await start_gateway(**LISTS, plugins=[str(plugins)])
    assert (await put(gateway, "/upload/x.png", b"hello")).status == 201
    assert (await put(gateway, "/upload/x.exe", b"hello")).status == 415
    assert stored(tmp_path) == {"elsewhere.exe": b"hello"}


async def test_clients_that_choose_no_type_are_judged_by_the_name(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**LISTS)
    file = tmp_path / "x"
    file.write_bytes(b"hello")
    done = await curl("-X", "PUT", "--data-binary", f"@{file}", f"{gateway.url}/upload/x.pdf")
    assert json.loads(done.body)["path"] == "/upload/x.pdf"
    done = await curl("-X", "PUT", "--data-binary", f"@{file}", f"{gateway.url}/upload/x.txt")
    assert json.loads(done.body)["error"] == "unsupported_media_type"
