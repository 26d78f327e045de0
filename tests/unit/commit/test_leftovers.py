"""What a batch could not clean up is tried again, and a start never undoes an answered upload."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.disk import RenameLock
from gateway.commit.recover import Recovered, recover
from gateway.domain.grant import Grant
from gateway.errors import Refusal, UnknownOutcome
from tests.support.committer import CommitterHarness
from tests.support.records import result_of

UNLINK = os.unlink


def refuse_unlink(name: str, *, dir_fd: int | None = None) -> None:
    """Fail as a dying disk does, for private names only."""
    if dir_fd is not None and "/incoming/" in os.readlink(f"/proc/self/fd/{dir_fd}"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    UNLINK(name, dir_fd=dir_fd)


def recover_now(harness: CommitterHarness) -> Recovered:
    return recover(harness.incoming, harness.journal, harness.once)


async def commit_new(harness: CommitterHarness, **fields: Any) -> str:
    """Commit a file that may replace none: it has two names for a moment."""
    return (await harness.commit("/x", on_conflict="reject", **fields)).upload_id


async def test_an_answered_upload_whose_private_name_stays_is_not_undone_by_a_start(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = Grant("PUT", "/x", 1 << 40, once="nonce")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse_unlink)
        upload_id = await commit_new(harness, grant=grant)
    assert harness.bodies() == [upload_id]
    (harness.root / "x").unlink()  # somebody moved it away: the private name is its only one

    assert recover_now(harness) == Recovered(1, 0, 1)
    assert harness.deliveries() == [("/x", "ready")]
    with pytest.raises(Refusal):
        harness.once.check_unused("nonce")
    assert harness.bodies() == []
    assert result_of(harness.journal.published_notes.find([upload_id])) == set()


async def test_a_private_name_that_stays_is_removed_before_the_next_batch(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse_unlink)
        upload_id = await commit_new(harness)
        await harness.commit("/y")
        assert harness.bodies() == [upload_id]
        assert result_of(harness.journal.published_notes.find([upload_id])) == {upload_id}
    await harness.commit("/z")
    assert harness.bodies() == []
    assert result_of(harness.journal.published_notes.find([upload_id])) == set()


async def test_an_upload_whose_private_name_stays_without_a_note_is_not_answered(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse_unlink)
        patch.setattr(harness.journal.published_notes, "add", broken)
        with pytest.raises(UnknownOutcome):
            await commit_new(harness)
    await harness.commit("/y")
    assert harness.bodies() == []
    assert sorted(harness.stored()) == ["x", "y"]


async def test_a_lock_that_fails_leaves_no_row_and_no_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    lock = RenameLock(tmp_path)
    harness = CommitterHarness(tmp_path, lock)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", no_locks)
            with pytest.raises(Refusal) as refused:
                await harness.commit("/x")
        assert refused.value.code == "internal"
        assert (harness.bodies(), harness.stored(), harness.deliveries()) == ([], {}, [])
        await harness.commit("/x")
        assert await harness.claimable() == ["/x"]
    finally:
        harness.close()
        lock.close()


async def test_a_released_url_whose_sync_failed_is_synced_later(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is gone by then; without a sync a power loss would bring it back."""
    syncs: list[int] = []

    def broken(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    def sync() -> None:
        syncs.append(1)
        if len(syncs) == 2:  # the first made the use durable
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(harness.once, "sync", sync)
    with monkeypatch.context() as patch:
        patch.setattr(harness.journal.outbox, "record_uploads_now", broken)
        with pytest.raises(Refusal):
            await harness.commit("/x", grant=Grant("PUT", "/x", 1 << 40, once="nonce"))
    assert len(syncs) == 2
    await harness.commit("/y")
    assert len(syncs) == 3
