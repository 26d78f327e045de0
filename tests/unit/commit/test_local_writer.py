"""The writer of a local directory: what it buffers, reserves and leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.commit import batched_write
from gateway.commit.local_writer import LocalWriter
from gateway.domain.model import Upload, new_id
from gateway.errors import Refusal
from gateway.storage.local.incoming import IncomingFile
from tests.support.committer import TIMEOUT, CommitterHarness

KIB = 1 << 10


@pytest.fixture
def writer(harness: CommitterHarness) -> LocalWriter:
    return LocalWriter(harness.local_disk, harness.committer, 0o640)


def upload(path: str = "/x", length: int | None = None, **fields: Any) -> Upload:
    return Upload(new_id(0), path, content_length=length, **fields)


class HeldWrites:
    """Holds every write to an incoming file until `go_on` is set; `entered` says that one waits."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.entered, self.go_on = asyncio.Event(), threading.Event()
        loop, write = asyncio.get_running_loop(), IncomingFile.write

        def held(file: IncomingFile, pieces: Any) -> None:
            loop.call_soon_threadsafe(self.entered.set)
            assert self.go_on.wait(TIMEOUT)
            write(file, pieces)

        patch.setattr(IncomingFile, "write", held)


@pytest.mark.parametrize("length", [5, None], ids=["declared", "chunked"])
async def test_a_small_body_has_no_file_before_its_commit(
    harness: CommitterHarness, writer: LocalWriter, length: int | None
) -> None:
    pending = await writer.begin(upload(length=length))
    await pending.write(b"sm")
    await pending.write(b"all")
    await pending.finish()
    assert harness.bodies() == []
    stored = await pending.commit({}, from_client=True)
    assert (stored.bytes, harness.stored()) == (5, {"x": b"small"})
    assert harness.space.reserved == 0


async def test_a_buffered_body_is_stored_in_one_call(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    stored = await writer.store(upload("/a/x"), b"small", from_client=True)
    assert (stored.path, harness.stored()) == ("/a/x", {"a/x": b"small"})
    assert await harness.claimable() == ["/a/x"]


async def test_what_a_script_stores_is_no_upload_of_a_client(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    await writer.store(upload(), b"small", from_client=False)
    assert harness.deliveries() == []


async def test_a_large_body_is_written_in_batches_and_its_memory_released(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    pending = await writer.begin(upload())
    for _ in range(40):
        await pending.write(b"z" * 64 * KIB)
        assert writer.buffers.used <= batched_write.MAX_BATCH_BYTES
    assert len(harness.bodies()) == 1
    await pending.finish()
    assert writer.buffers.used == 0
    assert (await pending.commit({}, from_client=True)).bytes == 40 * 64 * KIB


async def test_many_tiny_chunks_are_written_before_they_cost_much(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    pending = await writer.begin(upload())
    for _ in range(batched_write.MAX_CHUNKS):
        await pending.write(b"z")
    assert writer.buffers.used == 0
    await pending.discard()
    assert harness.bodies() == []


async def test_with_much_in_memory_batches_are_smaller(
    writer: LocalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched_write, "MAX_BUFFERED_BYTES", 100 * KIB)
    first, second = await writer.begin(upload("/a")), await writer.begin(upload("/b"))
    await first.write(b"z" * 60 * KIB)
    await second.write(b"z" * 60 * KIB)
    assert writer.buffers.used == 120 * KIB
    await second.write(b"z" * 5 * KIB)  # above the smaller batch now
    assert writer.buffers.used == 60 * KIB
    await first.discard()
    await second.discard()
    assert writer.buffers.used == 0


async def test_a_target_is_refused_before_space_is_reserved(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    await harness.commit("/x")
    for fields, code in (
        ({"on_conflict": "reject"}, "conflict"),
        ({"must_be_new": True}, "already_exists"),
    ):
        with pytest.raises(Refusal) as refused:
            await writer.begin(upload(length=1 << 60, **fields))
        assert refused.value.code == code
    with pytest.raises(Refusal) as refused:
        await writer.begin(upload("/y", length=1 << 60), must_exist=True)
    assert refused.value.code == "precondition_failed"
    with pytest.raises(Refusal) as refused:
        await writer.begin(upload(length=1 << 60))
    assert refused.value.code == "no_space"
    assert harness.space.reserved == 0


async def test_a_discarded_body_releases_its_space_and_its_memory(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    pending = await writer.begin(upload(length=1000))
    await pending.write(b"z" * 100)
    assert (harness.space.reserved, writer.buffers.used) == (1000, 100)
    await pending.discard()
    assert (harness.space.reserved, writer.buffers.used) == (0, 0)


async def test_a_cancelled_begin_releases_the_space_that_it_reserves_meanwhile(
    harness: CommitterHarness, writer: LocalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, entered, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    reserve = harness.space.reserve

    def held(size: int | None, client: str) -> object:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(TIMEOUT)
        return reserve(size, client)

    monkeypatch.setattr(harness.space, "reserve", held)
    beginning = asyncio.create_task(writer.begin(upload(length=1000)))
    await entered.wait()
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    go_on.set()
    await asyncio.to_thread(harness.disk.shutdown)
    await asyncio.sleep(0)  # the loop learns that the thread has ended
    assert harness.space.reserved == 0


async def test_a_cancelled_write_ends_when_its_thread_has_left_the_body(
    harness: CommitterHarness, writer: LocalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = await writer.begin(upload())
    with monkeypatch.context() as patch:
        held = HeldWrites(patch)
        writing = asyncio.create_task(pending.write(b"z" * 2 * batched_write.MAX_BATCH_BYTES))
        await held.entered.wait()
        writing.cancel()
        done, _ = await asyncio.wait({writing}, timeout=0.05)
        assert done == set()
        held.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    await pending.discard()
    assert (harness.bodies(), writer.buffers.used) == ([], 0)


async def test_a_discard_waits_for_the_thread_that_still_writes(
    harness: CommitterHarness, writer: LocalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a script on a loop of its own is cancelled: its discard comes beside the write."""
    pending = await writer.begin(upload(length=3 * batched_write.MAX_BATCH_BYTES))
    with monkeypatch.context() as patch:
        held = HeldWrites(patch)
        writing = asyncio.create_task(pending.write(b"z" * 2 * batched_write.MAX_BATCH_BYTES))
        await held.entered.wait()
        discarding = asyncio.create_task(pending.discard())
        done, _ = await asyncio.wait({discarding}, timeout=0.05)
        assert done == set()
        held.go_on.set()
        await asyncio.gather(writing, discarding)
    assert (harness.bodies(), harness.space.reserved, writer.buffers.used) == ([], 0, 0)


@pytest.mark.parametrize("wrap", [bytes, memoryview], ids=["bytes", "view"])
async def test_a_thread_appends_past_the_loop(
    harness: CommitterHarness, writer: LocalWriter, wrap: Callable[[bytes], Any], tmp_path: Path
) -> None:
    pending = await writer.begin(upload(length=6), ["sha256"])
    await asyncio.shield(
        pending.threaded.start_in_thread(
            lambda: pending.append((wrap(b"abc"), wrap(b"def"))), harness.disk
        )
    )
    await pending.finish()
    assert pending.digest("sha256").hex().startswith("bef57ec7f53a6d40")
    assert harness.space.reserved == 0
    await pending.commit({}, from_client=True)
    assert harness.stored() == {"x": b"abcdef"}
