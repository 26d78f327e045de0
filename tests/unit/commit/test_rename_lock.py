"""The gate: names are given by many at once, files are removed by one who is alone."""

from __future__ import annotations

import asyncio
import fcntl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.commit.rename_lock import RenameLock
from gateway.errors import Refusal, Superseded
from tests.support.committer import CommitterHarness

SECONDS = 30.0


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[tuple[RenameLock, RenameLock, RenameLock]]:
    """The gates of three processes: flocks of descriptors that were opened apart do not know them."""
    opened = RenameLock(tmp_path), RenameLock(tmp_path), RenameLock(tmp_path)
    yield opened
    for gate in opened:
        gate.close()


def until_taken(lock: Path) -> None:
    """Wait until somebody holds the flock for himself."""
    deadline = time.monotonic() + SECONDS
    with lock.open("rb") as probe:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(probe, fcntl.LOCK_UN)
            time.sleep(0.01)
    raise AssertionError(f"nobody took {lock.name}")


def test_several_pass_at_once(gates: tuple[RenameLock, RenameLock, RenameLock]) -> None:
    with gates[0].shared(), gates[1].shared(), gates[2].shared():
        pass


def test_who_is_alone_waits_for_those_who_pass_and_keeps_newcomers_out(
    gates: tuple[RenameLock, RenameLock, RenameLock], tmp_path: Path
) -> None:
    first, remover, second = gates
    order: list[str] = []

    def remove() -> None:
        with remover.exclusive():
            order.append("alone")

    def pass_through() -> None:
        with second.shared():
            order.append("second")

    with first.shared():
        removing = threading.Thread(target=remove)
        removing.start()
        until_taken(tmp_path / "turnstile")
        passing = threading.Thread(target=pass_through)
        passing.start()
        passing.join(0.05)
        assert order == []  # nobody is served past the one who waits to be alone
        order.append("first")
    removing.join(SECONDS)
    passing.join(SECONDS)
    assert order == ["first", "alone", "second"]


def test_nobody_passes_while_somebody_is_alone(gates: tuple[RenameLock, RenameLock, RenameLock]) -> None:
    passed = threading.Event()

    def pass_through() -> None:
        with gates[1].shared():
            passed.set()

    thread = threading.Thread(target=pass_through)
    with gates[0].exclusive():
        thread.start()
        assert not passed.wait(0.05)
    assert passed.wait(SECONDS)
    thread.join()


@pytest.fixture
async def harness(
    tmp_path: Path, gates: tuple[RenameLock, RenameLock, RenameLock]
) -> AsyncIterator[CommitterHarness]:
    """A committer of one process, which goes through the first gate."""
    opened = CommitterHarness(tmp_path, gates[0])
    yield opened
    await asyncio.to_thread(opened.close)


async def test_a_file_that_another_process_replaces_meanwhile_is_not_removed(
    harness: CommitterHarness, gates: tuple[RenameLock, RenameLock, RenameLock]
) -> None:
    stored = await harness.commit("/x", b"old")
    with gates[1].shared():
        removing = asyncio.create_task(harness.files.remove({"upload_id": stored.upload_id}))
        done, _ = await asyncio.wait({removing}, timeout=0.1)
        assert done == set()
        newer = harness.root / "newer"
        newer.write_bytes(b"new")
        newer.rename(harness.root / "x")
    with pytest.raises(Superseded):
        await removing
    assert harness.stored() == {"x": b"new"}


async def test_no_name_is_given_while_another_process_removes(
    harness: CommitterHarness, gates: tuple[RenameLock, RenameLock, RenameLock]
) -> None:
    with gates[1].exclusive():
        committing = asyncio.create_task(harness.commit("/x", b"new"))
        done, _ = await asyncio.wait({committing}, timeout=0.1)
        assert done == set()
        assert harness.stored() == {}
    await committing
    assert harness.stored() == {"x": b"new"}


async def test_a_process_that_was_stopped_in_the_gate_costs_its_siblings_a_refusal(
    tmp_path: Path, gates: tuple[RenameLock, RenameLock, RenameLock]
) -> None:
    impatient = RenameLock(tmp_path, timeout=0.05)
    office = CommitterHarness(tmp_path, impatient)
    try:
        stored = await office.commit("/x", b"old")
        with gates[1].exclusive():
            with pytest.raises(Refusal) as refused:
                await office.commit("/x", b"new")
            assert refused.value.status == 503
            with pytest.raises(Refusal):
                await office.files.remove({"upload_id": stored.upload_id})
            assert office.stored() == {"x": b"old"}
        await office.commit("/x", b"newer")
        assert office.stored() == {"x": b"newer"}
    finally:
        await asyncio.to_thread(office.close)
        impatient.close()
