"""kill -9 of a gateway while an upload comes into a bucket in several requests: nothing told is lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, wait_settled, wait_until
from tests.support.promise import RunRecorder, body_of
from tests.support.resumable import PART_TYPE, Exchange, request
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow

SMALL, LARGE = 1000, 20_000_000

POINTS = (
    "after multipart begun",
    "before partial head",
    "after partial head",
    "mid body",
    "before partial settle",
    "before partial settle:2",
    "after partial settle",
    "after partial settle:2",
    "before journal commit",
    "after journal commit",
    "before complete",
    "after complete",
    "before partial end",
    "before answer",
    "after answer",
    "after answer:2",
    "after answer:3",
)


class ResumingClient:
    """Uploads `body` in three requests, and goes on after every loss of its connection."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.resource = ""
        self.offset = 0
        self.is_complete = False

    async def run(self, gateway: GatewayProcess) -> None:
        """Go on until the upload is complete. Raises `OSError`, `EOFError` where the gateway dies."""
        if not self.resource:
            size = f"Upload-Length: {len(self.body)}"
            lines = ("X-Tag: new", "Upload-Complete: ?0", size)
            created = await request(gateway, "POST", "/upload/x", *lines, body=b"")
            assert created.status == 201
            self.resource = created.resource
        await self._ask(gateway)
        while not self.is_complete:
            middle = len(self.body) // 2
            end = middle if self.offset < middle else len(self.body)
            answer = await self._append(gateway, end)
            if answer.status in {423, 503}:  # the outcome of an earlier commit is waited for
                await asyncio.sleep(0.2)
                await self._ask(gateway)
                continue
            assert answer.status in {201, 204}
            self._take(answer)

    async def _ask(self, gateway: GatewayProcess) -> None:
        answer = await request(gateway, "HEAD", self.resource)
        assert answer.status == 204
        assert answer.offset >= self.offset
        self._take(answer)

    async def _append(self, gateway: GatewayProcess, end: int) -> Exchange:
        complete = "?1" if end == len(self.body) else "?0"
        lines = (f"Upload-Offset: {self.offset}", f"Upload-Complete: {complete}", PART_TYPE)
        piece = self.body[self.offset : end]
        return await request(gateway, "PATCH", self.resource, *lines, body=piece)

    def _take(self, answer: Exchange) -> None:
        self.offset, self.is_complete = answer.offset, answer.complete == "?1"


async def content_of(s3: SeaweedFS, bucket: str) -> bytes:
    async with s3.client() as client:
        answer = await client.get_object(Bucket=bucket, Key="a prefix/upload/x")
        content: bytes = await answer["Body"].read()
    return content


async def kept(s3: SeaweedFS, bucket: str) -> list[str]:
    """Return the private objects of unfinished uploads, and the keys of unfinished multipart ones."""
    async with s3.client() as client:
        objects = await client.list_objects_v2(Bucket=bucket, Prefix="a prefix/.gateway/partials/")
        unfinished = await client.list_multipart_uploads(Bucket=bucket)
    entries = [*objects.get("Contents", ()), *unfinished.get("Uploads", ())]
    return [entry["Key"] for entry in entries]


@pytest.mark.parametrize(
    ("point", "size"),
    [
        *((point, LARGE) for point in POINTS),
        *((point, SMALL) for point in POINTS if point not in {"after multipart begun", "mid body"}),
    ],
)
async def test_a_kill_costs_no_byte_that_was_told(
    gateway_process: StartProcess,
    tmp_path_factory: pytest.TempPathFactory,
    s3: SeaweedFS,
    s3_storage: str,
    bucket: str,
    point: str,
    size: int,
) -> None:
    recorder = RunRecorder(tmp_path_factory.mktemp("recorder"))
    flags = [*recorder.flags, "--storage", s3_storage]
    client = ResumingClient(body_of("new", size))
    dying = gateway_process(*flags, die_at=point)
    try:
        await client.run(dying)
    except (OSError, EOFError):
        assert not client.is_complete
    assert dying.wait() == -9

    gateway = gateway_process(*flags)
    before = await kept(s3, bucket) if not client.resource else []
    await client.run(gateway)
    assert await content_of(s3, bucket) == client.body
    await wait_until(lambda: recorder.tags() != [])
    await wait_settled(gateway)
    assert set(recorder.tags()) == {"new"}
    if point not in {"before answer", "after answer"}:  # a handler may be killed and run again
        assert len(recorder.tags()) == 1

    async def only_unknown() -> bool:
        return set(await kept(s3, bucket)) <= set(before)

    await wait_until(only_unknown)
