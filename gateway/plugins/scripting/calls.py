"""One call of a script, what it may end with, and how to wait for its result."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from gateway.errors import GatewayError
from gateway.plugins.scripting.live_work import LiveWork

T = TypeVar("T")
Done = Callable[[Any, Exception | None], None]
"""What gets the result of a call, or the exception that it ended with."""


class Cancellable(Protocol):
    """What has been submitted and can be given up."""

    def cancel(self) -> None:
        """End it and give no result."""


class ScriptStopped(GatewayError):
    """A script raised what would stop a program (`SystemExit`, `KeyboardInterrupt`): only it stops."""


class TimedOut(TimeoutError):
    """A script ran longer than its time-out. `place` is the `file:line` where it waited, if known."""

    def __init__(self, seconds: float, place: str | None) -> None:
        where = f", waiting at {place}" if place else ""
        super().__init__(f"not finished within {seconds:g} s{where}")
        self.place = place


@dataclass(slots=True, eq=False)
class ScriptCall:
    """One call of a script: its function, its context, its deadline and who gets its result.

    `done` is None once the result was given or the call was cancelled. `live`, if given, holds
    what of the call has not ended, also behind its result. `task` and those below are the thread's.
    """

    function: Callable[[], Awaitable[Any]]
    timeout: float
    done: Done | None
    context: contextvars.Context
    suspends: bool
    live: LiveWork | None
    deadline: float
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any] | None = None
    timer: asyncio.TimerHandle | None = None
    time_out_error: TimedOut | None = None
    begun: float = 0.0
    seconds: float = 0.0

    @property
    def started_at(self) -> float:
        """When it was submitted, in seconds of `time.monotonic()`."""
        return self.deadline - self.timeout

    def give_result(self, value: Any, error: Exception | None) -> None:
        """Hand over the result, once. Belongs to the caller's loop. What `done` raises, it reports."""
        done, self.done = self.done, None
        if done is None:
            return
        try:
            done(value, error)
        except Exception as raised:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the receiver of a script's result failed", "exception": raised}
            )

    def cancel(self) -> None:
        """Cancel the script and give no result. Belongs to the caller's loop."""
        self.done = None
        with contextlib.suppress(RuntimeError):  # the executor's loop may have been closed since
            self.loop.call_soon_threadsafe(self._cancel_task)

    def _cancel_task(self) -> None:
        if self.task is not None:
            self.task.cancel()


async def result_of(submit: Callable[[Callable[[T, Exception | None], None]], Cancellable | None]) -> T:
    """Return what `submit` gives to its receiver, or raise the error; cancelled, cancel it."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def receive(value: T, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    submitted = submit(receive)
    try:
        return await future
    except asyncio.CancelledError:
        if submitted is not None:
            submitted.cancel()
        raise


def as_exception(error: BaseException) -> Exception:
    """Return what a script ended with as an `Exception`, so that no receiver is stopped by it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error  # no future takes a StopIteration
    if isinstance(error, asyncio.CancelledError):
        return ScriptStopped("the script was cancelled")
    stopped = ScriptStopped(f"the script raised {type(error).__name__}")
    stopped.__cause__ = error
    return stopped
