"""One event loop in one thread: script calls are submitted to it, results come back.

Calls and results are handed over in batches, one wake-up for all of them: a wake-up for each call
costs a third of the rate. Nothing that a script raises ends the thread.
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
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.plugins.scripting.live_work import LiveWork, ScriptThreads, add_task, keep_in
from gateway.plugins.scripting.trace import place_of_wait
from gateway.telemetry.logs import event

REACTION_TIMEOUT: Final = 1.0
"""Seconds after a call's time-out within which the executor must have a result."""

CLEANUP_TIMEOUT: Final = 1.0
"""Seconds for cancelled tasks, and then for each closer, before the loop is closed."""

_SUSPENDING: Final = frozenset({"SEND", "YIELD_VALUE", "YIELD_FROM"})
"""What `await`, `async for` and `async with` are compiled to."""

Closer = Callable[[], Awaitable[None]]
log = logging.getLogger("gateway.executor")


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
    """One call of a script: its function, its context, its deadline and the future of its result.

    `live`, if given, holds what of the call has not ended, also behind its result.
    """

    function: Callable[[], Awaitable[Any]]
    timeout: float
    result: asyncio.Future[Any]
    suspends: bool
    deadline: float
    live: LiveWork | None = None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    task: asyncio.Task[Any] | None = None
    timer: asyncio.TimerHandle | None = None
    time_out_error: TimedOut | None = None


