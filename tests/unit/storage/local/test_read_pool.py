"""Single-pass reads: a file is opened once, one thread runs many jobs, no descriptor leaks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.errors import Refusal, Superseded
from gateway.storage.local.read_pool import CHECK_INTERVAL, ReadPool
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import MAX_SINGLE_PASS_BYTES, SinglePassReader, Stat

Choose = Callable[[Stat], Sequence[tuple[int, int]]]
Disk = tuple[Callable[[], bytes], Callable[[], None]]


@pytest.fixture
def pool() -> Iterator[ReadPool]:
    pool = ReadPool(4)
    yield pool
    pool.close()


@pytest.fixture
def storage(tmp_path: Path, pool: ReadPool) -> Iterator[LocalStorage]:
    tree = DirectoryTree(tmp_path, [tmp_path / "own"])
    yield LocalStorage(tree, read_pool=pool)
    tree.close()


def whole(stat: Stat) -> Sequence[tuple[int, int]]:
    return ((0, stat.bytes),)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_short_file_is_read_and_closed_in_one_pass(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    before = descriptors()
    read = await storage.read_parts("/a", lambda stat: ((0, 3), (stat.bytes - 2, 2)))
    assert isinstance(storage, SinglePassReader)
    assert (read.pieces, read.opened) == ([b"\0\1\2", b"bc"], None)
    assert read.stat == await storage.stat("/a")
    assert descriptors() == before


async def test_of_a_long_file_short_parts_are_read_and_long_ones_left_to_the_open_file(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x" * (MAX_SINGLE_PASS_BYTES + 1))
    before = descriptors()
    assert (await storage.read_parts("/a", lambda _: ((1, MAX_SINGLE_PASS_BYTES),))).pieces == [
        b"x" * MAX_SINGLE_PASS_BYTES
    ]
    read = await storage.read_parts("/a", whole)
    assert read.opened is not None
    os.unlink(tmp_path / "a")
    async with read.opened as opened:
        assert len(b"".join([piece async for piece in opened])) == MAX_SINGLE_PASS_BYTES + 1
        assert opened.fd is not None
    assert descriptors() == before


async def test_what_is_decided_and_what_is_read_is_one_version(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def replace(stat: Stat) -> Sequence[tuple[int, int]]:
        (tmp_path / "b").write_bytes(b"newer")
        os.rename(tmp_path / "b", tmp_path / "a")
        return whole(stat)

    read = await storage.read_parts("/a", replace)
    assert (read.stat.bytes, read.pieces) == (3, [b"old"])


async def test_a_refusal_or_a_file_cut_short_leaves_nothing_open(
    storage: LocalStorage, tmp_path: Path
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
            await storage.read_parts(path, choose)
    assert descriptors() == before


async def test_an_open_file_is_closed_when_its_reader_was_cancelled(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x" * (MAX_SINGLE_PASS_BYTES + 1))
    begun, go_on = threading.Event(), threading.Event()

    def slow(stat: Stat) -> Sequence[tuple[int, int]]:
        begun.set()
        go_on.wait(30)
        return whole(stat)

    before = descriptors()
    reading = asyncio.ensure_future(storage.read_parts("/a", slow))
    await asyncio.to_thread(begun.wait, 30)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go_on.set()
    await storage.read_parts("/a", lambda _: ())  # told after the one before, or beside it
    async with asyncio.timeout(30):
        while descriptors() > before:
            await asyncio.sleep(0.01)  # nothing else tells of it


async def test_jobs_of_one_iteration_run_in_one_thread_each_with_its_own_result(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("REPORT_INTERVAL", "CHECK_INTERVAL"):
        monkeypatch.setattr(f"gateway.storage.local.read_pool.{limit}", 30.0)

    def fail() -> int:
        raise ValueError("mine")

    done = [pool(threading.get_ident) for _ in range(5)]
    failed = pool(fail)
    assert len(set(await asyncio.gather(*done))) == 1
    with pytest.raises(ValueError, match="mine"):
        await failed


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A job that waits in a system call as for a slow disk, and what ends the wait of one."""
    read_end, write_end = os.pipe()

    def go_on() -> None:
        os.write(write_end, b"x")

    yield lambda: os.read(read_end, 1), go_on
    os.close(read_end)
    os.close(write_end)


async def test_jobs_that_wait_for_a_disk_delay_no_other(pool: ReadPool, disk: Disk) -> None:
    slow, go_on = disk
    stuck = [pool(slow) for _ in range(3)]
    async with asyncio.timeout(30):
        assert await pool(lambda: "quick") == "quick"
    for _ in stuck:
        go_on()
    assert await asyncio.gather(*stuck) == [b"x"] * 3


async def test_jobs_that_wait_for_the_interpreter_get_no_more_threads(pool: ReadPool) -> None:
    go_on = threading.Event()
    stuck = pool(lambda: go_on.wait(30))  # waits as for the interpreter's lock
    late = pool(lambda: "late")
    for _ in range(10):
        await asyncio.sleep(CHECK_INTERVAL)
    assert (pool._running, late.done()) == (1, False)
    go_on.set()
    assert (await stuck, await late) == (True, "late")


async def test_where_the_kernel_does_not_tell_long_jobs_get_more_threads(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.local.read_pool._FUTEX", None)
    go_on = threading.Event()
    stuck = [pool(lambda: go_on.wait(30)) for _ in range(3)]
    async with asyncio.timeout(30):
        assert await pool(lambda: "quick") == "quick"
    go_on.set()
    assert await asyncio.gather(*stuck) == [True] * 3


async def test_a_job_that_comes_while_all_threads_are_busy_runs_after_them(
    pool: ReadPool, disk: Disk
) -> None:
    slow, go_on = disk
    stuck = [pool(slow) for _ in range(4)]
    late = pool(lambda: "late")
    async with asyncio.timeout(30):
        while pool._running < 4:
            await asyncio.sleep(CHECK_INTERVAL)
    assert not late.done()
    for _ in stuck:
        go_on()
    async with asyncio.timeout(30):
        assert await late == "late"
    await asyncio.gather(*stuck)


async def test_a_queued_job_is_dropped_when_the_threads_end() -> None:
    pool, begun, go_on = ReadPool(1), threading.Event(), threading.Event()
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def slow() -> bool:
        begun.set()
        return go_on.wait(30)

    stuck, late = pool(slow), pool(lambda: "late")
    await asyncio.to_thread(begun.wait, 30)
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    async with asyncio.timeout(30):
        while not pool._executor._shutdown:
            await asyncio.sleep(0)
        go_on.set()
        await closing
        assert await stuck
    await asyncio.sleep(0.02)  # longer than work waits for another thread
    assert (late.done(), faults) == (False, [])
