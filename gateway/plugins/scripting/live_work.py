"""What of a script outlives its time-out: a task that ignores it, functions in threads.

Nothing can end a thread. Who waits for it here does not begin the same work beside it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

LiveWork = set["Future[Any]"]
"""What of a call has not ended: its own task, and the functions that it runs in threads."""

_live_work: contextvars.ContextVar[LiveWork | None] = contextvars.ContextVar("live_work", default=None)


def keep_in(live: LiveWork) -> None:
    """Let `live` have the functions that this context runs in threads."""
    _live_work.set(live)


class ScriptThreads(ThreadPoolExecutor):
    """The threads of `asyncio.to_thread()` in scripts; each function is among its call's live work."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` in a thread."""
        future = super().submit(fn, *args, **kwargs)
        live = _live_work.get()
        if live is not None:
            live.add(future)
            future.add_done_callback(live.discard)
        return future


def add_task(live: LiveWork, task: asyncio.Task[Any]) -> None:
    """Add a task until it has ended."""
    ended: Future[None] = Future()
    ended.set_running_or_notify_cancel()  # who waits for it cannot cancel it
    live.add(ended)

    def end(_: asyncio.Task[Any]) -> None:
        live.discard(ended)
        ended.set_result(None)

    task.add_done_callback(end)


async def wait_for_live_work(live: LiveWork, seconds: float) -> bool:
    """Wait for the end of what a call has left behind, `seconds` at most; return whether it ended."""
    if not (left := [asyncio.wrap_future(future) for future in live.copy()]):
        return True
    ended, unfinished = await asyncio.wait(left, timeout=seconds)
    for future in ended:
        if not future.cancelled():
            future.exception()  # nobody asks for it: the run has failed already
    for future in unfinished:
        future.cancel()  # this wait alone: a thread goes on
    return not unfinished