class ExecutorThread:
    """An event loop in a daemon thread. `calls` are those in flight.

    Methods belong to the caller's loop, the one that made this object, except those marked as the
    thread's own. A call stays in `calls` until its task has ended, even if its result was given
    before (a script that ignores its cancellation).
    """

    def __init__(self, name: str, closers: Sequence[Closer]) -> None:
        self.calls: set[ScriptCall] = set()
        self.loop = _new_loop()
        self._caller_loop = asyncio.get_running_loop()
        self._closers = closers
        self._submitted: deque[ScriptCall] = deque()
        self._results: deque[tuple[ScriptCall, Any, BaseException | None, bool]] = deque()
        self._start_scheduled = self._delivery_scheduled = self._stopping = False
        self._thread = threading.Thread(target=self._run_loop, name=f"script-{name}", daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int | None:
        """The thread's id, for `trace.frame_of`."""
        return self._thread.ident

    def submit(self, call: ScriptCall) -> None:
        """Let the thread run a call."""
        self.calls.add(call)
        self._submitted.append(call)
        if not self._start_scheduled:
            self._start_scheduled = True
            self.loop.call_soon_threadsafe(self._start_submitted)

    def cancel_call(self, call: ScriptCall) -> None:
        """Cancel a call whose caller was cancelled."""
        with contextlib.suppress(RuntimeError):  # the loop may have been closed since
            self.loop.call_soon_threadsafe(self._cancel_task, call)

    def stop(self) -> None:
        """Let the loop cancel its tasks, run its closers and end."""
        self._stopping = True
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)

    def abandon(self) -> None:
        """Give up a blocked thread without waiting for its end.

        An endless loop would take half of the interpreter's time for ever, so `SystemExit` is
        raised in it. A thread that hangs in a system call does not notice and costs nothing.
        """
        self.stop()
        if self.ident is not None:
            thread_id, error = ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread_id, error)

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread, `timeout` seconds at most. Blocks. Tell whether it ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _deliver_results(self) -> None:
        self._delivery_scheduled = False
        while self._results:
            call, value, error, ended = self._results.popleft()
            if ended:
                self.calls.discard(call)
            if call.result.done():
                continue
            if error is None:
                call.result.set_result(value)
            else:
                call.result.set_exception(error)

    # The methods below run in the thread.

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_default_executor(ScriptThreads(thread_name_prefix=self._thread.name))
        while not self._stopping:
            try:
                self.loop.run_forever()
            except BaseException as error:
                if not self._stopping:
                    log.error(
                        "a background task of a script raised %s",
                        type(error).__name__,
                        extra=event("task.failed"),
                    )
        try:
            self.loop.run_until_complete(self._clean_up())
        except BaseException as error:
            log.warning(
                "a script executor did not close cleanly: %s",
                type(error).__name__,
                extra=event("executor.failed"),
            )
        finally:
            self.loop.close()

    async def _clean_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLEANUP_TIMEOUT)
        for closer in self._closers:
            await asyncio.wait_for(closer(), CLEANUP_TIMEOUT)

    def _start_submitted(self) -> None:
        self._start_scheduled = False
        while self._submitted and not self._stopping:
            call = self._submitted.popleft()
            if call.suspends:
                self._start_task(call)
            else:
                self._run_to_end(call)

    def _start_task(self, call: ScriptCall) -> None:
        if call.live is not None:
            call.context.run(keep_in, call.live)
        call.task = self.loop.create_task(_contained(call.function), context=call.context)
        call.task.add_done_callback(functools.partial(self._finish_task, call))
        if call.live is not None:
            add_task(call.live, call.task)
        remaining = max(0.0, call.deadline - time.monotonic())
        call.timer = self.loop.call_later(remaining, self._time_out, call)

    def _run_to_end(self, call: ScriptCall) -> None:
        """Run a script that never suspends, without a task."""
        value: Any = None
        error: BaseException | None = None
        try:
            call.context.run(_contained(call.function).send, None)
            error = ScriptStopped("the script suspended although it has no `await`")
        except StopIteration as end:
            value = end.value
        except asyncio.CancelledError:
            error = ScriptStopped("the script was cancelled")
        except BaseException as raised:
            error = raised
        if time.monotonic() > call.deadline:
            error = TimedOut(call.timeout, None)
        self._send_result(call, value, _as_stopped(error), ended=True)

    def _time_out(self, call: ScriptCall) -> None:
        if call.task is None:
            return
        call.time_out_error = TimedOut(call.timeout, place_of_wait(call.task.get_coro()))
        call.task.cancel()
        call.timer = self.loop.call_later(REACTION_TIMEOUT / 2, self._give_up, call)

    def _give_up(self, call: ScriptCall) -> None:
        log.warning(
            "a script ignores its cancellation: %s",
            call.time_out_error,
            extra=event("cancellation.ignored"),
        )
        self._send_result(call, None, call.time_out_error, ended=False)

    def _cancel_task(self, call: ScriptCall) -> None:
        if call.task is not None:
            call.task.cancel()

    def _finish_task(self, call: ScriptCall, task: asyncio.Task[Any]) -> None:
        if call.timer is not None:
            call.timer.cancel()
        error = ScriptStopped("the script was cancelled") if task.cancelled() else task.exception()
        error = call.time_out_error or _as_stopped(error)
        self._send_result(call, None if error else task.result(), error, ended=True)

    def _send_result(
        self, call: ScriptCall, value: Any, error: BaseException | None, *, ended: bool
    ) -> None:
        self._results.append((call, value, error, ended))
        if not self._delivery_scheduled:
            self._delivery_scheduled = True
            with contextlib.suppress(RuntimeError):  # the caller's loop may have been closed since
                self._caller_loop.call_soon_threadsafe(self._deliver_results)


def never_suspends(function: Callable[..., Any]) -> bool:
    """Tell whether an `async def` has no `await`, nor anything else that could suspend it."""
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and _code_never_suspends(code)


@functools.lru_cache(maxsize=1024)
def _code_never_suspends(code: CodeType) -> bool:
    flags = code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)
    return flags == inspect.CO_COROUTINE and all(
        step.opname not in _SUSPENDING for step in dis.get_instructions(code)
    )


async def _contained(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run a script so that nothing it raises reaches the loop (asyncio lets SystemExit through)."""
    try:
        return await function()
    except (SystemExit, KeyboardInterrupt, StopIteration) as error:
        raise ScriptStopped(f"the script raised {type(error).__name__}") from error


def _as_stopped(error: BaseException | None) -> BaseException | None:
    if isinstance(error, GeneratorExit):
        return ScriptStopped("the script raised GeneratorExit")
    return error


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
