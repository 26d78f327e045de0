"""The rename lock: many processes publish files at once, one removes files alone."""

from __future__ import annotations

import asyncio
import fcntl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.commit.disk import RenameLock
from gateway.errors import Refusal, Superseded
from tests.support.committer import CommitterHarness

SECONDS = 30.0


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[tuple[RenameLock, RenameLock, RenameLock]]:
    """The locks of three processes: flocks belong to the descriptors, which are opened apart."""
    opened = RenameLock(tmp_path), RenameLock(tmp_path), RenameLock(tmp_path)
    yield opened
    for lock in opened:
        lock.close()


def until_locked(lock: Path) -> None:
    """Wait until a flock is held exclusively."""
    deadline = time.monotonic() + SECONDS
    with lock.open("rb") as probe:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(probe, fcntl.LOCK_UN)
            time.sleep(0.01)
    raise AssertionError(f"nobody locked {lock.name}")


def test_the_shared_lock_has_several_holders_at_once(
    locks: tuple[RenameLock, RenameLock, RenameLock],
) -> None:
    with locks[0].shared(), locks[1].shared(), locks[2].shared():
        pass


def test_an_exclusive_holder_waits_for_shared_ones_and_keeps_later_ones_out(
    locks: tuple[RenameLock, RenameLock, RenameLock], tmp_path: Path
) -> None:
    first, remover, second = locks
    order: list[str] = []

    def remove() -> None:
        with remover.exclusive():
            order.append("exclusive")

    def share() -> None:
        with second.shared():
            order.append("second")

    with first.shared():
        removing = threading.Thread(target=remove)
        removing.start()
        until_locked(tmp_path / "turnstile")
        sharing = threading.Thread(target=share)
        sharing.start()
        sharing.join(0.05)
        assert order == []  # a waiting exclusive holder comes first
        order.append("first")
    removing.join(SECONDS)
    sharing.join(SECONDS)
    assert order == ["first", "exclusive", "second"]


def test_no_shared_lock_is_given_while_it_is_held_exclusively(
    locks: tuple[RenameLock, RenameLock, RenameLock],
) -> None:
    shared = threading.Event()

    def share() -> None:
        with locks[1].shared():
            shared.set()

    thread = threading.Thread(target=share)
    with locks[0].exclusive():
        thread.start()
        assert not shared.wait(0.05)
    assert shared.wait(SECONDS)
    thread.join()


@pytest.fixture
async def harness(
    tmp_path: Path, locks: tuple[RenameLock, RenameLock, RenameLock]
) -> AsyncIterator[CommitterHarness]:
    """A committer of one process, with the first lock."""
    opened = CommitterHarness(tmp_path, locks[0])
    yield opened
    await asyncio.to_thread(opened.close)


async def test_a_file_that_another_process_replaces_meanwhile_is_not_removed(
    harness: CommitterHarness, locks: tuple[RenameLock, RenameLock, RenameLock]
) -> None:
    stored = await harness.commit("/x", b"old")
    with locks[1].shared():
        removing = asyncio.create_task(harness.files.remove({"upload_id": stored.upload_id}))
        done, _ = await asyncio.wait({removing}, timeout=0.1)
        assert done == set()
        newer = harness.root / "newer"
        newer.write_bytes(b"new")
        newer.rename(harness.root / "x")
    with pytest.raises(Superseded):
        await removing
    assert harness.stored() == {"x": b"new"}


async def test_no_file_is_published_while_another_process_removes(
    harness: CommitterHarness, locks: tuple[RenameLock, RenameLock, RenameLock]
) -> None:
    with locks[1].exclusive():
        committing = asyncio.create_task(harness.commit("/x", b"new"))
        done, _ = await asyncio.wait({committing}, timeout=0.1)
        assert done == set()
        assert harness.stored() == {}
    await committing
    assert harness.stored() == {"x": b"new"}


async def test_a_process_that_stopped_with_the_lock_costs_the_others_a_refusal(
    tmp_path: Path, locks: tuple[RenameLock, RenameLock, RenameLock]
) -> None:
    short_timeout = RenameLock(tmp_path, timeout=0.05)
    harness = CommitterHarness(tmp_path, short_timeout)
    try:
        stored = await harness.commit("/x", b"old")
        with locks[1].exclusive():
            with pytest.raises(Refusal) as refused:
                await harness.commit("/x", b"new")
            assert refused.value.status == 503
            with pytest.raises(Refusal):
                await harness.files.remove({"upload_id": stored.upload_id})
            assert harness.stored() == {"x": b"old"}
        await harness.commit("/x", b"newer")
        assert harness.stored() == {"x": b"newer"}
    finally:
        await asyncio.to_thread(harness.close)
        short_timeout.close()
