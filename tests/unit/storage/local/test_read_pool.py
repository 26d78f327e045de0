"""Visits: one look at a file, by one thread for many, and no descriptor left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.errors import Refusal, Superseded
from gateway.storage.local.read_pool import ReadPool
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import MAX_SINGLE_PASS_BYTES, SinglePassReader, Stat

Choose = Callable[[Stat], Sequence[tuple[int, int]]]


@pytest.fixture
def visitors() -> Iterator[ReadPool]:
    visitors = ReadPool(4)
    yield visitors
    visitors.close()


@pytest.fixture
def shelf(tmp_path: Path, visitors: ReadPool) -> Iterator[LocalStorage]:
    tree = DirectoryTree(tmp_path, [tmp_path / "own"])
    yield LocalStorage(tree, visitors=visitors)
    tree.close()


def whole(stat: Stat) -> Sequence[tuple[int, int]]:
    return ((0, stat.bytes),)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_short_file_is_read_and_closed_in_one_visit(shelf: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    before = descriptors()
    visit = await shelf.visit("/a", lambda stat: ((0, 3), (stat.bytes - 2, 2)))
    assert isinstance(shelf, SinglePassReader)
    assert (visit.pieces, visit.opened) == ([b"\0\1\2", b"bc"], None)
    assert visit.stat == await shelf.stat("/a")
    assert descriptors() == before


async def test_of_a_long_file_short_parts_are_read_and_long_ones_left_to_the_open_file(
    shelf: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x" * (MAX_SINGLE_PASS_BYTES + 1))
    before = descriptors()
    assert (await shelf.visit("/a", lambda _: ((1, MAX_SINGLE_PASS_BYTES),))).pieces == [
        b"x" * MAX_SINGLE_PASS_BYTES
    ]
    visit = await shelf.visit("/a", whole)
    assert visit.opened is not None
    os.unlink(tmp_path / "a")
    async with visit.opened as opened:
        assert len(b"".join([piece async for piece in opened])) == MAX_SINGLE_PASS_BYTES + 1
        assert opened.fd is not None
    assert descriptors() == before


async def test_what_is_decided_and_what_is_read_is_one_version(
    shelf: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def replace(stat: Stat) -> Sequence[tuple[int, int]]:
        (tmp_path / "b").write_bytes(b"newer")
        os.rename(tmp_path / "b", tmp_path / "a")
        return whole(stat)

    visit = await shelf.visit("/a", replace)
    assert (visit.stat.bytes, visit.pieces) == (3, [b"old"])


async def test_a_refusal_or_a_file_cut_short_leaves_nothing_open(
    shelf: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    os.mkfifo(tmp_path / "fifo")

    def refuse(stat: Stat) -> Sequence[tuple[int, int]]:
        raise Refusal("precondition_failed", "no")

    def cut(stat: Stat) -> Sequence[tuple[int, int]]:
        os.truncate(tmp_path / "a", 2)
        return whole(stat)

    before = descriptors()
    for path, choose, fault in (
        ("/fifo", whole, Refusal),
        ("/none", whole, Refusal),
        ("/own/key", whole, Refusal),
        ("/a", refuse, Refusal),
        ("/a", cut, Superseded),
    ):
        with pytest.raises(fault):
            await shelf.visit(path, choose)
    assert descriptors() == before


async def test_an_open_file_that_nobody_waits_for_any_more_is_closed(
    shelf: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x" * (MAX_SINGLE_PASS_BYTES + 1))
    begun, go_on = threading.Event(), threading.Event()

    def slow(stat: Stat) -> Sequence[tuple[int, int]]:
        begun.set()
        go_on.wait(30)
        return whole(stat)

    before = descriptors()
    visiting = asyncio.ensure_future(shelf.visit("/a", slow))
    await asyncio.to_thread(begun.wait, 30)
    visiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await visiting
    go_on.set()
    await shelf.visit("/a", lambda _: ())  # told after the one before, or beside it
    async with asyncio.timeout(30):
        while descriptors() > before:
            await asyncio.sleep(0.01)  # nothing else tells of it


async def test_what_comes_at_once_is_done_by_one_thread_each_with_its_own_end(
    visitors: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("TURN_SECONDS", "PATIENCE_SECONDS"):
        monkeypatch.setattr(f"gateway.storage.local.read_pool.{patience}", 30.0)

    def fail() -> int:
        raise ValueError("mine")

    done = [visitors(threading.get_ident) for _ in range(5)]
    failed = visitors(fail)
    assert len(set(await asyncio.gather(*done))) == 1
    with pytest.raises(ValueError, match="mine"):
        await failed


async def test_slow_work_keeps_no_other_waiting(visitors: ReadPool) -> None:
    go_on = threading.Event()
    stuck = [visitors(lambda: go_on.wait(30)) for _ in range(3)]
    async with asyncio.timeout(30):
        assert await visitors(lambda: "quick") == "quick"
    go_on.set()
    assert await asyncio.gather(*stuck) == [True] * 3


async def test_work_that_comes_while_all_threads_are_busy_is_done_after_them(
    visitors: ReadPool,
) -> None:
    go_on = threading.Event()
    stuck = [visitors(lambda: go_on.wait(30)) for _ in range(4)]
    late = visitors(lambda: "late")
    await asyncio.sleep(0.02)  # long enough for every thread to be taken
    assert not late.done()
    go_on.set()
    async with asyncio.timeout(30):
        assert await late == "late"
    await asyncio.gather(*stuck)


async def test_work_that_still_waits_when_the_threads_end_is_left_undone_and_breaks_nothing() -> None:
    visitors, begun, go_on = ReadPool(1), threading.Event(), threading.Event()
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def slow() -> bool:
        begun.set()
        return go_on.wait(30)

    stuck, late = visitors(slow), visitors(lambda: "late")
    await asyncio.to_thread(begun.wait, 30)
    closing = asyncio.create_task(asyncio.to_thread(visitors.close))
    async with asyncio.timeout(30):
        while not visitors._pool._shutdown:
            await asyncio.sleep(0)
        go_on.set()
        await closing
        assert await stuck
    await asyncio.sleep(0.02)  # longer than work waits for another thread
    assert (late.done(), faults) == (False, [])
