"""`files.save` that is cancelled, on a loop of its own beside the server's, as scripts are."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.local_writer import LocalWriter
from gateway.files import saver as saver_module
from gateway.files.saver import FileSaver
from gateway.storage.waiting import finish_on_loop
from tests.support.committer import TIMEOUT, CommitterHarness

CONTENT = b"ALIEN!!!" * (3 << 17)
"""Three megabytes: each is a write by a thread."""

STEPS = {"begin": 1, "first write": 2, "last write": 4, "finish": 5, "commit": 6}
"""The calls of a save that cross to the server's loop."""


class HeldExecutor(ThreadPoolExecutor):
    """Holds jobs until `go_on` is set; `entered` says that one waits."""

    def __init__(self) -> None:
        super().__init__(2)
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        def held() -> Any:
            self.entered.set()
            assert self.go_on.wait(TIMEOUT)
            return function(*arguments, **named)

        return super().submit(held)


@pytest.fixture
def executor(harness: CommitterHarness) -> HeldExecutor:
    harness.disk.shutdown()
    harness.disk = executor = HeldExecutor()
    object.__setattr__(harness.local_disk, "executor", executor)
    return executor


@pytest.fixture
async def saver(harness: CommitterHarness, executor: HeldExecutor) -> FileSaver:
    """A saver that stores on the loop of this test."""
    made = FileSaver()
    made.store_with_writer(LocalWriter(harness.local_disk, harness.committer, 0o640))
    return made


async def save(saver: FileSaver, source: Any) -> None:
    await saver.save("/x", source, mime=None, metadata=None, on_conflict="replace")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def in_script(script: Callable[[], Awaitable[None]]) -> None:
    """Run `script` on a loop of its own in a thread, while this loop goes on."""

    async def main() -> None:
        await script()

    async with asyncio.timeout(TIMEOUT):
        await asyncio.to_thread(asyncio.run, main())


def at_call(number: int, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Call `act` in the task of a save when it crosses to the server's loop for the n-th time."""
    calls = 0

    async def counted(loop: Any, work: Any, *, cancellable: bool = True) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return await finish_on_loop(loop, work, cancellable=cancellable)

    patch.setattr(saver_module, "finish_on_loop", counted)


def nothing_is_left(harness: CommitterHarness) -> None:
    """Check that the file is there whole or not at all, and nothing else is."""
    assert harness.bodies() == []
    assert harness.space.reserved == 0
    assert harness.stored() in ({}, {"x": CONTENT})


@pytest.mark.parametrize("step", STEPS)
async def test_a_save_that_is_cancelled_as_a_step_begins_leaves_nothing(
    harness: CommitterHarness, saver: FileSaver, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def script() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(save(saver, CONTENT))

    at_call(STEPS[step], cancel, monkeypatch)
    await in_script(script)  # its threads exist from here on
    before = descriptors()
    for _ in range(5):
        at_call(STEPS[step], cancel, monkeypatch)
        await in_script(script)
    nothing_is_left(harness)
    assert descriptors() == before


@pytest.mark.parametrize("step", [step for step in STEPS if step != "finish"])
async def test_a_cancelled_save_ends_when_its_thread_has_left_the_body(
    harness: CommitterHarness,
    saver: FileSaver,
    executor: HeldExecutor,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = threading.Event()

    def hold() -> None:
        executor.entered.clear()
        executor.go_on.clear()
        reached.set()

    async def script() -> None:
        saving = asyncio.create_task(save(saver, CONTENT))
        for event in (reached, executor.entered):
            await asyncio.to_thread(event.wait, TIMEOUT)
        saving.cancel()
        if step != "begin":  # what a begin still reserves is released by itself
            done, _ = await asyncio.wait({saving}, timeout=0.05)
            assert done == set()
        executor.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await saving

    at_call(STEPS[step], hold, monkeypatch)
    await in_script(script)
    await asyncio.to_thread(executor.shutdown)
    await asyncio.sleep(0)  # the loop learns that the thread has ended
    nothing_is_left(harness)


async def test_a_late_write_never_reaches_another_file(
    harness: CommitterHarness, saver: FileSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has the number of the descriptor and has not written yet when the save is cancelled."""
    entered, go_on, write = threading.Event(), threading.Event(), os.write

    def slow(fd: int, data: bytes | memoryview) -> int:
        if bytes(data[:5]) == b"ALIEN":
            entered.set()
            assert go_on.wait(TIMEOUT)
        return write(fd, data)

    async def script() -> None:
        saving = asyncio.create_task(save(saver, CONTENT))
        await asyncio.to_thread(entered.wait, TIMEOUT)
        saving.cancel()
        await asyncio.wait({saving}, timeout=0.05)
        others = [(tmp_path / str(number)).open("wb") for number in range(20)]
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await saving
        for other in others:
            other.close()

    monkeypatch.setattr(os, "write", slow)
    await in_script(script)
    assert {path.stat().st_size for path in tmp_path.glob("[0-9]*")} == {0}
    nothing_is_left(harness)


async def test_the_file_that_a_cancelled_save_reads_is_closed(
    harness: CommitterHarness, saver: FileSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    opened: list[Any] = []
    real = Path.open

    def noted(path: Path, *arguments: Any) -> Any:
        opened.append(real(path, *arguments))
        return opened[-1]

    async def script() -> None:
        saving = asyncio.create_task(save(saver, tmp_path / "source"))
        at_call(3, partial(_cancel, saving), monkeypatch)
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert [file.closed for file in opened] == [True]

    monkeypatch.setattr(Path, "open", noted)
    await in_script(script)
    nothing_is_left(harness)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
