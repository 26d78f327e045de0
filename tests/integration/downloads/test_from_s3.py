"""The same over a bucket: downloads, archives and `files` in scripts, on a real S3 server."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from gateway.errors import Superseded
from gateway.storage.s3.client import MAX_CONNECTIONS
from tests.conftest import StartGateway
from tests.integration.downloads.test_downloads import LARGE, Slow, fetch, metric, until_closed
from tests.integration.files.test_by_path import COPY, pieces
from tests.support.harness import curl, put, wait_settled, write_plugin

pytestmark = pytest.mark.slow
CONTENT = os.urandom(3 << 20)


async def test_an_object_comes_back_whole_in_part_and_not_at_all(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(auth="none", downloads=True, storage=s3_storage)
    assert (await put(gateway, "/upload/a.bin", CONTENT, "Content-Type: image/x-mine")).status == 201
    whole = await fetch(gateway, "/upload/a.bin")
    assert (whole.status, whole.body) == (200, CONTENT)
    assert whole.headers["Content-Type"] == "image/x-mine"
    assert whole.headers["Content-Disposition"].startswith("attachment")
    part = await fetch(gateway, "/upload/a.bin", "Range: bytes=-5")
    assert (part.status, part.body) == (206, CONTENT[-5:])
    parts = await fetch(gateway, "/upload/a.bin", "Range: bytes=1000000-1999999,0-9")
    assert (parts.status, CONTENT[1000000:2000000] in parts.body) == (206, True)
    assert CONTENT[:10] in parts.body
    etag = whole.headers["ETag"]
    assert (await fetch(gateway, "/upload/a.bin", f"If-None-Match: {etag}")).status == 304
    assert (await fetch(gateway, "/upload/a.bin", f"If-None-Match: {etag}", method="HEAD")).status == 304
    assert (await fetch(gateway, "/upload/none")).status == 404
    assert (await fetch(gateway, "/upload/a.bin", "Range: bytes=9999999-")).status == 416
    assert (await put(gateway, "/upload/empty", b"")).status == 201
    assert (await fetch(gateway, "/upload/empty")).body == b""


async def test_a_folder_of_objects_comes_as_a_zip(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="none", downloads=True, storage=s3_storage)
    files = {"a.txt": b"text" * 1000, "b/Grüße.bin": CONTENT, "c": b""}
    for name, content in files.items():
        await gateway.resources.scripts.files.save(f"/upload/reports/{name}", content)
    await gateway.resources.scripts.files.save("/upload/reports-2025/d", b"other folder")
    target = tmp_path / "reports.zip"
    url = f"{gateway.url}/upload/reports/?format=zip"
    assert (await curl("-o", str(target), url)).status == 200
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert (await curl("-o", str(target), f"{url}&file=b/Gr%C3%BC%C3%9Fe.bin")).status == 200
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == ["b/Grüße.bin"]


async def test_a_client_that_leaves_gives_the_object_back(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(auth="none", downloads=True, storage=s3_storage)
    await gateway.resources.scripts.files.save("/upload/a.bin", bytes(LARGE))
    for target in ("/upload/a.bin", "/upload/?format=zip"):
        client = Slow(gateway)
        await client.ask(target)
        client.socket.close()
        await until_closed(gateway)
    assert await metric(gateway, 'gateway_downloads_total{outcome="broken"}') == "2.0"


MOVE = COPY + "        await files.remove(event)\n"
SIZES = """
- name: uploaded
  event: APIGW.OnFileUploaded
  script: |
    async def uploaded(event, handle):
        async with files.open(event) as file:
            await files.save("/sizes/" + event["upload_id"], str(len(await file.read())).encode())
"""


async def test_scripts_read_save_and_remove_objects(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", MOVE)
    gateway = await start_gateway(auth="none", storage=s3_storage, plugins=[str(folder)])
    files = gateway.resources.scripts.files
    upload_id = (await put(gateway, "/upload/a.txt", b"content")).json["upload_id"]
    await wait_settled(gateway)
    assert [stat.path async for stat in files.list("/")] == ["/copies/upload/a.txt"]
    stat = await files.stat("/copies/upload/a.txt")
    assert stat.metadata["of"] == upload_id
    async with files.open_path("/copies/upload/a.txt", stat.etag) as file:
        assert await file.read() == b"content"
    assert (await files.save("/copies/upload/a.txt", pieces())).replaced
    with pytest.raises(Superseded):
        await files.delete("/copies/upload/a.txt", stat.etag)
    assert (await files.stat("/copies/upload/a.txt")).bytes == 4_500_000


async def test_what_was_uploaded_is_opened_by_its_event(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", SIZES)
    gateway = await start_gateway(auth="none", storage=s3_storage, plugins=[str(folder)])
    upload_id = (await put(gateway, "/upload/a.txt", b"content")).json["upload_id"]
    await wait_settled(gateway)
    async with gateway.resources.scripts.files.open_path(f"/sizes/{upload_id}") as file:
        assert await file.read() == b"7"


async def test_what_is_old_is_swept_and_the_bucket_is_told(
    start_gateway: StartGateway, s3_storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = (await start_gateway(auth="none", storage=s3_storage)).resources.scripts.files
    await files.save("/exports/a", b"x")
    with caplog.at_level("INFO", "gateway.storage"):
        assert await files.expire("/exports/", 3600) == 0
        assert await files.expire("/exports/", -60) == 1
    assert "exports/* is removed after 1 days" in caplog.text
    assert [stat async for stat in files.list("/")] == []


async def test_slow_readers_leave_connections_to_the_bucket_for_others(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(auth="none", downloads=True, storage=s3_storage)
    await gateway.resources.scripts.files.save("/upload/big", bytes(LARGE))
    readers = [Slow(gateway) for _ in range(MAX_CONNECTIONS)]
    for reader in readers:
        assert await reader.ask("/upload/big")
    part = await fetch(gateway, "/upload/big", "Range: bytes=0-9", source="127.0.0.2")
    assert (part.status, part.body) == (206, bytes(10))
    for reader in readers:
        reader.socket.close()
    await until_closed(gateway)
