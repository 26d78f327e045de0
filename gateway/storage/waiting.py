"""Waits for the end of work in a thread or on another event loop, also where the caller is cancelled.

What such work uses (a descriptor, a buffer, a reservation) may be closed only when it has ended. Plain
`asyncio.to_thread` and `asyncio.wrap_future` return to a cancelled caller while the work still runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


CANCEL_INTERVAL: Final = 1.0
"""Seconds until a task that goes on is cancelled again."""


async def cancel_and_wait(task: asyncio.Task[None]) -> None:
    """Cancel `task` until it has ended. For tasks that may be cut off anywhere, their clean-up too.

    Once is not enough: `asyncio.wait_for` of Python 3.11, which client libraries use, drops a
    cancellation that comes together with the result, or the error, of what it waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_INTERVAL)


async def wait_ended(work: asyncio.Future[Any]) -> None:
    """Wait until `work` has ended, however often the caller is cancelled. Raises nothing of it."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    if not work.cancelled():
        work.exception()  # mark it as retrieved


async def finish(work: asyncio.Future[T]) -> T:
    """Return the result of `work`. A caller that is cancelled meanwhile waits for its end too."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await wait_ended(work)
        raise


async def finish_in_thread(
    function: Callable[[*Arguments], T], *arguments: *Arguments, executor: Executor | None = None
) -> T:
    """Call `function` in a thread of `executor` (None: the loop's own) and `finish` it."""
    call = partial(function, *arguments)
    return await finish(asyncio.get_running_loop().run_in_executor(executor, call))


async def finish_on_loop(
    loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[T]], *, cancellable: bool = True
) -> T:
    """Run `work()` on another event loop and return its result.

    Where the caller is cancelled, `work` is cancelled too (if `cancellable`), and its end is waited for.
    A `work` that is cancelled before its first step does not run at all. Raises `RuntimeError` for a
    loop that is closed.
    """
    outcome: Future[T] = Future()
    tasks: list[asyncio.Task[T]] = []

    def start() -> None:
        tasks.append(loop.create_task(_call(work)))
        tasks[0].add_done_callback(partial(_pass_on, outcome))

    def cancel() -> None:
        tasks[0].cancel()  # `start` has run before

    loop.call_soon_threadsafe(start)
    ending = asyncio.wrap_future(outcome)
    try:
        return await asyncio.shield(ending)
    except asyncio.CancelledError:
        if cancellable and not ending.done():
            loop.call_soon_threadsafe(cancel)
        await wait_ended(ending)
        raise


async def _call(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _pass_on(outcome: Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        outcome.cancel()
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
