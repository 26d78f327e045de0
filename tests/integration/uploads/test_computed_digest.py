"""The digest of `--digest` beside kills, TLS, forms, scripts and other clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from pathlib import Path

import anycrc
import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    curl,
    get,
    put,
    raw_connection,
    request_head,
    self_signed_certificate,
)

LARGE = os.urandom(20_000_000)


def field_of(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("point", ["after journal commit", "after rename", "before answer"])
async def test_a_file_that_outlives_a_kill_tells_its_digest(
    gateway_process: StartProcess, body: bytes, point: str
) -> None:
    flags = ("--digest", "sha256", "--downloads")
    dying = gateway_process(*flags, die_at=point)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await put(dying, "/upload/x", body)
    await asyncio.to_thread(dying.wait)
    answer = await get(gateway_process(*flags), "/upload/x")
    if point == "after journal commit":
        assert answer.status == 404
    else:
        assert (answer.status, answer.body, answer.headers["Repr-Digest"]) == (200, body, field_of(body))


@pytest.mark.slow
async def test_curl_over_tls_gets_the_digest_of_what_it_sent(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    cert, key = self_signed_certificate(tmp_path)
    gateway = await start_gateway(tls_cert=cert, tls_key=key, digest="sha256", auth="none")
    source = tmp_path / "large"
    source.write_bytes(LARGE)
    sent = await curl("-k", "-T", str(source), f"{gateway.url}/upload/large")
    assert sent.status == 201
    assert field_of(LARGE) in sent.body


async def test_each_file_of_a_form_has_its_digest(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(digest="sha256", auth="none", downloads=True)
    sent = await curl("-F", "file=@-;filename=a.txt", f"{gateway.url}/upload/", stdin=b"of a form")
    assert sent.status == 201
    assert field_of(b"of a form") in sent.body
    head = await get(gateway, "/upload/a.txt")
    assert head.headers["Repr-Digest"] == field_of(b"of a form")


async def test_what_a_script_saves_has_a_digest(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(digest="sha256", downloads=True, auth="none")
    await gateway.resources.scripts.files.save("/upload/saved", b"by a script")
    answer = await get(gateway, "/upload/saved")
    assert answer.headers["Repr-Digest"] == field_of(b"by a script")


async def test_checksums_of_other_clients_are_verified_and_crc32c_is_computed(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(digest="crc32c")
    crc = {
        name: base64.b64encode(anycrc.Model(model).calc(b"body").to_bytes(size, "big")).decode()
        for name, model, size in (("crc32c", "CRC32C", 4), ("crc64nvme", "CRC64-NVME", 8))
    }
    for name, value in crc.items():
        line = f"x-amz-checksum-{name}: {value}"
        answer = await put(gateway, "/upload/x", b"body", line)
        assert (answer.status in {200, 201}, answer.json["digest"]) == (
            True,
            f"crc32c=:{crc['crc32c']}:",
        )
        damaged = await put(gateway, "/upload/x", b"bodY", line)
        assert (damaged.status, damaged.json["error"]) == (400, "digest_mismatch")
    unknown = await put(gateway, "/upload/x", b"body", "x-amz-checksum-crc128: AAAA")
    assert (unknown.status, unknown.json["error"]) == (400, "bad_digest")


async def test_without_the_setting_nothing_is_computed_or_told(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(downloads=True)
    stored = await put(gateway, "/upload/x", b"body")
    assert "Repr-Digest" not in stored.headers
    assert "digest" not in stored.json
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", "/upload/x"))
        assert "Repr-Digest" not in (await connection.answer(head=True)).headers
