"""Copies that a store makes: in one request, in parts, and never over what may not be replaced."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from gateway.errors import Refusal
from gateway.storage.s3 import copies
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.client import Clients
from gateway.storage.s3.copies import ObjectCopier
from gateway.storage.s3.encoding import ObjectTarget
from gateway.storage.s3.retries import KeyExistsError, RequestRetrier
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow

SIZE = 20_000_000
TARGET = ObjectTarget("/x", "a/ü +x", "id", {"ContentType": "image/x-odd", "Metadata": {"b": "2"}})


@pytest.fixture
async def clients(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clients]:
    await s3.make(bucket)
    s3.set_environment(monkeypatch)
    clients = Clients(attempts=1)
    yield clients
    await clients.close()


@pytest.fixture
def copier(clients: Clients, bucket: str) -> ObjectCopier:
    return ObjectCopier(BucketClient(clients, bucket), RequestRetrier(clients), "a/.gateway/probe")


class Multiparts(list[str | None]):
    """What the copier tells of its multipart uploads."""

    async def note(self, multipart: str | None) -> None:
        """Note it."""
        self.append(multipart)


async def stored(s3: SeaweedFS, bucket: str, key: str) -> tuple[bytes, str, dict[str, str]]:
    async with s3.client() as client:
        answer = await client.get_object(Bucket=bucket, Key=key)
        return await answer["Body"].read(), answer["ContentType"], answer["Metadata"]


async def put(s3: SeaweedFS, bucket: str, key: str, body: bytes) -> None:
    async with s3.client() as client:
        await client.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"a": "1"})


async def unfinished(s3: SeaweedFS, bucket: str) -> int:
    async with s3.client() as client:
        return len((await client.list_multipart_uploads(Bucket=bucket)).get("Uploads", ()))


@pytest.fixture(params=["one request", "parts"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Copy in one request, or in three parts."""
    if request.param == "parts":
        monkeypatch.setattr(copies, "MAX_COPY_BYTES", 1 << 20)
        monkeypatch.setattr(copies, "_MIN_PART_BYTES", 8 << 20)
    return str(request.param)


async def test_a_copy_has_the_bytes_of_the_source_and_the_metadata_of_its_target(
    s3: SeaweedFS, bucket: str, copier: ObjectCopier, way: str
) -> None:
    body, noted = os.urandom(SIZE), Multiparts()
    await put(s3, bucket, "a/src", body)
    for _ in range(2):  # the second one replaces the first
        assert await copier.copy("a/src", SIZE, TARGET, new=False, begun=noted.note)
        assert await stored(s3, bucket, TARGET.key) == (body, "image/x-odd", {"b": "2"})
    assert [one is not None for one in noted] == ([True, True] if way == "parts" else [])
    assert await unfinished(s3, bucket) == 0


@pytest.mark.parametrize("knows_condition", [True, False])
@pytest.mark.parametrize("size", [0, 1000, SIZE])
async def test_a_copy_replaces_nothing_where_it_may_not(
    s3: SeaweedFS,
    bucket: str,
    copier: ObjectCopier,
    way: str,
    knows_condition: bool,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await copier._honours_condition()

    async def honours() -> bool:
        return knows_condition

    monkeypatch.setattr(copier, "_honours_condition", honours)
    body, noted = os.urandom(size), Multiparts()
    await put(s3, bucket, "a/src", body)
    assert await copier.copy("a/src", size, TARGET, new=True, begun=noted.note)
    content, mime, metadata = await stored(s3, bucket, TARGET.key)
    assert (content == body, mime, metadata) == (True, "image/x-odd", {"b": "2"})
    await put(s3, bucket, TARGET.key, b"other")
    with pytest.raises(KeyExistsError):
        await copier.copy("a/src", size, TARGET, new=True, begun=noted.note)
    assert (await stored(s3, bucket, TARGET.key))[0] == b"other"
    assert await unfinished(s3, bucket) == 0
    by_parts = (way == "parts" and size > 1 << 20) or (size > 0 and not knows_condition)
    assert [one is not None for one in noted] == ([True, True, False] if by_parts else [])


async def test_a_source_that_is_gone_is_no_missing_file_of_the_client(
    s3: SeaweedFS, bucket: str, copier: ObjectCopier, way: str
) -> None:
    noted = Multiparts()
    with pytest.raises(Refusal) as caught:
        await copier.copy("a/src", SIZE, TARGET, new=False, begun=noted.note)
    assert caught.value.code == "internal"
    assert await unfinished(s3, bucket) == 0
