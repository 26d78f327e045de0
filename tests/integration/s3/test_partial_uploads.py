"""Partial uploads in a bucket of several gateways: who goes on, who is replaced, what is kept."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.objects.backend import ObjectBackend
from gateway.commit.objects.body import ObjectCommit
from gateway.commit.objects.committer import ObjectCommitter
from gateway.commit.partials import OpenPartial, PartialBusy, PartialLost
from gateway.domain.model import UPLOADED
from gateway.domain.partial import PARTIAL_TTL
from gateway.errors import Refusal
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.s3 import multiparts
from gateway.storage.s3.parts import PART_BYTES
from gateway.storage.s3.retries import RequestRetrier
from tests.conftest import StartGateway
from tests.support.harness import wait_until
from tests.support.partials import StorePartials, partial_head
from tests.support.recorders import recording_events
from tests.support.resumable import append as append_as_draft
from tests.support.resumable import request
from tests.support.s3.servers import Rclone, SeaweedFS

pytestmark = pytest.mark.slow

LARGE = 20_000_000


@pytest.fixture
async def pair(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> tuple[StorePartials, StorePartials]:
    """Two gateways, each with a directory of its own, on one bucket."""
    first, second = [
        StorePartials(await start_gateway(storage=s3_storage, directory=str(tmp_path / name)))
        for name in ("first", "second")
    ]
    return first, second


def backend_of(partials: StorePartials) -> ObjectBackend:
    backend = partials.gateway.resources.parts.backend
    assert backend is not None
    return backend


def write_key(folder: Path) -> Path:
    path = folder / "installation.key"
    path.write_text("k" * 64)
    path.chmod(0o600)
    return path


def representation_digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


async def append(opened: OpenPartial, body: bytes) -> int:
    await opened.begin(len(body))
    await opened.write(body)
    return await opened.settle()


@pytest.mark.parametrize("size", [1000, PART_BYTES, 2 * PART_BYTES, LARGE])
async def test_an_upload_goes_on_at_another_gateway(
    pair: tuple[StorePartials, StorePartials], size: int
) -> None:
    first, second = pair
    body, middle = os.urandom(size), size // 2
    opened = await first.store.create(partial_head(length=size))
    upload_id = opened.head.upload.id
    await append(opened, body[:middle])
    await opened.close()

    opened = await second.store.open(upload_id)
    assert opened.offset == middle
    await append(opened, body[middle:])
    await opened.close()

    opened = await first.store.open(upload_id)
    assert (opened.offset, await first.visible()) == (size, {})
    assert (await opened.commit({})).bytes == size
    assert await second.visible() == {"/upload/x.bin": body}
    assert await second.left() == []
    assert await second.store.status(upload_id) is None


async def test_what_a_key_has_stored_is_not_begun_anew_by_a_request_that_is_sent_again(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    partials = StorePartials(await start_gateway(storage=s3_storage, on_conflict="rename"))
    target = "/upload/x.bin?resume=0123456789abcdef&begin=once"
    answers = [await request(partials.gateway, "PUT", target, body=b"body") for _ in range(2)]
    assert [(answer.status, answer.complete) for answer in answers] == [(201, "?1"), (409, "?1")]
    assert await partials.visible() == {"/upload/x.bin": b"body"}


@pytest.mark.parametrize("settled", [5, PART_BYTES], ids=["a tail", "no tail"])
@pytest.mark.parametrize("more", [5, PART_BYTES, LARGE])
async def test_who_is_replaced_learns_it_and_spoils_nothing(
    pair: tuple[StorePartials, StorePartials], settled: int, more: int
) -> None:
    """A client that stalls at one gateway has come back at the other one."""
    first, second = pair
    size = settled + more + 5
    body = os.urandom(size)
    stalled = await first.store.create(partial_head(length=size))
    upload_id = stalled.head.upload.id
    await append(stalled, body[:settled])
    await stalled.begin(None)
    await stalled.write(body[settled : settled + more])

    current = await second.store.open(upload_id)
    assert current.offset == settled
    await current.begin(None)
    with pytest.raises(PartialLost):
        await stalled.settle()
    assert stalled.offset == settled
    await stalled.close()
    await current.write(body[settled:])
    assert await current.settle() == size
    await current.commit({})
    assert await first.visible() == {"/upload/x.bin": body}
    assert await first.left() == []


async def test_the_bytes_of_who_was_replaced_are_never_part_of_the_file(
    pair: tuple[StorePartials, StorePartials],
) -> None:
    """Parts have numbers, which both use: what counts is the tag in the state."""
    first, second = pair
    other = await first.store.create(partial_head(length=2 * PART_BYTES + 5))
    current = await second.store.open(other.head.upload.id)
    body = os.urandom(2 * PART_BYTES + 5)
    await append(current, body[:PART_BYTES])
    await other.begin(None)
    with pytest.raises(PartialLost):
        await append(other, bytes(PART_BYTES))
    await other.close()
    try:
        await append(current, body[PART_BYTES:])
        await current.commit({})
        assert await first.visible() == {"/upload/x.bin": body}
    except Refusal:  # a store that keeps the latest part only refuses the tag of another
        assert await first.visible() == {}


async def test_of_two_that_append_at_once_one_counts(
    pair: tuple[StorePartials, StorePartials],
) -> None:
    first, second = pair
    created = await first.store.create(partial_head(length=10))
    upload_id = created.head.upload.id
    await created.close()
    opened = [await first.store.open(upload_id), await second.store.open(upload_id)]
    outcomes = await asyncio.gather(
        append(opened[0], b"aaaaa"), append(opened[1], b"bbbbb"), return_exceptions=True
    )
    assert sorted(isinstance(outcome, PartialLost) for outcome in outcomes) == [False, True]
    for one in opened:
        await one.close()
    winner = b"aaaaa" if outcomes[0] == 5 else b"bbbbb"
    last = await second.store.open(upload_id)
    await append(last, b"ccccc")
    await last.commit({})
    assert await first.visible() == {"/upload/x.bin": winner + b"ccccc"}


async def test_one_that_was_cancelled_elsewhere_is_lost(
    pair: tuple[StorePartials, StorePartials],
) -> None:
    first, second = pair
    opened = await first.store.create(partial_head(length=LARGE))
    await opened.begin(None)
    await opened.write(bytes(100))
    cancelling = await second.store.open(opened.head.upload.id)
    await cancelling.remove()
    with pytest.raises(PartialLost):
        await opened.settle()
    await opened.close()
    assert await first.left() == []


async def test_a_commit_that_never_claimed_the_upload_emits_nothing(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One gateway died after its row was written; another one has published the upload since."""
    with recording_events() as recorder:
        plugins = recorder.write_handler(tmp_path / "plugins", UPLOADED, "hears")
        first, second = [
            StorePartials(
                await start_gateway(storage=s3_storage, directory=str(tmp_path / name), plugins=plugins)
            )
            for name in ("first", "second")
        ]
        opened = await first.store.create(partial_head(length=LARGE))
        body = os.urandom(LARGE)
        await append(opened, body)
        rows: list[PendingUpload] = []

        async def die(self: ObjectCommitter, commit: ObjectCommit) -> str:
            rows.append(commit.row)
            raise RuntimeError("died")

        with monkeypatch.context() as patched:
            patched.setattr(ObjectCommitter, "_publish", die)
            with pytest.raises(RuntimeError):
                await opened.commit({})
        await opened.close()
        opened = await second.store.open(opened.head.upload.id)
        await opened.commit({})
        await recorder.next_event()

        reconciler, journal = backend_of(first).reconciler, first.gateway.resources.journal
        reconciler.add(rows[0])  # as the next start does

        async def forgotten() -> bool:
            is_recorded = await journal.outbox.has_recorded(rows[0].upload_id, rows[0].path)
            return not is_recorded and rows[0].upload_id not in reconciler

        await wait_until(forgotten)
        assert recorder.is_empty()
    assert await second.visible() == {"/upload/x.bin": body}


