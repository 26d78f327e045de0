"""The main job: a PUT becomes a file, and the answer tells the truth about it."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.support.harness import curl, files_below, get, leftovers, put, raw_connection, request_head

pytestmark = pytest.mark.both_paths


async def test_a_curl_upload_lands_under_its_path_and_is_told_as_201(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    source = tmp_path / "photo.jpg"
    source.write_bytes(os.urandom(3_000_000))

    result = await curl("-T", str(source), f"{gateway.url}/upload/a/b/photo.jpg")

    assert result.status == 201
    assert (tmp_path / "data/upload/a/b/photo.jpg").read_bytes() == source.read_bytes()
    assert '"mime": "image/jpeg"' in result.body
    assert leftovers(tmp_path / "data") == []


async def test_the_answer_names_the_upload_its_path_size_type_and_status_page(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    answer = await put(gateway, "/upload/x.txt", b"hello", "Content-Type: text/x-odd; a=b")
    assert answer.status == 201
    assert answer.json | {"upload_id": ""} == {
        "upload_id": "",
        "path": "/upload/x.txt",
        "url": f"{gateway.url}/upload/x.txt",
        "bytes": 5,
        "mime": "text/x-odd; a=b",
    }
    assert answer.headers["Location"] == f"/-/uploads/{answer.json['upload_id']}"
    story = (await get(gateway, answer.headers["Location"])).json
    assert (story["state"], story["path"], story["bytes"]) == ("stored", "/upload/x.txt", 5)


async def test_a_second_upload_replaces_the_file_and_is_told_as_200(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    assert (await put(gateway, "/upload/x", b"one")).status == 201
    assert (await put(gateway, "/upload/x", b"two")).status == 200
    assert files_below(tmp_path / "data/upload") == {"x": b"two"}


async def test_an_empty_file_is_a_file(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    answer = await put(gateway, "/upload/empty", b"")
    assert (answer.status, answer.json["bytes"]) == (201, 0)
    assert files_below(tmp_path / "data/upload") == {"empty": b""}


async def test_a_chunked_body_from_a_pipe_is_stored(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    body = os.urandom(2_500_000)
    result = await curl("-T", "-", f"{gateway.url}/upload/pipe", stdin=body)
    assert result.status == 201
    assert files_below(tmp_path / "data/upload") == {"pipe": body}


async def test_a_body_sent_byte_by_byte_is_stored(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/slow", "Content-Length: 2000"))
        for number in range(2000):
            await connection.send(bytes([number % 256]))
        assert (await connection.answer()).status == 201
    assert files_below(tmp_path / "data/upload") == {"slow": bytes(n % 256 for n in range(2000))}


async def test_published_files_get_the_mode_that_was_asked_for(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(file_mode="0604")
    await put(gateway, "/upload/x", b"1")
    assert stat.S_IMODE((tmp_path / "data/upload/x").stat().st_mode) == 0o604


async def test_a_compressed_body_is_stored_as_it_was_sent(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    answer = await put(gateway, "/upload/x.gz", b"\x1f\x8b not really gzip", "Content-Encoding: gzip")
    assert answer.status == 201
    assert files_below(tmp_path / "data/upload") == {"x.gz": b"\x1f\x8b not really gzip"}


async def test_two_uploads_travel_on_one_connection(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        for name in ("one", "two"):
            await connection.send(request_head("PUT", f"/upload/{name}", "Content-Length: 3") + b"abc")
            answer = await connection.answer()
            assert answer.status == 201
            assert answer.headers.get("Connection") != "close"
    assert set(files_below(tmp_path / "data/upload")) == {"one", "two"}


async def test_without_filename_in_the_template_a_uuid_names_the_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(file_upload_api_path="/v1/{tenant}/put")
    answer = await put(gateway, "/v1/acme/put", b"1")
    (name,) = files_below(tmp_path / "data/upload")
    assert answer.json["path"] == f"/upload/{name}"
    assert len(name) == 36


async def test_a_filename_inside_the_template_names_the_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(file_upload_api_path="/v1/tenants/{tenant_id}/images/{filename}/file")
    answer = await put(gateway, "/v1/tenants/t1/images/cat.png/file", b"1")
    assert (answer.status, answer.json["path"]) == (201, "/upload/cat.png")
    assert (await put(gateway, "/v1/tenants/t1/images/a%2Fb/file", b"1")).status == 400


@pytest.mark.parametrize(
    ("header", "algorithm"),
    [("Content-MD5", "md5"), ("Content-Digest", "sha-256"), ("Repr-Digest", "sha-512")],
)
async def test_a_digest_is_verified_before_the_file_is_published(
    start_gateway: StartGateway, tmp_path: Path, header: str, algorithm: str
) -> None:
    gateway = await start_gateway()
    body = b"precious bytes"
    right = base64.b64encode(hashlib.new(algorithm.replace("-", ""), body).digest()).decode()
    wrong = base64.b64encode(hashlib.new(algorithm.replace("-", ""), b"").digest()).decode()
    form = "{}" if header == "Content-MD5" else f"{algorithm}=:{{}}:"

    refused = await put(gateway, "/upload/x", body, f"{header}: {form.format(wrong)}")
    assert (refused.status, refused.json["error"]) == (400, "digest_mismatch")
    assert not (tmp_path / "data/upload/x").exists()

    taken = await put(gateway, "/upload/x", body, f"{header}: {form.format(right)}")
    assert taken.status == 201
    assert taken.json["digest"] == f"{algorithm}=:{right}:"


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
async def test_digests_on_lines_of_their_own_are_all_verified(
    start_gateway: StartGateway, header: str
) -> None:
    gateway = await start_gateway()
    right = base64.b64encode(hashlib.sha256(b"1").digest()).decode()
    wrong = base64.b64encode(hashlib.sha512(b"2").digest()).decode()
    lines = f"{header}: sha-256=:{right}:", f"{header.lower()}: sha-512=:{wrong}:"
    assert (await put(gateway, "/upload/x", b"1", *lines)).json["error"] == "digest_mismatch"
    assert (await put(gateway, "/upload/x", b"1", *reversed(lines))).json["error"] == "digest_mismatch"
    assert (await put(gateway, "/upload/x", b"1", lines[0])).status == 201


async def test_a_condition_on_a_line_of_its_own_is_kept_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert (await put(gateway, "/upload/x", b"1")).status == 201
    for lines in (
        ('If-None-Match: "a"', "If-None-Match: *"),
        ("If-Match: *", 'If-Match: "a"'),
        ('If-Match: "a"', "If-Match: *"),
    ):
        assert (await put(gateway, "/upload/x", b"2", *lines)).status == 412, lines


@pytest.mark.parametrize(
    "line", ["Content-MD5: nonsense", "Content-Digest: sha-256=abc", "Repr-Digest: crc32c=:AAAA:"]
)
async def test_a_digest_that_cannot_be_checked_is_refused(
    start_gateway: StartGateway, line: str
) -> None:
    gateway = await start_gateway()
    answer = await put(gateway, "/upload/x", b"1", line)
    assert (answer.status, answer.json["error"]) == (400, "bad_digest")


async def test_a_whole_range_is_a_whole_upload_and_a_part_of_nothing_is_refused(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    source = tmp_path / "f"
    source.write_bytes(b"0123456789")
    whole = await curl("-C", "-", "-T", str(source), f"{gateway.url}/upload/f")
    assert whole.status == 201
    part = await curl("-C", "4", "-T", str(source), f"{gateway.url}/upload/part")
    assert part.status == 409
    lie = await put(gateway, "/upload/lie", b"12345", "Content-Range: bytes 0-9/10")
    assert lie.json["error"] == "bad_range"
    assert files_below(tmp_path / "data/upload") == {"f": b"0123456789"}


async def test_a_transfer_coding_that_would_have_to_be_undone_is_refused(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = ("Transfer-Encoding: gzip, chunked",)
        await connection.send(request_head("PUT", "/upload/x", *lines) + b"1\r\nx\r\n0\r\n\r\n")
        assert (await connection.answer()).status == 400


async def test_if_match_is_honoured_not_ignored(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert (await put(gateway, "/upload/x", b"1", "If-Match: *")).status == 412
    assert (await put(gateway, "/upload/x", b"1")).status == 201
    assert (await put(gateway, "/upload/x", b"2", "If-Match: *")).status == 200
    assert (await put(gateway, "/upload/x", b"3", 'If-Match: "abc"')).status == 412


async def test_every_answer_carries_a_request_id_and_forbids_sniffing(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    for target in ("/nope", "/-/health", "/upload/"):
        answer = await get(gateway, target)
        assert len(answer.headers["X-Request-Id"]) == 16
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "upload-gateway"


@pytest.mark.parametrize("content", [b"", b"x"])
async def test_a_disk_below_its_watermark_takes_not_even_an_empty_file(
    start_gateway: StartGateway, content: bytes
) -> None:
    gateway = await start_gateway(min_free_bytes=str(1 << 60))
    answer = await put(gateway, "/upload/x", content)
    assert (answer.status, answer.json["error"]) == (507, "no_space")
    assert files_below(gateway.resources.settings.directory / "upload") == {}
