"""The storage of a bucket, where it is more than the contract: metadata, pages, storages that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.errors import Refusal, Superseded
from gateway.files.service import FilesService
from gateway.settings.values import Bucket
from gateway.storage.s3 import client as client_module
from gateway.storage.s3 import storage as module
from gateway.storage.s3.client import Clients
from gateway.storage.s3.encoding import encode_metadata
from gateway.storage.s3.lifecycle import rules_of
from gateway.storage.s3.storage import S3Storage
from tests.support.s3.servers import Rclone, S3Server, SeaweedFS

METADATA = {"title": "Keynote Speech", "description": "é 世界  two spaces", "percent": "100%41 + a&b=c"}


@pytest.mark.slow
async def test_type_and_metadata_come_back_as_they_were_given(
    server: S3Server, place: Bucket, clients: Clients, storage: S3Storage
) -> None:
    client = await clients.client()
    said = {"ContentType": "image/png", "Metadata": encode_metadata(METADATA)}
    await client.put_object(Bucket=place.name, Key=place.key("/a.png"), Body=b"x", **said)
    stat = await storage.stat("/a.png")
    assert (stat.mime, stat.metadata) == ("image/png", METADATA)
    async with storage.open("/a.png") as opened:
        assert opened.stat == stat


@pytest.mark.slow
async def test_pages_are_requested_one_after_the_other(
    server: S3Server,
    place: Bucket,
    clients: Clients,
    storage: S3Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LIST_PAGE_SIZE", 2)
    client = await clients.client()
    for number in range(7):
        await client.put_object(Bucket=place.name, Key=place.key(f"/n/{number}"), Body=b"x")
    expected = [f"/n/{number}" for number in range(7)]
    assert [stat.path async for stat in storage.list("/")] == expected
    assert [stat.path async for stat in storage.list("/n/", after="/n/2")] == expected[3:]


@pytest.mark.slow
async def test_objects_outside_the_prefix_are_not_listed(
    s3_storage: str, place: Bucket, clients: Clients, storage: S3Storage
) -> None:
    client = await clients.client()
    for key in ("elsewhere", "a prefixed", "a prefix/", "a prefix/folder/", "a prefix/ours"):
        await client.put_object(Bucket=place.name, Key=key, Body=b"")
    assert [stat.path async for stat in storage.list("/")] == ["/ours"]
    with pytest.raises(Refusal, match="no such file"):
        await storage.stat("/elsewhere")


@pytest.mark.slow
async def test_a_cancelled_read_returns_its_connection(
    s3_storage: str, place: Bucket, storage: S3Storage, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Clients(connections=1)
    narrow = S3Storage(place, small)
    client = await clients.client()
    await client.put_object(Bucket=place.name, Key=place.key("/big"), Body=bytes(20 << 20))
    for _ in range(3):
        async with asyncio.timeout(30), narrow.open("/big") as opened:
            assert await anext(aiter(opened))
    await small.close()


# -- storages that fail, on raw sockets


class Failing:
    """A server that promises ten bytes and sends `sent`; then it ends, or says nothing more."""

    def __init__(self) -> None:
        self.sent = b"12345"
        self.silent = False
        self.headers: dict[str, str] = {}
        self.over = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Length": "10", "ETag": '"e"', "Last-Modified": _now(), **self.headers}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(self.sent)
        if self.silent:
            await self.over.wait()
        assert request.transport is not None
        request.transport.close()
        return response


def _now() -> str:
    return datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.fixture
async def failing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Failing]:
    storage = Failing()
    runner = web.ServerRunner(web.Server(storage.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    SeaweedFS(Path("unused")).set_environment(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 1)
    yield storage
    storage.over.set()
    await runner.cleanup()


async def read(storage: S3Storage, **part: Any) -> bytes:
    async with storage.open("/a", **part) as opened:
        return b"".join([piece async for piece in opened])


async def test_an_object_that_ends_too_early_raises(failing: Failing, storage: S3Storage) -> None:
    with pytest.raises(Refusal) as refused:
        await read(storage)
    assert refused.value.code == "storage_unavailable"


async def test_a_storage_that_stalls_is_storage_unavailable(
    failing: Failing, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT", 0.3)
    failing.silent = True
    with pytest.raises(Refusal) as refused:
        await read(storage)
    assert refused.value.code == "storage_unavailable"


async def test_a_storage_that_ignores_if_match_is_detected(failing: Failing, storage: S3Storage) -> None:
    with pytest.raises(Superseded):
        await read(storage, etag="another")


async def test_a_storage_that_ignores_ranges_is_detected(failing: Failing, storage: S3Storage) -> None:
    with pytest.raises(Refusal) as refused:
        await read(storage, start=5)
    assert refused.value.code == "internal"


async def test_an_unreachable_storage_is_storage_unavailable_for_each_operation(
    monkeypatch: pytest.MonkeyPatch, failing: Failing, storage: S3Storage
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")

    async def listing() -> None:
        async for _ in storage.list("/"):
            pass

    for act in (storage.stat("/a"), read(storage), storage.delete("/a"), listing()):
        with pytest.raises(Refusal) as refused:
            await act
        assert refused.value.code == "storage_unavailable"
        assert refused.value.status == 503


# -- expiry


@pytest.mark.slow
async def test_an_expiry_rule_leaves_the_other_rules_of_the_bucket(
    s3_storage: str, place: Bucket, storage: S3Storage, clients: Clients
) -> None:
    client = await clients.client()
    others = {
        "ID": "somebody's",
        "Status": "Enabled",
        "Filter": {"Prefix": "x/"},
        "Expiration": {"Days": 3},
    }
    await client.put_bucket_lifecycle_configuration(
        Bucket=place.name, LifecycleConfiguration={"Rules": [others]}
    )
    for seconds, days in ((900, 1), (86400, 1), (86401, 2)):
        told = await storage.expire("/exports/", seconds)
        assert told is not None
        assert told.days == days
        assert str(told).startswith(f"s3://{place.name}/a prefix/exports/* is removed after {days} days")
        rules = {rule["ID"]: rule for rule in await rules_of(client, place.name)}
        assert set(rules) == {"somebody's", told.rule}
        assert rules[told.rule]["Expiration"]["Days"] == days
        assert rules[told.rule]["Filter"]["Prefix"] == "a prefix/exports/"
        assert rules["somebody's"]["Expiration"]["Days"] == 3
    assert (await storage.expire("/other/", 5)) != told


@pytest.mark.slow
async def test_a_store_without_lifecycle_rules_leaves_the_removal_to_expire(
    rclone: Rclone,
    place: Bucket,
    storage: S3Storage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await rclone.make(place.name)
    rclone.set_environment(monkeypatch)
    assert await storage.expire("/exports/", 900) is None
    assert "has no lifecycle rules" in caplog.text


async def test_an_expiry_is_tried_again_where_the_storage_is_unavailable(
    failing: Failing, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(Refusal):
        await storage.expire("/exports/", 900)


@pytest.mark.slow
async def test_expire_removes_old_objects_and_logs_the_rule_that_the_bucket_gets(
    s3_storage: str,
    place: Bucket,
    storage: S3Storage,
    clients: Clients,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gateway.storage")
    client, files = await clients.client(), FilesService(storage)
    for path in ("/exports/old", "/exportsx"):
        await client.put_object(Bucket=place.name, Key=place.key(path), Body=b"x")
    assert await files.expire("/exports/", 900) == 0
    assert await files.expire("/exports/", -5) == 1
    assert [stat.path async for stat in storage.list("/")] == ["/exportsx"]
    assert await files.expire("/exports/", 900) == 0
    (rule,) = await rules_of(client, place.name)
    assert (rule["Filter"]["Prefix"], rule["Expiration"]["Days"]) == ("a prefix/exports/", 1)
    shown = [record for record in caplog.records if "is removed after 1 days" in record.message]
    assert len(shown) == 3
