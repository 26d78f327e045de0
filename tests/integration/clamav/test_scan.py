"""The shipped set `clamav` and a real clamd: what it is sent, and what becomes of its replies."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.tokens import token_digest
from tests.conftest import StartGateway
from tests.integration.clamav.conftest import ClamavSet
from tests.support.clamd import EICAR, SIGNATURE, STREAM_MAX_BYTES, Clamd
from tests.support.harness import RawResponse, files_below, get, put, wait_until
from tests.support.s3.servers import SeaweedFS

CHUNK = 256 * 1024
CLEAN = {"scan": {"outcome": "clean"}}
Upload = Callable[..., Awaitable[RawResponse]]


def encrypted_zip() -> bytes:
    """Return an archive whose member is marked as encrypted (APPNOTE.TXT, 4.4.4, bit 0)."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        writing.writestr("secret.txt", b"nobody can read this " * 10)
    content = bytearray(archive.getvalue())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    return bytes(content)


@pytest.fixture
async def upload(start_gateway: StartGateway, clamav_set: ClamavSet, tmp_path: Path) -> Upload:
    """Upload to a gateway with the set: `await upload(body, unscannable="mark")`."""
    gateways: dict[str, Any] = {}

    async def send(body: bytes, **config: object) -> RawResponse:
        key = json.dumps(config)
        if key not in gateways:
            plugins, directory = clamav_set(**config), str(tmp_path / f"data{len(gateways)}")
            gateways[key] = await start_gateway(
                plugins=[str(plugins)], directory=directory, downloads="true"
            )
        gateway, name = gateways[key], f"/upload/{len(body)}"
        response = await put(gateway, name, body)
        found = await get(gateway, name)
        assert found.status == (200 if response.status == 201 else 404)
        assert body in {found.body, *(() if response.status == 201 else (body,))}
        return response

    return send


@pytest.mark.parametrize("over_tcp", [False, True], ids=["Unix socket", "TCP"])
async def test_an_infected_file_is_refused_with_its_signature_and_a_clean_one_stored(
    upload: Upload, clamd: Clamd, over_tcp: bool
) -> None:
    where = {"socket": None, "host": "127.0.0.1", "port": clamd.port} if over_tcp else {}
    for body in (b"clean", b"", b"x" * CHUNK, bytes(2 * CHUNK + 1)):
        response = await upload(body, **where)
        assert (response.status, response.json.get("result")) == (201, CLEAN)
    for before in (0, 10, CHUNK - 30, CHUNK, 2 * CHUNK):  # also where two chunks meet
        response = await upload(bytes(before) + EICAR, **where)
        assert response.status == 422
        assert response.json == {
            "error": "infected", "signature": SIGNATURE, "message": f"the file is infected: {SIGNATURE}"
        }  # fmt: skip


async def test_what_clamd_cannot_read_is_refused_or_marked(upload: Upload) -> None:
    too_large = bytes(STREAM_MAX_BYTES + 1)
    for body, reason in (
        (too_large, "the file is larger than what clamd scans"),
        (encrypted_zip(), "clamd reports Heuristics.Encrypted.Zip.UNOFFICIAL"),
    ):
        refused = await upload(body)
        assert (refused.status, refused.json["error"]) == (422, "unscannable")
        assert refused.json["message"].startswith(reason.removesuffix(".UNOFFICIAL"))
        marked = await upload(body, unscannable="mark")
        assert marked.status == 201
        assert marked.json["result"]["scan"]["outcome"] == "unscannable"
    small = await upload(b"four", max_bytes=3, unscannable="mark")
    assert small.json["result"]["scan"]["reason"] == "the file has 4 bytes, of which 3 are scanned"


async def test_a_client_cannot_say_that_its_file_is_clean(
    start_gateway: StartGateway, clamav_set: ClamavSet
) -> None:
    plugins = clamav_set(unscannable="mark", max_bytes=3)
    token = "a-token-for-this-test"
    tokens = [f"me:{token_digest(token)}"]
    gateway = await start_gateway(plugins=[str(plugins)], auth="token", tokens=tokens)
    auth = f"X-Auth-Token: {token}"
    for body, outcome in ((b"four", "unscannable"), (b"3", "clean")):
        response = await put(gateway, "/upload/a", body, auth, "X-Amz-Meta-Scan: checked")
        assert response.status in {200, 201}
        found = await get(gateway, "/-/files?path=/upload/a", auth)
        assert found.json["metadata"] == {"scan": outcome}


async def test_without_clamd_files_are_refused_until_it_is_back(upload: Upload, clamd: Clamd) -> None:
    clamd.kill()
    refused = await upload(b"clean")
    assert (refused.status, refused.json["error"]) == (503, "scanner_unavailable")
    clamd.start()
    assert (await upload(b"clean")).status == 201


@pytest.mark.parametrize(
    "reply", [b"", b"stream: OK", b"INSTREAM: Can't allocate memory ERROR\0", b"\xff" * 9000, None]
)
async def test_what_is_no_reply_of_clamd_accepts_nothing(
    upload: Upload, tmp_path: Path, reply: bytes | None
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            if reply is None:
                await asyncio.Event().wait()
            await reader.readexactly(len(b"zINSTREAM\0") + 4)
            writer.write(reply or b"")
            await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    response = await upload(
        bytes(5 << 20), socket=None, host="127.0.0.1", port=port, timeout=1 if reply is None else 100
    )
    assert (response.status, response.json["error"]) == (503, "scanner_unavailable")
    server.close()


async def test_nothing_of_a_refused_file_stays(
    start_gateway: StartGateway, clamav_set: ClamavSet, tmp_path: Path
) -> None:
    gateway = await start_gateway(plugins=[str(clamav_set())])
    assert (await put(gateway, "/upload/a", EICAR)).status == 422
    kept = files_below(tmp_path / "data")
    assert not [name for name, content in kept.items() if EICAR in content and ".db" not in name]


async def test_an_object_is_scanned_before_it_has_its_key(
    start_gateway: StartGateway, clamav_set: ClamavSet, s3: SeaweedFS, s3_storage: str, bucket: str
) -> None:
    gateway = await start_gateway(storage=s3_storage, plugins=[str(clamav_set())])
    large = bytes(CHUNK) + EICAR + bytes(CHUNK)
    for name, body in (("small", EICAR), ("large", large)):
        response = await put(gateway, f"/upload/{name}", body)
        assert (response.status, response.json["signature"]) == (422, SIGNATURE)
    assert (await put(gateway, "/upload/clean", bytes(CHUNK))).json["result"] == CLEAN

    async def objects() -> list[str]:
        async with s3.client() as client:
            listed = await client.list_objects_v2(Bucket=bucket)
        return [entry["Key"] for entry in listed["Contents"] if not entry["Key"].endswith("/probe")]

    await wait_until(lambda: _equals(objects(), ["a prefix/upload/clean"]))


async def _equals(found: Awaitable[list[str]], expected: list[str]) -> bool:
    return await found == expected
