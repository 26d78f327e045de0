"""tus 1.0.0 with a bucket: the same answers as with files."""

from __future__ import annotations

import os

import pytest

from tests.conftest import StartGateway
from tests.support.harness import get
from tests.support.tus import checksum, create, metadata, offset_of, patch, store_part, tus

pytestmark = pytest.mark.slow

LARGE = 9_000_000


async def test_a_file_comes_in_pieces(start_gateway: StartGateway, s3_storage: str) -> None:
    gateway = await start_gateway(storage=s3_storage, downloads=True)
    body, tells = os.urandom(LARGE), metadata(filename="a b.bin", note="x")
    url = await create(gateway, "/upload/", tells, length=LARGE)
    half = LARGE // 2
    assert (await patch(gateway, url, 0, body[:half])).headers["Upload-Offset"] == str(half)
    answer = await patch(gateway, url, half, body[half:-1], checksum("sha1", b"other"))
    assert (answer.status, answer.headers["Upload-Offset"]) == (460, str(half))
    assert await offset_of(gateway, url) == half
    assert (await get(gateway, "/upload/a%20b.bin")).status == 404
    assert (await patch(gateway, url, half, body[half:], checksum("sha1", body[half:]))).status == 204
    assert (await get(gateway, "/upload/a%20b.bin")).body == body
    answer = await tus(gateway, "HEAD", url)
    assert answer.headers["Upload-Offset"] == answer.headers["Upload-Length"] == str(LARGE)
    assert answer.headers["Upload-Metadata"] == tells.partition(": ")[2]


async def test_a_file_is_made_of_parts(start_gateway: StartGateway, s3_storage: str) -> None:
    gateway = await start_gateway(storage=s3_storage, downloads=True)
    bodies = [os.urandom(size) for size in (LARGE, 1, 1000)]
    urls = [await store_part(gateway, body) for body in bodies]
    order = [0, 1, 2] * 7
    line = f"Upload-Concat: final;{' '.join(urls[number] for number in order)}"
    answer = await tus(gateway, "POST", "/upload/a", line)
    assert answer.status == 201
    whole = b"".join(bodies[number] for number in order)
    assert (await get(gateway, "/upload/a")).body == whole
    for url in urls:
        assert (await tus(gateway, "HEAD", url)).status == 404
    status = await tus(gateway, "HEAD", answer.headers["Location"])
    assert status.headers["Upload-Concat"] == line.partition(": ")[2]
    assert status.headers["Upload-Length"] == str(len(whole))
    assert (await patch(gateway, answer.headers["Location"], 0, b"x")).status == 403


async def test_parts_outlive_a_refusal(start_gateway: StartGateway, s3_storage: str) -> None:
    gateway = await start_gateway(storage=s3_storage, downloads=True, on_conflict="reject")
    urls = [await store_part(gateway, body) for body in (b"hello ", b"world")]
    await create(gateway, "/upload/a", length=1, body=b"x")
    line = f"Upload-Concat: final;{' '.join(urls)}"
    assert (await tus(gateway, "POST", "/upload/a", line)).status == 409
    assert (await tus(gateway, "POST", "/upload/b", line)).status == 201
    assert (await get(gateway, "/upload/b")).body == b"hello world"