async def test_an_append_of_a_part_costs_few_requests(
    pair: tuple[StorePartials, StorePartials], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = pair
    opened = await first.store.create(partial_head(length=3 * PART_BYTES))
    await opened.close()
    operations: list[str] = []
    retry = RequestRetrier.retry

    async def count(self: RequestRetrier, operation: str, *values: Any, **more: Any) -> Any:
        operations.append(operation)
        return await retry(self, operation, *values, **more)

    monkeypatch.setattr(RequestRetrier, "retry", count)
    for number in range(3):
        operations.clear()
        opened = await first.store.open(opened.head.upload.id)
        assert await append(opened, bytes(PART_BYTES)) == (number + 1) * PART_BYTES
        await opened.close()
        if number:  # with the first one it is tried whether the store honours If-Match
            assert operations == [
                "reading an object of the gateway",  # the state
                "sending a part",
                "storing an object of the gateway",
            ]


async def test_processes_of_one_gateway_exclude_each_other(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    """Their hand-over asks the other one to let go, which gateways cannot."""
    shared = str(tmp_path / "data")
    partials = StorePartials(await start_gateway(storage=s3_storage, directory=shared))
    opened = await partials.store.create(partial_head(length=10))
    code = (
        "import sys; from pathlib import Path; from gateway.storage.local.named_locks import NamedLocks;"
        "sys.exit(NamedLocks(Path(sys.argv[1])).try_acquire(sys.argv[2]))"
    )
    lock = str(Path(shared) / ".gateway" / "partials.lock")

    async def acquired_elsewhere() -> bool:
        python = await asyncio.create_subprocess_exec("python", "-c", code, lock, opened.head.upload.id)
        return bool(await python.wait())

    assert not await acquired_elsewhere()
    await opened.close()
    assert await acquired_elsewhere()


async def test_no_sweep_aborts_what_is_kept(
    pair: tuple[StorePartials, StorePartials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload may lie for a day without a part, the one of a gateway that died may not."""
    first, second = pair
    body = os.urandom(LARGE)
    opened = await first.store.create(partial_head(length=LARGE))
    await append(opened, body[: LARGE // 2])
    await opened.close()
    objects = backend_of(first).objects
    left = await objects.create_multipart("a prefix/upload/left", {})
    monkeypatch.setattr(multiparts, "MULTIPART_TTL", timedelta(seconds=-3600))
    for partials in (first, second):
        await backend_of(partials)._sweeper.sweep()
    assert not await objects.is_multipart_open("a prefix/upload/left", left)
    opened = await second.store.open(opened.head.upload.id)
    await append(opened, body[LARGE // 2 :])
    await opened.commit({})
    assert await first.visible() == {"/upload/x.bin": body}


async def test_gateways_that_sweep_at_once_remove_an_upload_once(
    pair: tuple[StorePartials, StorePartials],
) -> None:
    first, second = pair
    opened = await first.store.create(partial_head(length=LARGE, identity="mine"))
    await append(opened, os.urandom(LARGE // 2))
    await opened.close()
    now = time.time() + PARTIAL_TTL + 60

    async def sweep(partials: StorePartials) -> list[str]:
        return [status.head.upload.id async for status in partials.store.remove_expired(now)]

    removed = await asyncio.gather(sweep(first), sweep(second))
    assert sorted(map(len, removed)) in ([0, 1], [1, 1])
    assert await first.left() == []
    assert await first.store.resolve("mine") is None


async def test_the_name_of_a_completed_upload_is_known_for_a_day(
    pair: tuple[StorePartials, StorePartials],
) -> None:
    first, second = pair
    opened = await first.store.create(partial_head(length=1, identity="mine"))
    await append(opened, b"x")
    await opened.commit({})
    for later, expected in ((PARTIAL_TTL - 60, opened.head.upload.id), (PARTIAL_TTL + 60, None)):
        assert [_ async for _ in second.store.remove_expired(time.time() + later)] == []
        assert await second.store.resolve("mine") == expected


async def test_what_an_interrupted_creation_left_goes_with_a_sweep(
    pair: tuple[StorePartials, StorePartials], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = pair
    opened = await first.store.create(partial_head(length=LARGE))
    await opened.close()
    private = backend_of(first).partials.objects
    await private.delete(f"{opened.head.upload.id}.json")
    await backend_of(first).partials._store.put_head(partial_head(length=1))  # without a state
    backend_of(first).partials._store._heads.clear()
    assert [_ async for _ in first.store.remove_expired(time.time() + PARTIAL_TTL + 60)] == []
    assert await first.left() == []


async def test_objects_of_the_gateway_are_never_listed_or_read(
    pair: tuple[StorePartials, StorePartials],
) -> None:
    first, _ = pair
    opened = await first.store.create(partial_head(length=10, identity="mine"))
    await append(opened, b"12345")
    storage = first.gateway.resources.parts.storage
    for prefix in ("", "/", "/.gateway/", "/.g"):
        assert [stat.path async for stat in storage.list(prefix)] == []
    for name in (opened.head.upload.id, f"{opened.head.upload.id}.json", "r-mine"):
        with pytest.raises(Refusal):
            await storage.stat(f"/.gateway/partials/{name}")
    await opened.close()


async def test_renamed_uploads_of_several_requests_all_stay(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    partials = StorePartials(await start_gateway(storage=s3_storage))
    bodies = [os.urandom(size) for size in (LARGE, LARGE, 1000)]
    opened = []
    for body in bodies:
        one = await partials.store.create(partial_head(length=len(body), on_conflict="rename"))
        await append(one, body[:100])
        await one.close()
        opened.append(one.head.upload.id)
    paths = {}
    for upload_id, body in zip(opened, bodies, strict=True):
        one = await partials.store.open(upload_id)
        await append(one, body[100:])
        paths[(await one.commit({})).path] = body
    assert await partials.visible() == paths
    assert len(paths) == 3


async def test_digests_of_the_whole_are_verified_over_gateways_and_kept(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    """S3 returns no byte of an unfinished upload, so states of digests lie in that of the upload."""
    gateways = [
        await start_gateway(
            storage=s3_storage,
            directory=str(tmp_path / name),
            auth="none",
            digest="md5",
            installation_key_file=str(write_key(tmp_path)),
        )
        for name in ("first", "second")
    ]
    body = os.urandom(LARGE)
    right, wrong = (representation_digest(content) for content in (body, b"other"))
    for expected, status in ((right, 201), (wrong, 400)):
        length = f"Upload-Length: {LARGE}"
        lines = ("Upload-Complete: ?0", length, f"Repr-Digest: {expected}")
        created = await request(gateways[0], "POST", "/upload/x", *lines, body=body[:5])
        assert created.status == 201
        middle = await append_as_draft(gateways[1], created.resource, 5, body[5:9_000_000])
        assert middle.status == 204
        last = await append_as_draft(
            gateways[0], created.resource, 9_000_000, body[9_000_000:], end=True
        )
        assert last.status == status
        if status == 201:
            md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            assert f"md5=:{md5}:" in last.final.json["digest"]
    assert last.final.json["error"] == "digest_mismatch"


async def test_a_digest_that_cannot_be_verified_is_refused_before_its_body(
    start_gateway: StartGateway, s3_storage: str
) -> None:
    gateway = await start_gateway(storage=s3_storage, auth="none")
    lines = ("Upload-Complete: ?0", "Upload-Length: 10")
    created = await request(gateway, "POST", "/upload/x", *lines, body=b"12345")
    digest = f"Repr-Digest: {representation_digest(b'1234567890')}"
    refused = await append_as_draft(gateway, created.resource, 5, b"67890", digest, end=True)
    assert (refused.status, refused.offset) == (400, 5)
    stored = await append_as_draft(gateway, created.resource, 5, b"67890", end=True)
    assert stored.status == 201


@pytest.fixture
async def unfenced(
    start_gateway: StartGateway, rclone: Rclone, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> StorePartials:
    await rclone.make(bucket)
    rclone.set_environment(monkeypatch)
    return StorePartials(await start_gateway(storage=f"s3://{bucket}/a prefix"))


async def test_a_store_without_conditions_is_reported_once_and_serves_one_gateway(
    unfenced: StorePartials, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="gateway.storage"):
        opened = await unfenced.store.create(partial_head(length=10))
        await append(opened, b"12345")
        with pytest.raises(PartialBusy):
            await unfenced.store.open(opened.head.upload.id)
        await append(opened, b"67890")
        await opened.commit({})
    warnings = [record.message for record in caplog.records if "If-Match" in record.message]
    assert len(warnings) == 1
    assert "`upload`" in warnings[0]
    assert await unfenced.visible() == {"/upload/x.bin": b"1234567890"}


async def test_a_storage_that_is_away_costs_no_offset(
    start_gateway: StartGateway, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.s3.private_objects.RETRY_TIMEOUT", 0.5)
    with SeaweedFS(tmp_path / "own") as own:
        own.set_environment(monkeypatch)
        await own.make(bucket)
        partials = StorePartials(await start_gateway(storage=f"s3://{bucket}/a prefix"))
        opened = await partials.store.create(partial_head(length=10))
        await append(opened, b"12345")
        own.kill()
        with pytest.raises(Refusal) as caught:
            await append(opened, b"67890")
        assert caught.value.code == "storage_unavailable"
        assert opened.offset == 5
        await opened.close()
        await asyncio.to_thread(own.start)
        opened = await partials.store.open(opened.head.upload.id)
        assert opened.offset == 5
        await append(opened, b"67890")
        await opened.commit({})
        assert await partials.visible() == {"/upload/x.bin": b"1234567890"}
