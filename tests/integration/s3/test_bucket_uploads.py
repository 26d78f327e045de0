"""Uploads into a bucket: the metadata of objects, and what an error must not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.commit.objects.reconciler import UploadReconciler
from gateway.domain.model import Upload
from gateway.errors import Refusal, Superseded
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.encoding import MARK_NAME, UPLOAD_ID_NAME
from tests.conftest import StartGateway
from tests.support.harness import get, put, raw_connection, request_head
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("taken", [False, True], ids=["its own name", "another name"])
async def test_an_object_has_the_mark_of_the_path_that_it_got(
    start_gateway: StartGateway, s3: SeaweedFS, s3_storage: str, bucket: str, taken: bool
) -> None:
    async def while_somebody_takes_the_name() -> AsyncIterator[bytes]:
        yield b"half"
        if taken:
            async with s3.client() as client:
                await client.put_object(Bucket=bucket, Key="a prefix/made/x", Body=b"of another")
        yield b"rest"

    gateway = await start_gateway(auth="none", storage=s3_storage)
    resources = gateway.resources
    saving = while_somebody_takes_the_name()
    stored = await resources.scripts.files.save(
        "/made/x", saving, metadata={"title": "Sunrise"}, on_conflict="rename"
    )
    assert stored.path == ("/made/x-1" if taken else "/made/x")
    said = (await resources.parts.storage.stat(stored.path)).metadata
    assert said[UPLOAD_ID_NAME] == stored.upload_id
    assert resources.base.installation.marks.is_genuine(said[MARK_NAME], stored.upload_id, stored.path)
    assert (await resources.scripts.files.stat(stored.path)).metadata == {"title": "Sunrise"}


async def test_an_older_upload_of_the_same_bytes_is_superseded(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(auth="token", storage=s3_storage)
    files = gateway.resources.scripts.files
    known = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    older = (await put(gateway, "/upload/a", b"same", known)).json["upload_id"]
    newer = (await put(gateway, "/upload/a", b"same", known)).json["upload_id"]
    assert (await get(gateway, f"/-/files/{older}", known)).status == 410
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", f"/-/files/{older}", known))
        assert (await connection.answer()).status == 410
    with pytest.raises(Superseded):
        async with files.open({"upload_id": older}):
            pass
    with pytest.raises(Superseded):
        await files.remove({"upload_id": older})
    assert (await get(gateway, f"/-/files/{newer}", known)).body == b"same"
    await files.remove({"upload_id": newer})
    assert (await get(gateway, f"/-/files/{newer}", known)).status == 410


@pytest.mark.parametrize("size", [3, 8 << 20, 20_000_000])
async def test_more_bytes_than_were_declared_are_refused(
    start_gateway: StartGateway, s3_storage: str, size: int
) -> None:
    writer = (await start_gateway(auth="none", storage=s3_storage)).resources.parts.writer
    body = await writer.begin(Upload("01ABC-0", "/x", content_length=size))
    await body.write(b"x" * size)
    with pytest.raises(Refusal) as refused:
        await body.write(b"y")
    assert refused.value.code == "incomplete_body"
    await body.discard()


async def test_an_upload_that_is_refused_at_its_beginning_keeps_no_name(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(auth="none", storage=s3_storage, on_conflict="rename")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", "Content-Length: 60000000000000"))
        refused = await connection.answer()
    assert (refused.status, refused.json["error"]) == (413, "too_large")
    stored = await put(gateway, "/upload/x", b"x")
    assert (stored.status, stored.json["path"]) == (201, "/upload/x")


async def test_a_save_that_is_cancelled_at_its_beginning_keeps_no_name(
    start_gateway: StartGateway, s3_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        looked.set()
        await asyncio.Event().wait()

    files = (await start_gateway(auth="none", storage=s3_storage)).resources.scripts.files
    looked = asyncio.Event()
    with monkeypatch.context() as silent:
        silent.setattr(BucketClient, "head_object", never)
        saving = asyncio.create_task(files.save("/made/x", b"x", on_conflict="rename"))
        await looked.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
    assert (await files.save("/made/x", b"x", on_conflict="rename")).path == "/made/x"


async def test_a_client_that_sends_slowly_leaves_connections_to_the_bucket_for_others(
    start_gateway: StartGateway, s3_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.commit.objects.writer.MAX_STREAMS", 2)
    writer = (await start_gateway(auth="none", storage=s3_storage)).resources.parts.writer

    def upload(number: int, remote: str, size: int | None = 20_000_000) -> Upload:
        return Upload(f"01ABC{number}-0", f"/x{number}", content_length=size, remote=remote)

    slow = await writer.begin(upload(0, "192.0.2.1"))
    for size in (20_000_000, None):
        with pytest.raises(Refusal) as refused:
            await writer.begin(upload(1, "192.0.2.1", size))
        assert refused.value.code == "too_many_requests"
    small = await writer.begin(upload(2, "192.0.2.1", 3))
    other = await writer.begin(upload(3, "192.0.2.2"))
    for body in (slow, small, other):
        await body.discard()
    again = await writer.begin(upload(4, "192.0.2.1"))
    await again.discard()


async def test_a_client_that_trickles_chunked_bodies_delays_no_chunked_body_of_another_client(
    start_gateway: StartGateway, s3: SeaweedFS, s3_storage: str, bucket: str
) -> None:
    # Who waits for memory waits for an hour: longer than this test may.
    gateway = await start_gateway(
        auth="none", storage=s3_storage, storage_memory="32MiB", idle_timeout="1h"
    )
    assert gateway.resources.parts.backend is not None
    memory = gateway.resources.parts.backend.staging.context.memory
    content, chunked = b"abcdefgh" * (20 << 17), "Transfer-Encoding: chunked"
    async with contextlib.AsyncExitStack() as greedy, asyncio.timeout(30):
        for number in range(10):
            connection = await greedy.enter_async_context(raw_connection(gateway))
            await connection.send(request_head("PUT", f"/upload/greedy{number}", chunked))
            await connection.send(b"20000\r\n" + bytes(0x20000) + b"\r\n")
        while memory.left > memory.total // 2:
            await asyncio.sleep(0.01)  # nothing else tells that it has its share
        async with raw_connection(gateway, "127.0.0.2") as other:
            await other.send(request_head("PUT", "/upload/other", chunked))
            await other.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))
            assert (await other.answer()).status == 201
        assert memory.left == memory.total // 2
    async with s3.client() as client:
        stored = await client.get_object(Bucket=bucket, Key="a prefix/upload/other")
        assert await stored["Body"].read() == content


async def test_an_error_after_the_publication_is_no_answer_and_holds_nothing(
    start_gateway: StartGateway, s3_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(auth="none", storage=s3_storage)
    assert gateway.resources.parts.backend is not None
    writer = gateway.resources.parts.backend.writer

    async def settle_badly(*_: object) -> None:
        raise RuntimeError("settling broke")

    body = b"a" * 100_000
    with monkeypatch.context() as patched:
        patched.setattr(UploadReconciler, "settle_published", settle_badly)
        async with raw_connection(gateway) as connection:
            await connection.send(
                request_head("PUT", "/upload/a", f"Content-Length: {len(body)}") + body
            )
            with pytest.raises(asyncio.IncompleteReadError):
                await connection.answer()
    assert writer.streams.used == 0
    async with gateway.resources.parts.storage.open("/upload/a") as opened:
        assert b"".join([bytes(piece) async for piece in opened]) == body
