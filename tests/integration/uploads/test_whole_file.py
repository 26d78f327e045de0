"""Bodies that are not the file itself, and checks of bodies, as real clients send them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from botocore.session import get_session

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.integration.signed_urls.test_signed_uploads import sign
from tests.support.harness import (
    curl,
    files_below,
    leftovers,
    put,
    raw_connection,
    request_head,
    self_signed_certificate,
)
from tests.support.recorders import write_handler

BODY = b"precious bytes"
CHECKSUM = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
OTHER_CHECKSUM = base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()


def nothing_stored(tmp_path: Path) -> bool:
    return files_below(tmp_path / "data/upload") == {} and leftovers(tmp_path / "data") == []


# -- envelopes


async def test_a_form_that_is_put_is_refused_with_the_right_command(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    source = tmp_path / "photo.jpg"
    source.write_bytes(b"x" * 100_000)
    url = f"{gateway.url}/upload/photo.jpg"

    by_curl = await curl("-X", "PUT", "-F", f"file=@{source}", "-H", "Expect: 100-continue", url)
    by_requests = await asyncio.to_thread(requests.put, url, files={"file": source.read_bytes()})

    assert (by_curl.status, by_curl.uploaded, by_requests.status_code) == (415, 0, 415)
    assert by_requests.json()["error"] == "unsupported_media_type"
    assert "curl -T FILE URL" in by_requests.json()["message"]
    assert nothing_stored(tmp_path)
    assert (await curl("-T", str(source), url)).status == 201


def amazon(url: str, **config: Any) -> Any:
    """Return a client of Amazon's SDK, for which the first segment of an upload path is a bucket."""
    return get_session().create_client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        verify=False,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, **config),
    )


