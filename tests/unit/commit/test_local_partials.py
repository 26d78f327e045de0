"""Partial uploads and the committer: whatever fails, no byte that was told is lost, and no row stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from gateway.commit import local_open_partial, partial_expiry, publish
from gateway.commit.local_open_partial import LocalOpenPartial
from gateway.commit.partials import PartialBusy
from gateway.commit.recover import Recovered, absorb_slots, recover
from gateway.domain.grant import Grant
from gateway.domain.partial import MAX_PARTIAL_AGE
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.journal import Journal
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.partial_opening import create_partial
from gateway.storage.local.state_dir import StateDirectory
from tests.support.committer import CommitterHarness
from tests.support.partials import partial_head
from tests.support.records import result_of, upload_record

SIZE = 2_000_000
BODY = os.urandom(SIZE)


async def whole(harness: CommitterHarness, **fields: Any) -> LocalOpenPartial:
    """Return a partial upload all of whose bytes have come."""
    opened = await harness.partial_store().create(partial_head(length=SIZE, path="/x", **fields))
    await opened.begin(SIZE)
    await opened.write(BODY)
    await opened.settle()
    return opened


def fails(error: Exception) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return failing


def in_future(error: Exception) -> Callable[..., Future[Any]]:
    """Return a method of the journal that fails."""

    def failing(*_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(error)
        return future

    return failing


async def test_a_name_that_cannot_be_given_brings_the_body_back_and_deletes_the_row(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = Grant("PUT", "/x", 1 << 40, once="nonce")
    opened = await whole(harness, grant=grant)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "replace", fails(OSError(28, "no space left")))
        with pytest.raises(Refusal) as caught:
            await opened.commit({})
    assert caught.value.code == "no_space"
    assert (harness.bodies(), harness.deliveries()) == ([], [])
    harness.once.check_unused("nonce")
    assert opened.offset == SIZE
    await opened.commit({})
    assert harness.stored() == {"x": BODY}
    assert list(harness.partials.names()) == ["identities"]
    with pytest.raises(Refusal):
        harness.once.check_unused("nonce")


async def test_a_row_that_cannot_be_deleted_keeps_every_byte_and_holds_the_upload_until_it_is(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, opened = harness.partial_store(), await whole(harness)
    upload_id, outbox = opened.head.upload.id, harness.journal.outbox
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "forget_uploads", in_future(sqlite3.OperationalError("disk I/O error")))
        patch.setattr(publish, "replace", fails(OSError(28, "no space left")))
        with pytest.raises(Refusal):
            await opened.commit({})
        await opened.close()
        assert harness.bodies() == [upload_id]
        assert harness.incoming.stat(upload_id).st_size == SIZE
        with pytest.raises(PartialBusy):
            await store.open(upload_id)
        status = await store.status(upload_id)
        assert status is not None
        assert status.is_whole
        assert len(harness.deliveries()) == 1
    reopened = await store.open(upload_id)  # the row can be deleted now
    assert (harness.bodies(), harness.deliveries()) == ([], [])
    await reopened.commit({})
    assert harness.stored() == {"x": BODY}
    assert harness.deliveries() == [("/x", "ready")]


async def test_a_start_deletes_the_row_and_gives_the_body_back(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = Grant("PUT", "/x", 1 << 40, once="nonce")
    opened = await whole(harness, grant=grant)
    upload_id = opened.head.upload.id
    with monkeypatch.context() as patch:
        patch.setattr(
            harness.journal.outbox, "forget_uploads", in_future(sqlite3.OperationalError("broken"))
        )
        patch.setattr(publish, "replace", fails(OSError(5, "the disk is dying")))
        with pytest.raises(Refusal):
            await opened.commit({})
    await opened.close()
    harness.once.consume("nonce", upload_id, 1 << 40)  # as after a kill before its release
    plain = harness.incoming_folder / "plain"
    plain.write_bytes(b"left")
    assert recover(harness.incoming, harness.journal, harness.once) == Recovered(1, 1, 0, 1)
    harness.once.check_unused("nonce")
    assert (harness.bodies(), harness.deliveries()) == ([], [])
    reopened = await harness.partial_store().open(upload_id)
    assert reopened.offset == SIZE
    digests = await reopened.digest_of_whole(["sha256"])
    assert digests == {"sha256": hashlib.sha256(BODY).digest()}
    await reopened.close()


async def test_one_whose_publication_is_in_doubt_is_not_told_and_not_offered_again(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await whole(harness)
    upload_id, real = opened.head.upload.id, os.fsync

    def fsync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(harness.root):
            raise OSError(5, "the disk is dying")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UnknownOutcome):
            await opened.commit({})
    await opened.close()
    assert harness.stored() == {"x": BODY}
    assert await harness.partial_store().status(upload_id) is None
    harness.partials.remove_rests()
    assert list(harness.partials.names()) == ["identities"]


async def test_a_commit_whose_caller_is_cancelled_ends_all_the_same(harness: CommitterHarness) -> None:
    opened = await whole(harness)
    committing = asyncio.create_task(opened.commit({}))
    await asyncio.sleep(0)
    committing.cancel()
    await asyncio.wait({committing})
    assert committing.cancelled()
    assert harness.stored() == {"x": BODY}
    assert list(harness.partials.names()) == ["identities"]


async def test_a_creation_whose_caller_is_cancelled_is_not_held_open(harness: CommitterHarness) -> None:
    store, head = harness.partial_store(), partial_head(length=SIZE)
    creating = asyncio.create_task(store.create(head))
    await asyncio.sleep(0)
    creating.cancel()
    await asyncio.wait({creating})
    while True:
        try:
            opened = await store.open(head.upload.id)
            break
        except (Refusal, PartialBusy):
            await asyncio.sleep(0.01)  # its thread has not ended yet: there is no event to wait for
    await opened.remove()


async def test_space_is_promised_only_to_what_a_request_still_brings(harness: CommitterHarness) -> None:
    store = harness.partial_store()
    opened = await store.create(partial_head(length=1 << 30))
    assert harness.space.reserved == 0
    await opened.begin(SIZE)
    assert harness.space.reserved == SIZE
    await opened.write(BODY)
    await opened.settle()
    assert harness.space.reserved == 0
    await opened.begin(SIZE)
    await opened.revert()
    assert harness.space.reserved == 0
    await opened.begin(SIZE)
    await opened.close()
    assert harness.space.reserved == 0
    assert store._writer.buffers.used == 0
    with pytest.raises(Refusal) as caught:
        await store.create(partial_head(length=1 << 60))
    assert caught.value.code == "no_space"


async def test_what_a_failed_write_leaves_is_settled_and_told(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = harness.partial_store()
    opened = await store.create(partial_head(length=SIZE))
    await opened.begin(SIZE)
    await opened.write(BODY[: SIZE // 2])
    await opened.finish()
    await opened.write(BODY[SIZE // 2 : SIZE // 2 + 10])
    with monkeypatch.context() as patch:
        patch.setattr(opened._file, "write", fails(OSError(28, "no space left")))
        with pytest.raises(Refusal):
            await opened.settle()
    assert (opened.offset, opened.received) == (SIZE // 2, SIZE // 2)
    await opened.begin(SIZE // 2)
    await opened.write(BODY[SIZE // 2 :])
    await opened.settle()
    await opened.commit({})
    assert harness.stored() == {"upload/x.bin": BODY}


async def test_a_digest_is_read_back_in_pieces(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_open_partial, "HASH_BYTES", 100_000)
    opened = await whole(harness)
    first = await opened.digest_of_whole(["crc32"])
    assert await opened.digest_of_whole(["crc32"]) == first
    await opened.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    opened = StateDirectory(tmp_path / ".gateway")
    opened.prepare()
    opened.lock.acquire()
    yield opened
    opened.lock.release()


def test_a_slot_that_no_process_serves_any_more_gives_its_bodies_back(
    state: StateDirectory, journal: Journal
) -> None:
    orphan, partials = StateDirectory(state.folder, 1), PartialDirectory(state.partials)
    orphan.prepare()
    file = create_partial(partials, partial_head(length=5), 0o640, 0o022)
    file.begin(unchecked=False)
    file.write([b"12345"])
    incoming = IncomingDirectory(orphan.incoming, partials)
    file.move_to(incoming, None)
    file.close()
    incoming.close()
    left = Journal(orphan.journal)
    left.open()
    result_of(left.outbox.record_uploads([upload_record(file.upload_id)]))
    left.close()
    assert absorb_slots(state, journal, 1) == 0
    assert not orphan.incoming.exists()
    status = partials.status(file.upload_id)
    assert status is not None
    assert status.is_whole
    assert partials.remove_rests() == 0
    partials.close()


async def test_an_upload_whose_head_cannot_be_read_is_removed_after_a_week(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_expiry, "CONFIRM_INTERVAL", 0.0)
    store, opened = harness.partial_store(), await whole(harness)
    await opened.close()
    (harness.root.parent / "partials" / f"{opened.head.upload.id}.json").write_bytes(b"torn")
    now = time.time()
    for later in (0.0, MAX_PARTIAL_AGE - 60, MAX_PARTIAL_AGE - 60, MAX_PARTIAL_AGE + 60):
        assert [status async for status in store.remove_expired(now + later)] == []
    assert len(list(harness.partials.upload_ids())) == 1
    assert [status async for status in store.remove_expired(now + MAX_PARTIAL_AGE + 60)] == []
    assert list(harness.partials.names()) == ["identities"]
