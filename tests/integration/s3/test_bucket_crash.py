"""kill -9 of a gateway, and of its storage, while uploads go into a bucket: the promise must hold."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawConnection,
    get,
    put,
    raw_connection,
    request_head,
    wait_settled,
    wait_until,
)
from tests.support.promise import RunRecorder, body_of, judge, upload
from tests.support.s3.dropping_proxy import ResponseDroppingProxy
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow

BEFORE = ("after admit", "mid body", "before journal commit", "after journal commit", "before complete")
AFTER = ("after complete", "before answer", "after answer")
SMALL, LARGE = 1000, 20_000_000


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    return RunRecorder(tmp_path)


@pytest.fixture
def flags(recorder: RunRecorder, s3_storage: str) -> list[str]:
    return [*recorder.flags, "--storage", s3_storage]


async def in_bucket(s3: SeaweedFS, bucket: str, name: str = "x") -> tuple[bytes, int]:
    """Return the object's bytes and how many multipart uploads are unfinished."""
    async with s3.client() as client:
        answer = await client.get_object(Bucket=bucket, Key=f"a prefix/upload/{name}")
        content: bytes = await answer["Body"].read()
        unfinished = await client.list_multipart_uploads(Bucket=bucket)
    return content, len(unfinished.get("Uploads", ()))


@pytest.mark.parametrize(
    ("point", "size"),
    [
        *((point, LARGE) for point in (*BEFORE, *AFTER)),
        *((point, SMALL) for point in ("after journal commit", "after complete")),
    ],
)
async def test_a_kill_leaves_all_or_nothing(
    gateway_process: StartProcess,
    recorder: RunRecorder,
    s3: SeaweedFS,
    bucket: str,
    flags: list[str],
    point: str,
    size: int,
) -> None:
    with gateway_process(*flags) as gateway:
        old = await upload(gateway, "x", "old", 500)
        assert old.status == 201
        await wait_until(lambda: "old" in recorder.tags())
        await wait_settled(gateway)  # its end is written down too: else it would be told once more
    dying = gateway_process(*flags, die_at=point)
    new = await upload(dying, "x", "new", size)
    assert dying.wait() == -9

    gateway = gateway_process(*flags)
    if point in BEFORE:
        assert new.status is None

        async def swept() -> bool:
            return await in_bucket(s3, bucket) == (old.body, 0)

        await wait_until(swept)
        assert recorder.tags() == ["old"]
    else:
        assert new.status in ({None, 200} if point == "after answer" else {None})
        await wait_until(lambda: "new" in recorder.tags())
        assert await in_bucket(s3, bucket) == (new.body, 0)
        assert recorder.digests() == {"old": old.digest, "new": new.digest}
    content, _ = await in_bucket(s3, bucket)
    assert judge([old, new], {"x": content}, recorder.digests()).broken() == {}
    assert (await upload(gateway, "x", "again", 10)).status == 200


