"""What every storage promises of a whole body that handlers read before it is visible."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from typing import Any

import pytest

from gateway.commit.writer import PendingWrite
from gateway.domain.held import PrivateFile
from gateway.domain.model import Upload, new_id
from gateway.errors import Refusal
from gateway.server.app import Gateway
from gateway.storage.s3.storage import S3Storage
from tests.conftest import StartGateway
from tests.contract.test_storage_writer import LARGE, unfinished, visible
from tests.support.harness import wait_until

SIZES = pytest.mark.parametrize("size", [0, 1000, 200_000, LARGE])


async def staged(
    gateway: Gateway, body: bytes, path: str = "/upload/x.bin", **fields: Any
) -> tuple[Upload, PendingWrite]:
    """Receive a body that handlers are to read."""
    upload = Upload(new_id(0), path, content_length=len(body), created=time.time(), **fields)
    pending = await gateway.resources.parts.writer.begin(upload, staged=True)
    for start in range(0, len(body), 1 << 18):
        await pending.write(body[start : start + (1 << 18)])
    await pending.finish()
    return upload, pending


async def content_of(gateway: Gateway, private: PrivateFile) -> bytes:
    """Read a private file as a handler does."""
    if private.path is not None:
        return private.path.read_bytes()
    storage = gateway.resources.parts.storage
    assert isinstance(storage, S3Storage)
    assert private.key is not None
    async with storage.open_private(private.key) as opened:
        assert opened.stat.bytes == private.size
        return b"".join([bytes(piece) async for piece in opened])


async def private_bodies(gateway: Gateway) -> list[str]:
    """Return the uploads whose bodies are kept privately."""
    backend = gateway.resources.parts.backend
    if backend is None:
        return list(gateway.resources.base.disk.incoming.upload_ids())
    return [entry.name async for entry in backend.staging.private.list()]


async def nothing_is_left(gateway: Gateway) -> None:
    """Wait until no private body is left, which may go after the answer."""

    rows = gateway.resources.journal.private_objects

    async def is_clean() -> bool:
        left = [*await private_bodies(gateway), *await unfinished(gateway)]
        return [*left, *(await asyncio.wrap_future(rows.unneeded(""))).rows] == []

    await wait_until(is_clean)


@SIZES
async def test_a_staged_body_is_read_by_handlers_and_by_nobody_else(
    begin: StartGateway, size: int
) -> None:
    gateway = await begin()
    body = os.urandom(size)
    upload, pending = await staged(gateway, body)
    private = await pending.stage()
    assert private == await pending.stage()
    assert private.size == size
    assert await content_of(gateway, private) == body
    assert await private_bodies(gateway) == [upload.id]
    assert await visible(gateway) == {}
    await pending.discard()
    await nothing_is_left(gateway)
    assert await visible(gateway) == {}


@SIZES
async def test_what_handlers_change_counts_at_the_commit(begin: StartGateway, size: int) -> None:
    gateway = await begin()
    body = os.urandom(size)
    upload, pending = await staged(gateway, body, content_type="image/x-odd", metadata={"a": "1"})
    await pending.stage()
    upload.path, upload.metadata = "/upload/other/ü +y.bin", {"b": "für dich"}
    stored = await pending.commit({}, from_client=True)
    assert (stored.upload_id, stored.path, stored.bytes) == (upload.id, upload.path, size)
    assert not stored.replaced
    assert await visible(gateway) == {upload.path: body}
    stat = await gateway.resources.parts.storage.stat(upload.path)
    assert (stat.mime, stat.metadata["b"]) == ("image/x-odd", "für dich")
    await nothing_is_left(gateway)


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_staged_body_may_be_committed_unread_and_replaces_what_is_there(
    begin: StartGateway, size: int
) -> None:
    gateway = await begin()
    for is_second in (False, True):
        body = os.urandom(size)
        _, pending = await staged(gateway, body)
        assert (await pending.commit({}, from_client=True)).replaced is is_second
        assert await visible(gateway) == {"/upload/x.bin": body}
    await nothing_is_left(gateway)


@pytest.mark.parametrize("size", [0, 1000, LARGE])
async def test_the_digest_is_kept_with_a_staged_body_of_any_size(begin: StartGateway, size: int) -> None:
    gateway = await begin(digest="sha256")
    body = os.urandom(size)
    _, pending = await staged(gateway, body)
    stored = await pending.commit({"md5": "AAAA"}, from_client=True)
    right = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert stored.digests == {"md5": "AAAA", "sha-256": right}
    stat = await gateway.resources.parts.storage.stat("/upload/x.bin")
    assert stat.digests == {"sha-256": right}


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"on_conflict": "reject"}, "conflict"), ({"must_be_new": True}, "already_exists")],
)
@pytest.mark.parametrize("size", [0, 1000, LARGE])
async def test_a_conflict_at_the_commit_leaves_nothing_of_a_staged_body(
    begin: StartGateway, fields: dict[str, Any], error: str, size: int
) -> None:
    gateway = await begin()
    _, pending = await staged(gateway, os.urandom(size), **fields)
    await pending.stage()
    _, other = await staged(gateway, b"first")
    await other.commit({}, from_client=True)
    with pytest.raises(Refusal) as caught:
        await pending.commit({}, from_client=True)
    assert caught.value.code == error
    assert await visible(gateway) == {"/upload/x.bin": b"first"}
    await nothing_is_left(gateway)


@pytest.mark.parametrize("size", [1000, 9_000_000])
async def test_staged_bodies_that_are_renamed_all_stay(begin: StartGateway, size: int) -> None:
    gateway = await begin()
    bodies = [bytes([number]) * size for number in range(4)]
    begun = [(await staged(gateway, body, on_conflict="rename"))[1] for body in bodies]
    stored = await asyncio.gather(*(pending.commit({}, from_client=True) for pending in begun))
    told = {one.path: body for one, body in zip(stored, bodies, strict=True)}
    assert set(told) == {"/upload/x.bin", *(f"/upload/x-{number}.bin" for number in (1, 2, 3))}
    assert await visible(gateway) == told
    await nothing_is_left(gateway)


@pytest.mark.parametrize("size", [1000, 9_000_000])
async def test_of_staged_bodies_that_may_not_replace_one_wins(begin: StartGateway, size: int) -> None:
    gateway = await begin()
    bodies = [bytes([number]) * size for number in range(4)]
    begun = [(await staged(gateway, body, on_conflict="reject"))[1] for body in bodies]
    results = await asyncio.gather(
        *(pending.commit({}, from_client=True) for pending in begun), return_exceptions=True
    )
    (winner,) = (body for body, one in zip(bodies, results, strict=True) if not isinstance(one, Refusal))
    assert await visible(gateway) == {"/upload/x.bin": winner}
    await nothing_is_left(gateway)


async def test_a_path_that_is_illegal_is_refused_at_the_commit(begin: StartGateway) -> None:
    gateway = await begin()
    upload, pending = await staged(gateway, b"12345")
    await pending.stage()
    upload.path = "/upload/../.gateway/x"
    with pytest.raises(Refusal) as caught:
        await pending.commit({}, from_client=True)
    assert caught.value.code == "bad_path"
    await nothing_is_left(gateway)


async def test_a_commit_whose_caller_is_cancelled_stores_all_or_nothing(begin: StartGateway) -> None:
    gateway = await begin()
    _, pending = await staged(gateway, b"12345")
    committing = asyncio.create_task(pending.commit({}, from_client=True))
    await asyncio.sleep(0)
    committing.cancel()
    await asyncio.wait({committing})
    await nothing_is_left(gateway)
    assert await visible(gateway) in ({}, {"/upload/x.bin": b"12345"})
