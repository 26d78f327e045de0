"""One event loop in one thread: script calls are submitted to it, results come back.

Calls and results are handed over in batches, one wake-up for all of them: a wake-up for each call
costs a third of the rate. Nothing that a script raises ends the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from gateway.plugins.scripting.calls import ScriptCall, ScriptStopped, TimedOut, as_exception
from gateway.plugins.scripting.live_work import ScriptThreads, add_task, keep_in
from gateway.plugins.scripting.trace import place_of_wait
from gateway.telemetry.logs import event

REACTION_TIMEOUT: Final = 1.0
"""Seconds after a call's time-out within which the executor must have a result."""

MAX_COLLECTED: Final = 64
"""Calls that cross to the thread together, if they come in consecutive turns of the caller's loop."""

CLEANUP_TIMEOUT: Final = 1.0
"""Seconds for cancelled tasks, and then for each closer, before the loop is closed."""

Closer = Callable[[], Awaitable[None]]
log = logging.getLogger("gateway.executor")


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
        self._results: deque[tuple[ScriptCall, Any, Exception | None, bool]] = deque()
        self._delivered: asyncio.Event | None = None
        self._last_count = 0
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
            self._caller_loop.call_soon(self._wake, 0, context=contextvars.Context())

    def _wake(self, seen: int) -> None:
        """Wake the thread once a turn of the caller's loop brings no more calls.

        The loop releases the interpreter between two connections: a thread that is awake by then takes
        it, for one call.
        """
        count = len(self._submitted)
        if seen < count < MAX_COLLECTED and (count > 1 or self._last_count > 1):
            self._caller_loop.call_soon(self._wake, count, context=contextvars.Context())
            return
        self._last_count = count
        with contextlib.suppress(RuntimeError):  # the loop may have been closed since
            self.loop.call_soon_threadsafe(self._start_submitted)

    async def wait_for_results(self, seconds: float) -> None:
        """Wait until no caller waits for a result, `seconds` at most."""
        self._delivered = delivered = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(call.done is not None for call in self.calls):
                    delivered.clear()
                    await delivered.wait()

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
        for _ in range(len(self._results)):
            call, value, error, ended = self._results.popleft()
            if ended:
                self.calls.discard(call)
            call.give_result(value, error)
        if self._delivered is not None:
            self._delivered.set()

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
        tasks: list[ScriptCall] = []
        # No more than are here now: whatever else the loop has to do comes between two batches.
        for _ in range(len(self._submitted)):
            if self._stopping:
                return
            call = self._submitted.popleft()
            if call.done is None:  # cancelled before it began
                self._send_result(call, None, None, ended=True)
            elif call.suspends:
                self._start_task(call)
                tasks.append(call)
            else:
                self._run_to_end(call)
        if tasks:
            self.loop.call_soon(self._watch_unfinished, tasks)

    def _start_task(self, call: ScriptCall) -> None:
        if call.live is not None:
            call.context.run(keep_in, call.live)
        call.task = self.loop.create_task(self._run(call), context=call.context)

    def _watch_unfinished(self, calls: Sequence[ScriptCall]) -> None:
        """Watch what the first steps have not ended. Most do, and a timer costs as much as a task."""
        now = time.monotonic()
        for call in calls:
            if call.task is None:
                continue
            if call.task.done():
                if call.task.cancelled():  # before it began: it has sent no result
                    self._end_call(call, None, ScriptStopped("the script was cancelled"))
                continue
            if call.live is not None:
                add_task(call.live, call.task)
            call.timer = self.loop.call_later(max(0.0, call.deadline - now), self._time_out, call)

    def _run_to_end(self, call: ScriptCall) -> None:
        """Run a script that never suspends, without a task."""
        run = self._run(call)
        try:
            call.context.run(run.send, None)
        except StopIteration:
            return
        self._end_call(call, None, ScriptStopped("the script suspended although it has no `await`"))
        run.close()

    async def _run(self, call: ScriptCall) -> None:
        """Run a script and send its result. Nothing that it raises reaches the loop.

        A callback at the end of the task would send it one turn of the loop later: the thread would
        have to wait for the interpreter once more.
        """
        call.begun = time.monotonic()
        try:
            value = await call.function()
            if call.task is not None and call.task.cancelling():
                await asyncio.sleep(0)  # raises what the script has not seen of its cancellation
        except BaseException as error:
            self._end_call(call, None, error)
        else:
            self._end_call(call, value, None)

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

    def _end_call(self, call: ScriptCall, value: Any, error: BaseException | None) -> None:
        """Send the result of a call, or its time-out, also where it has blocked until then."""
        if call.timer is not None:
            call.timer.cancel()
        now = time.monotonic()
        call.seconds = now - call.begun
        if call.time_out_error is not None:
            error = call.time_out_error
        elif now > call.deadline:
            error = TimedOut(call.timeout, None)
        if error is None:
            self._send_result(call, value, None, ended=True)
        else:
            self._send_result(call, None, as_exception(error), ended=True)

    def _send_result(
        self, call: ScriptCall, value: Any, error: Exception | None, *, ended: bool
    ) -> None:
        self._results.append((call, value, error, ended))
        if not self._delivery_scheduled:
            self._delivery_scheduled = True
            with contextlib.suppress(RuntimeError):  # the caller's loop may have been closed since
                # In no context: this one belongs to another request.
                self._caller_loop.call_soon_threadsafe(
                    self._deliver_results, context=contextvars.Context()
                )


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