async def amazon_put(url: str, body: bytes, config: dict[str, Any], **arguments: Any) -> str:
    """Put an object; return the status of a refusal, "" for none: the client cannot read our JSON."""

    def send() -> str:
        with contextlib.closing(amazon(url, **config)) as client:
            try:
                with contextlib.suppress(ResponseParserError):
                    client.put_object(Bucket="upload", Key="x", Body=io.BytesIO(body), **arguments)
            except ClientError as error:
                return str(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return ""

    return await asyncio.to_thread(send)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
async def test_the_framing_of_amazons_sdk_is_never_stored_and_its_checksum_is_verified(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    cert, key = self_signed_certificate(tmp_path)
    framed = await start_gateway(tls_cert=cert, tls_key=key)
    plain = await start_gateway(directory=str(tmp_path / "plain"))

    assert await amazon_put(framed.url, BODY, {}) == "415"
    assert nothing_stored(tmp_path)
    assert await amazon_put(framed.url, BODY, {"request_checksum_calculation": "when_required"}) == ""
    assert files_below(tmp_path / "data/upload") == {"x": BODY}

    assert await amazon_put(plain.url, BODY, {}) == ""
    assert files_below(tmp_path / "plain/upload") == {"x": BODY}
    assert await amazon_put(plain.url, b"new", {}, ChecksumCRC32=OTHER_CHECKSUM) == "400"
    assert await amazon_put(plain.url, b"new", {}, ChecksumSHA1="A" * 27 + "=") == "400"
    assert await amazon_put(plain.url, b"new", {}, ChecksumCRC32C="AAAAAA==") == "400"
    assert files_below(tmp_path / "plain/upload") == {"x": BODY}


# -- checks


@pytest.mark.parametrize(
    ("header", "spell", "digest"),
    [
        ("x-amz-checksum-sha256", base64.b64encode, hashlib.sha256),
        ("x-amz-checksum-sha1", base64.b64encode, hashlib.sha1),
        ("x-amz-content-sha256", bytes.hex, hashlib.sha256),
        ("Digest", lambda value: b"SHA-256=" + base64.b64encode(value), hashlib.sha256),
        ("OC-Checksum", lambda value: "SHA1:" + value.hex(), hashlib.sha1),
        ("X-Checksum-Sha256", bytes.hex, hashlib.sha256),
        ("ETag", bytes.hex, hashlib.md5),
    ],
)
async def test_a_check_is_made_before_the_file_is_published(
    start_gateway: StartGateway,
    tmp_path: Path,
    header: str,
    spell: Callable[[bytes], bytes | str],
    digest: Callable[[bytes], Any],
) -> None:
    gateway = await start_gateway()

    def line(body: bytes) -> str:
        value = spell(digest(body).digest())
        return f"{header}: {value if isinstance(value, str) else value.decode()}"

    refused = await put(gateway, "/upload/x", BODY, line(b"other"))
    assert (refused.status, refused.json["error"]) == (400, "digest_mismatch")
    assert nothing_stored(tmp_path)
    assert (await put(gateway, "/upload/x", BODY, line(BODY))).status == 201


async def test_a_checksum_holds_for_a_body_that_is_read_from_the_socket_by_a_thread(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    gateway.endpoints.body_receiver.min_detach_bytes = 100_000
    source = tmp_path / "large"
    source.write_bytes(b"x" * 3_000_000)
    right = base64.b64encode(zlib.crc32(source.read_bytes()).to_bytes(4, "big")).decode()
    url = f"{gateway.url}/upload/large"
    for value, status in ((CHECKSUM, 400), (right, 201)):
        result = await curl("-H", f"x-amz-checksum-crc32: {value}", "-T", str(source), url)
        assert result.status == status


async def test_a_checksum_holds_for_a_signed_url_and_does_not_use_it_up(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    target = await sign(gateway, "PUT", "/upload/x", expires=60, once=True)
    wrong = await put(gateway, target, BODY, f"x-amz-checksum-crc32: {OTHER_CHECKSUM}")
    assert (wrong.status, wrong.json["error"]) == (400, "digest_mismatch")
    assert (await put(gateway, target, BODY, "x-amz-checksum-crc32c: AAAAAA==")).status == 400
    assert (await put(gateway, target, BODY, "Content-Encoding: aws-chunked")).status == 415
    assert nothing_stored(tmp_path)
    assert (await put(gateway, target, BODY, f"x-amz-checksum-crc32: {CHECKSUM}")).status == 201


@pytest.mark.slow
async def test_a_checksum_holds_for_a_bucket(start_gateway: StartGateway, s3_storage: str) -> None:
    gateway = await start_gateway(auth="none", storage=s3_storage)
    wrong = await put(gateway, "/upload/x", BODY, f"x-amz-checksum-crc32: {OTHER_CHECKSUM}")
    assert (wrong.status, wrong.json["error"]) == (400, "digest_mismatch")
    assert [stat async for stat in gateway.resources.scripts.files.list("/upload/")] == []
    assert (await put(gateway, "/upload/x", BODY, f"x-amz-checksum-crc32: {CHECKSUM}")).status == 201


# -- parts


@pytest.mark.parametrize(
    "lines",
    [
        ("Upload-Complete: ?0", "Upload-Length: 20000", "Upload-Draft-Interop-Version: 6"),
        ("Upload-Complete: ?0",),
        ("Upload-Incomplete: ?1", "Upload-Draft-Interop-Version: 3"),
        ("Upload-Complete: ?1", "Upload-Length: 20000"),
        ("Upload-Complete: ?1", "Upload-Offset: 5000"),
        ("Tus-Resumable: 1.0.0", "Upload-Length: 5000"),
        ("Content-Range: bytes 0-4999/20000",),
        ("OC-Total-Length: 20000",),
    ],
)
async def test_the_beginning_of_a_file_is_refused_before_its_bytes_and_runs_no_handler(
    start_gateway: StartGateway, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    gateway = await start_gateway(
        plugins=write_handler(tmp_path / "plugins", "raise SystemError('asked')"), resumable="off"
    )
    async with raw_connection(gateway) as connection:
        waits = ("Content-Length: 5000", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/video", *waits, *lines))
        text = await connection.closed()
    assert text.startswith(b"HTTP/1.1 400 ")
    assert b'"bad_range"' in text
    assert nothing_stored(tmp_path)


@pytest.mark.parametrize(
    "line",
    ["Upload-Length: 10", "Content-Range: bytes 0-9/10", "X-Expected-Entity-Length: 10"],
)
async def test_a_chunked_body_has_the_length_that_a_header_gave_it(
    start_gateway: StartGateway, tmp_path: Path, line: str
) -> None:
    gateway = await start_gateway()
    for size, status in ((5, 400), (70_000, 400), (10, 201)):
        answer = await _put_chunked(gateway, b"x" * size, line)
        assert answer == status, size
        assert nothing_stored(tmp_path) or status == 201


async def _put_chunked(gateway: Gateway, body: bytes, *lines: str) -> int:
    async with raw_connection(gateway) as connection:
        head = request_head("PUT", "/upload/x", "Transfer-Encoding: chunked", *lines)
        await connection.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        return (await connection.answer()).status


async def test_a_phone_that_sends_the_whole_file_at_once_is_served(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    lines = ("Upload-Complete: ?1", "Upload-Length: 14", "Upload-Draft-Interop-Version: 6")
    assert (await put(gateway, "/upload/x", BODY, *lines)).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": BODY}


async def test_a_copy_makes_no_empty_file(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    assert (await put(gateway, "/upload/source", BODY)).status == 201

    def copy() -> None:
        with contextlib.closing(amazon(gateway.url)) as client:
            client.copy_object(Bucket="upload", Key="copy", CopySource="upload/source")

    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(copy)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert files_below(tmp_path / "data/upload") == {"source": BODY}


async def test_a_media_type_that_nobody_chose_is_guessed_from_the_name(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    url = f"{gateway.url}/upload/notes.txt"
    result = await curl("-X", "PUT", "--data-binary", "@-", url, stdin=b"a=b")
    assert result.status == 201
    assert '"mime": "text/plain"' in result.body
