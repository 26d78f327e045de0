"""A body that goes into a bucket: whatever is cancelled, its discard leaves nothing behind."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.encoding import ObjectTarget
from gateway.storage.s3.memory import MemoryBudget
from gateway.storage.s3.multiparts import MultipartLog
from gateway.storage.s3.part_sender import UploadContext
from gateway.storage.s3.parts import PART_BYTES
from gateway.storage.s3.upload import MultipartUpload

MEMORY = 128 << 20


class HeldBucket:
    """A bucket that answers when `go_on` is set, and knows what was begun and not aborted."""

    bucket = "b"

    def __init__(self) -> None:
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()
        self.open: set[str] = set()
        self.sending = 0

    async def create_multipart(self, key: str, params: dict[str, Any]) -> str:
        self.entered.set()
        self.open.add("m")
        await self.go_on.wait()
        return "m"

    async def upload_part(self, key: str, multipart: str, number: int, body: Any, size: int) -> str:
        self.sending += 1
        try:
            self.entered.set()
            if number == 1:
                await self.go_on.wait()
            async for _ in body:
                pass
            return "tag"
        finally:
            self.sending -= 1

    async def abort_multipart(self, key: str, multipart: str, _attempts: int = 1) -> bool:
        self.open.remove(multipart)
        return True


@pytest.fixture
async def bucket() -> HeldBucket:
    return HeldBucket()


@pytest.fixture
def context(bucket: HeldBucket, tmp_path: Path) -> UploadContext:
    log = MultipartLog(tmp_path / "multipart")
    client = cast("BucketClient", bucket)
    return UploadContext(client, MemoryBudget(MEMORY), ThreadPoolExecutor(1), log)


@pytest.mark.parametrize(
    ("size", "memory"),
    [(None, MEMORY), (4 * PART_BYTES, MEMORY), (4 * PART_BYTES, 0)],
    ids=["chunked", "declared", "streamed"],
)
@pytest.mark.parametrize("held", ["as it is begun", "as parts are sent"])
async def test_a_cancelled_body_leaves_no_multipart_upload_request_or_memory(
    bucket: HeldBucket, context: UploadContext, size: int | None, memory: int, held: str
) -> None:
    context.memory.left = memory
    body = MultipartUpload(context, ObjectTarget("/x", "x", "u", {}), "client", size)
    if held == "as parts are sent":
        bucket.go_on.set()
        await body.write(b"x")
        await body._multipart_id()
        bucket.go_on.clear()
        bucket.entered.clear()

    async def write() -> None:
        for _ in range(3):
            await body.write(bytes(PART_BYTES))

    writing = asyncio.create_task(write())
    await bucket.entered.wait()
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    discarding = asyncio.create_task(body.discard())
    await asyncio.sleep(0)
    discarding.cancel()
    bucket.go_on.set()
    await asyncio.gather(discarding, return_exceptions=True)
    assert (bucket.open, bucket.sending, context.memory.left) == (set(), 0, memory)
    assert list(context.multiparts.entries()) == []
