"""One event loop in one thread, and the calls that cross over to it and back.

One rule: threads are crossed in batches, one wake-up for all that waits (waking for each call costs
a third of the rate). Nothing that a script raises ends the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import dis
import functools
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import CodeType
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.plugins.scripting.trace import place_of_wait

REACTION: Final = 1.0
"""Seconds that a lane has to answer after a call's time-out."""

CLEANUP: Final = 1.0
"""Seconds that cancelled tasks, and then each closer, have before the loop is closed."""

_SUSPENDING: Final = frozenset({"SEND", "YIELD_VALUE", "YIELD_FROM"})
"""What `await`, `async for` and `async with` are compiled to."""

Closer = Callable[[], Awaitable[None]]
log = logging.getLogger("gateway.lane")


class ScriptStopped(GatewayError):
    """A script raised what would stop a program (`SystemExit` and its like): only the script stops."""


class TimedOut(TimeoutError):
    """A call's time was up. `place` is the `file:line` at which the script waited, where it is known."""

    def __init__(self, seconds: float, place: str | None) -> None:
        super().__init__(
            f"not finished within {seconds:g} s" + (f", waiting at {place}" if place else "")
        )
        self.place = place


class Call:
    """One call on its way: what to run, in which context, until when, and where the answer goes."""

    __slots__ = (
        "answer",
        "context",
        "deadline",
        "make",
        "seconds",
        "task",
        "timed_out",
        "timer",
        "waits",
    )

    def __init__(
        self,
        make: Callable[[], Awaitable[Any]],
        seconds: float,
        answer: asyncio.Future[Any],
        *,
        waits: bool,
    ) -> None:
        self.make = make
        self.waits = waits
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.context = contextvars.copy_context()
        self.answer = answer
        self.task: asyncio.Task[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.timed_out: TimedOut | None = None


class ExecutorThread:
    """A loop in a daemon thread. `calls` are in flight; all but the methods marked so belong to home.

    Home is the loop that made it. A call stays in `calls` until its task has really ended, also
    when its answer was given before (a script that ignores its cancellation).
    """

    def __init__(self, name: str, closers: Sequence[Closer]) -> None:
        self.calls: set[Call] = set()
        self.loop = _new_loop()
        self._home = asyncio.get_running_loop()
        self._closers = closers
        self._inbox: deque[Call] = deque()
        self._outbox: deque[tuple[Call, Any, BaseException | None, bool]] = deque()
        self._inbox_woken = self._home_woken = self._stopping = False
        self._thread = threading.Thread(target=self._main, name=f"lane-{name}", daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int | None:
        """The thread's id, as `trace.frame_of` knows it."""
        return self._thread.ident

    def put(self, call: Call) -> None:
        """Send a call over."""
        self.calls.add(call)
        self._inbox.append(call)
        if not self._inbox_woken:
            self._inbox_woken = True
            self.loop.call_soon_threadsafe(self._take)

    def cancel(self, call: Call) -> None:
        """Nobody waits for this call any more."""
        with contextlib.suppress(RuntimeError):  # the loop may have been closed since
            self.loop.call_soon_threadsafe(self._cancel, call)

    def stop(self) -> None:
        """Let the loop cancel its tasks, run its closers and end."""
        self._stopping = True
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)

    def abandon(self) -> None:
        """Give up a blocked thread: it ends when it can.

        An endless loop would eat half of the interpreter's time for ever, so `SystemExit` is
        raised in it; a thread that hangs in the system does not notice and costs nothing.
        """
        self.stop()
        if self.ident is not None:
            thread_id, error = ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread_id, error)

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end (not on a loop). Return whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _collect(self) -> None:
        self._home_woken = False
        while self._outbox:
            call, value, error, ended = self._outbox.popleft()
            if ended:
                self.calls.discard(call)
            if call.answer.done():
                continue
            if error is None:
                call.answer.set_result(value)
            else:
                call.answer.set_exception(error)

    # From here on: in the lane's own thread.

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopping:
            try:
                self.loop.run_forever()
            except BaseException as error:
                if not self._stopping:
                    log.error("a task that a script left behind raised %s", type(error).__name__)
        try:
            self.loop.run_until_complete(self._clean_up())
        except BaseException as error:
            log.warning("a lane did not close cleanly: %s", type(error).__name__)
        finally:
            self.loop.close()

    async def _clean_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLEANUP)
        for closer in self._closers:
            await asyncio.wait_for(closer(), CLEANUP)

    def _take(self) -> None:
        self._inbox_woken = False
        while self._inbox and not self._stopping:
            call = self._inbox.popleft()
            if call.waits:
                self._start(call)
            else:
                self._run(call)

    def _start(self, call: Call) -> None:
        call.task = self.loop.create_task(_shielded(call.make), context=call.context)
        call.task.add_done_callback(functools.partial(self._ended, call))
        wait = max(0.0, call.deadline - time.monotonic())
        call.timer = self.loop.call_later(wait, self._time_out, call)

    def _run(self, call: Call) -> None:
        """Run a script that never waits, from its first line to its last."""
        value: Any = None
        error: BaseException | None = None
        try:
            call.context.run(_shielded(call.make).send, None)
            error = ScriptStopped("the script waits, and was not meant to")
        except StopIteration as end:
            value = end.value
        except asyncio.CancelledError:
            error = ScriptStopped("the script was cancelled")
        except BaseException as fault:
            error = fault
        if time.monotonic() > call.deadline:
            error = TimedOut(call.seconds, None)
        self._send(call, value, _tamed(error), ended=True)

    def _time_out(self, call: Call) -> None:
        if call.task is None:
            return
        call.timed_out = TimedOut(call.seconds, place_of_wait(call.task.get_coro()))
        call.task.cancel()
        call.timer = self.loop.call_later(REACTION / 2, self._give_up, call)

    def _give_up(self, call: Call) -> None:
        log.warning("a script goes on though it was cancelled: %s", call.timed_out)
        self._send(call, None, call.timed_out, ended=False)

    def _cancel(self, call: Call) -> None:
        if call.task is not None:
            call.task.cancel()

    def _ended(self, call: Call, task: asyncio.Task[Any]) -> None:
        if call.timer is not None:
            call.timer.cancel()
        error = ScriptStopped("the script was cancelled") if task.cancelled() else task.exception()
        error = call.timed_out or _tamed(error)
        self._send(call, None if error else task.result(), error, ended=True)

    def _send(self, call: Call, value: Any, error: BaseException | None, *, ended: bool) -> None:
        self._outbox.append((call, value, error, ended))
        if not self._home_woken:
            self._home_woken = True
            with contextlib.suppress(RuntimeError):  # home may have been closed since
                self._home.call_soon_threadsafe(self._collect)


def never_waits(function: Callable[..., Any]) -> bool:
    """Tell whether an `async def` has no `await` in it, nor anything else that could suspend it."""
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and _never_suspends(code)


@functools.lru_cache(maxsize=1024)
def _never_suspends(code: CodeType) -> bool:
    flags = code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)
    return flags == inspect.CO_COROUTINE and all(
        step.opname not in _SUSPENDING for step in dis.get_instructions(code)
    )


async def _shielded(make: Callable[[], Awaitable[Any]]) -> Any:
    """Run a script so that nothing it raises reaches the loop (asyncio lets SystemExit through)."""
    try:
        return await make()
    except (SystemExit, KeyboardInterrupt, StopIteration) as error:
        raise ScriptStopped(f"the script raised {type(error).__name__}") from error


def _tamed(error: BaseException | None) -> BaseException | None:
    if isinstance(error, GeneratorExit):
        return ScriptStopped("the script raised GeneratorExit")
    return error


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