@pytest.fixture
def dropping_proxy(
    s3: SeaweedFS, s3_storage: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ResponseDroppingProxy]:
    """A proxy between gateway and storage that drops responses."""
    with ResponseDroppingProxy(s3.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        yield between


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
async def test_the_outcome_of_a_lost_response_is_determined(
    gateway_process: StartProcess,
    recorder: RunRecorder,
    s3: SeaweedFS,
    bucket: str,
    flags: list[str],
    dropping_proxy: ResponseDroppingProxy,
    size: int,
) -> None:
    """The storage did it, and its answer was lost: once; and again, with the gateway killed over it."""
    gateway = gateway_process(*flags)
    dropping_proxy.drop_responses(b"PUT" if size == SMALL else b"POST", count=1, key=b"upload/x")
    assert (await upload(gateway, "x", "new", size)).status in {200, 201}
    await wait_until(lambda: "new" in recorder.tags())

    dropping_proxy.drop_responses(
        b"PUT" if size == SMALL else b"POST", count=1, key=b"upload/x", then=gateway.kill
    )
    assert (await upload(gateway, "x", "later", size)).status is None
    dropping_proxy.count = 0
    gateway_process(*flags)
    await wait_until(lambda: "later" in recorder.tags())
    assert await in_bucket(s3, bucket) == (body_of("later", size), 0)


async def test_a_lost_response_leaks_no_memory(
    gateway_process: StartProcess,
    recorder: RunRecorder,
    flags: list[str],
    dropping_proxy: ResponseDroppingProxy,
) -> None:
    """A body of unknown length has taken a part's memory, of which there is enough for two."""
    gateway = gateway_process(*flags, "--idle-timeout", "3")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (SMALL * 100, b"n" * SMALL * 100)
    for number in range(3):
        dropping_proxy.drop_responses(b"PUT", count=1, key=b"upload/x")
        lines = "Transfer-Encoding: chunked", "If-None-Match: *", f"X-Tag: {number}"
        async with raw_connection(gateway) as connection:
            await connection.send(request_head("PUT", f"/upload/x{number}", *lines) + body)
            answer = await connection.answer()
        assert (answer.status, dropping_proxy.count) == (201, 0)
        await wait_until(lambda: str(number) in recorder.tags())  # noqa: B023 (awaited here)


@pytest.mark.parametrize("size", [0, SMALL])
@pytest.mark.parametrize("how", ["If-None-Match", "reject", "rename"])
async def test_the_outcome_of_a_lost_response_is_determined_where_nothing_may_be_replaced(
    gateway_process: StartProcess,
    recorder: RunRecorder,
    s3: SeaweedFS,
    bucket: str,
    flags: list[str],
    dropping_proxy: ResponseDroppingProxy,
    how: str,
    size: int,
) -> None:
    """What is sent again meets its own object, and must not take it for somebody else's."""
    condition = ["If-None-Match: *"] if how == "If-None-Match" else []
    gateway = gateway_process(*flags, *([] if condition else ["--on-conflict", how]))
    dropping_proxy.drop_responses(b"PUT", count=1, key=b"upload/x")
    answer = await put(gateway, "/upload/x", b"n" * size, "X-Tag: new", *condition)
    assert (answer.status, dropping_proxy.count) == (201, 0)
    assert answer.json["path"] == "/upload/x"
    await wait_until(lambda: "new" in recorder.tags())
    assert await in_bucket(s3, bucket) == (b"n" * size, 0)

    again = await put(gateway, "/upload/x", b"again", "X-Tag: again", *condition)
    assert again.status == {"If-None-Match": 412, "reject": 409, "rename": 201}[how]
    assert await in_bucket(s3, bucket) == (b"n" * size, 0)


async def test_a_newer_object_is_never_overwritten_by_recovery(
    gateway_process: StartProcess, recorder: RunRecorder, s3: SeaweedFS, bucket: str, flags: list[str]
) -> None:
    dying = gateway_process(*flags, die_at="before complete")
    assert (await upload(dying, "x", "unanswered", LARGE)).status is None
    dying.wait()
    async with s3.client() as client:
        await client.put_object(Bucket=bucket, Key="a prefix/upload/x", Body=b"by hand")
    gateway_process(*flags)

    async def swept() -> bool:
        return await in_bucket(s3, bucket) == (b"by hand", 0)

    await wait_until(swept)
    assert recorder.runs() == []


async def test_an_unavailable_storage_is_waited_for(
    gateway_process: StartProcess,
    tmp_path: Path,
    recorder: RunRecorder,
    bucket: str,
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dies with an upload in doubt; the gateway starts without it, and settles when it is back."""
    with SeaweedFS(tmp_path / "own") as own:
        own.set_environment(monkeypatch)
        await own.make(bucket)
        dying = gateway_process(*flags, die_at="after complete")
        assert (await upload(dying, "x", "new", LARGE)).status is None
        dying.wait()
        own.kill()

        gateway = gateway_process(*flags)
        refused = await put(gateway, "/upload/y", b"x" * 100_000, "X-Tag: y")
        assert (refused.status, refused.json["error"]) == (503, "storage_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        ready = await get(gateway, "/-/ready")
        assert (ready.status, ready.json["checks"]["storage"]) == (503, False)
        assert recorder.runs() == []

        await asyncio.to_thread(own.start)
        await wait_until(lambda: "new" in recorder.tags())
        assert (await upload(gateway, "x", "next", 100)).status == 200

        async def is_ready() -> bool:
            return (await get(gateway, "/-/ready")).status == 200

        await wait_until(is_ready)


@pytest.mark.timeout(240)
async def test_a_minute_without_the_storage_costs_no_upload_and_breaks_no_promise(
    gateway_process: StartProcess,
    tmp_path: Path,
    recorder: RunRecorder,
    bucket: str,
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One storage stops answering, one dies: bodies on their way wait, new ones are refused."""
    with SeaweedFS(tmp_path / "stopped") as stopped, SeaweedFS(tmp_path / "killed") as killed:
        gateways = []
        for own in (stopped, killed):
            own.set_environment(monkeypatch)
            await own.make(bucket)
            directory = own.directory.with_suffix(".gateway")
            gateways.append(gateway_process(*flags, "--storage-memory", "256MiB", directory=directory))
        async with AsyncExitStack() as begun:
            clients = [
                [await begun.enter_async_context(_halfway(g, c)) for c in KINDS] for g in gateways
            ]
            for own in (stopped, killed):
                await wait_until(partial(_all_begun, own, bucket))
            stopped.signal(signal.SIGSTOP)
            killed.kill()
            rests = [asyncio.create_task(client.rest()) for these in clients for client in these]
            async with asyncio.TaskGroup() as refusing:
                refusing.create_task(asyncio.sleep(60))  # the time that both are away
                refused = [
                    refusing.create_task(put(g, "/upload/y", b"x" * 100_000, "X-Tag: y"))
                    for g in gateways
                ]
            assert {one.result().status for one in refused} == {503}
            assert not any(rest.done() for rest in rests)
            stopped.signal(signal.SIGCONT)
            await asyncio.to_thread(killed.start)
            assert await asyncio.gather(*rests) == [201] * 4
        for own in (stopped, killed):
            for kind in KINDS:
                assert await in_bucket(own, bucket, kind) == (b"n" * LARGE, 0)
            with pytest.raises(ClientError, match="NoSuchKey"):
                await in_bucket(own, bucket, "y")

    async def all_have_run() -> bool:
        tags = set(recorder.tags())
        return tags == {f"{name} {kind}" for name in ("stopped", "killed") for kind in KINDS}

    await wait_until(all_have_run)


async def _all_begun(s3: SeaweedFS, bucket: str) -> bool:
    async with s3.client() as client:
        unfinished = await client.list_multipart_uploads(Bucket=bucket)
    return len(unfinished.get("Uploads", ())) == len(KINDS)


KINDS = ("declared", "chunked")


class _Halfway:
    """A client that has sent half of its body."""

    def __init__(self, connection: RawConnection, kind: str) -> None:
        self._connection = connection
        self._chunked = kind == "chunked"

    async def send(self, size: int) -> None:
        content = b"n" * size
        if self._chunked:
            content = b"%x\r\n%b\r\n" % (size, content)
        await self._connection.send(content)

    async def rest(self) -> int:
        """Send the other half, as fast as the gateway takes it; return the status."""
        await self.send(LARGE - LARGE // 2)
        if self._chunked:
            await self._connection.send(b"0\r\n\r\n")
        async with asyncio.timeout(120):
            line = await self._connection.reader.readline()
        return int(line.split()[1])


@asynccontextmanager
async def _halfway(gateway: GatewayProcess, kind: str) -> AsyncIterator[_Halfway]:
    length = "Transfer-Encoding: chunked" if kind == "chunked" else f"Content-Length: {LARGE}"
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", f"/upload/{kind}", length, f"X-Tag: {gateway.directory.stem} {kind}")
        )
        client = _Halfway(connection, kind)
        await client.send(LARGE // 2)
        yield client


async def test_half_a_gigabyte_passes_through_little_memory(
    gateway_process: StartProcess, tmp_path: Path, s3_storage: str
) -> None:
    gateway = gateway_process("--storage", s3_storage)
    before, size = _peak(gateway), 512 << 20
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/big", f"Content-Length: {size}"))
        piece = os.urandom(1 << 20)
        for _ in range(size >> 20):
            await connection.send(piece)
        assert (await connection.answer()).status == 201
    assert _peak(gateway) - before < 40 << 20


def _peak(gateway: GatewayProcess) -> int:
    """Return the most memory that a gateway ever had, in bytes."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return peak << 10
