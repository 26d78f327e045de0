"""Work in a thread or on another loop has ended when its caller goes on, cancelled or not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from gateway.storage.waiting import finish_in_thread, finish_on_loop

TIMEOUT = 30.0


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Held:
    """Work that tells when it runs, and goes on when it may."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.entered = asyncio.Event()
        self.go_on = threading.Event()
        self.ended = False

    def in_thread(self) -> str:
        self.loop.call_soon_threadsafe(self.entered.set)
        assert self.go_on.wait(TIMEOUT)
        self.ended = True
        return "done"

    async def on_loop(self) -> str:
        """Wait; what cancels it takes effect only when it may go on."""
        self.loop.call_soon_threadsafe(self.entered.set)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(self.go_on.wait, TIMEOUT)
            self.ended = True
        return "never"


async def cancelled_twice(held: Held, work: Awaitable[str]) -> None:
    """Cancel a task that waits for `work` twice; let `work` end; check that the task waited."""
    task = asyncio.ensure_future(work)
    await held.entered.wait()
    for _ in range(2):
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.02)
        assert done == set()
    assert not held.ended
    held.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held.ended


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    held = Held()
    await cancelled_twice(held, finish_in_thread(held.in_thread))


async def test_a_cancelled_caller_cancels_work_on_another_loop_and_waits_for_its_end(
    other_loop: asyncio.AbstractEventLoop,
) -> None:
    held = Held()
    await cancelled_twice(held, finish_on_loop(other_loop, held.on_loop))


async def test_work_that_may_not_be_cancelled_ends_by_itself(
    other_loop: asyncio.AbstractEventLoop,
) -> None:
    held = Held()

    async def work() -> str:
        return await asyncio.to_thread(held.in_thread)

    await cancelled_twice(held, finish_on_loop(other_loop, work, cancellable=False))


async def fails() -> str:
    raise ValueError("no")


async def succeeds() -> str:
    return "done"


async def cancels_itself() -> str:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("work", "error"), [(fails, ValueError), (cancels_itself, asyncio.CancelledError)]
)
async def test_what_work_on_another_loop_raises_is_raised_here(
    other_loop: asyncio.AbstractEventLoop,
    work: Callable[[], Awaitable[str]],
    error: type[BaseException],
) -> None:
    assert await finish_on_loop(other_loop, succeeds) == "done"
    with pytest.raises(error):
        await finish_on_loop(other_loop, work)


async def test_a_loop_that_is_closed_is_an_error() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError):
        await finish_on_loop(loop, succeeds)
