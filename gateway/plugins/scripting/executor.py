"""Runs scripts on an event loop of their own, in a thread beside the server's loop.

Whatever a script does, `call_script` returns within its time-out and a second. A thread that does not
react is abandoned and replaced, three times at most. A watchdog names the script that blocks it: it
probes from the server's thread, which is not blocked, and costs nothing while no call is in flight.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from gateway.errors import GatewayError, Refusal
from gateway.plugins.scripting.calls import ScriptCall, result_of
from gateway.plugins.scripting.executor_thread import REACTION_TIMEOUT, Closer, ExecutorThread
from gateway.plugins.scripting.live_work import LiveWork
from gateway.plugins.scripting.trace import frame_of, outermost_and_innermost, place_of_frame
from gateway.telemetry.logs import event

MAX_REPLACEMENTS: Final = 3
"""Threads of an executor that may be replaced before it counts as lost."""

MAX_CALLS: Final = 10_000
"""Calls of an executor that may be in flight."""

JOIN_TIMEOUT: Final = 3.0
"""Seconds that `close` waits for the end of the thread."""

PROBE_INTERVAL: Final = 0.05
"""Seconds between two probes."""

REPORT_DELAYS: Final = (0.1, 1.0, 10.0)
"""A block is reported when it has lasted this many seconds."""

log = logging.getLogger("gateway.executor")
Result = TypeVar("Result")


class ExecutorLost(GatewayError):
    """The executor is closed, or its thread was stuck and abandoned with all calls in flight."""


class ScriptExecutor:
    """An event loop in a thread of its own. All methods belong to one loop, the server's.

    `closers` run in that loop before it ends. `max_calls` bounds the calls in flight. With
    `watched=False` a script that blocks is not reported.
    """

    def __init__(
        self, name: str, closers: Sequence[Closer] = (), max_calls: int = MAX_CALLS, watched: bool = True
    ) -> None:
        self._name = name
        self._closers = closers
        self._max_calls = max_calls
        self._watched = watched
        self._thread: ExecutorThread | None = None
        self._watchdog: Watchdog | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._scheduled_at = self._awake_since = time.monotonic()
        self._replacements = 0
        self._closed = False

    @property
    def alive(self) -> bool:
        """False once lost or closed."""
        return not self._closed and not self.lost

    @property
    def lost(self) -> bool:
        """True after the last replacement was lost too."""
        return self._replacements > MAX_REPLACEMENTS

    @property
    def in_flight(self) -> int:
        """How many calls have not ended."""
        return len(self._thread.calls) if self._thread else 0

    def start(self) -> None:
        """Start the thread now, rather than at the first call."""
        self._running_thread()

    def submit(
        self,
        function: Callable[[], Awaitable[Result]],
        timeout: float,
        done: Callable[[Result, Exception | None], None],
        *,
        context: contextvars.Context | None = None,
        suspends: bool = True,
        live: LiveWork | None = None,
    ) -> ScriptCall:
        """Run `function()` in the executor and call `done(result, error)` later on, in no context.

        Calls of one turn of the loop cross together. The script runs in `context`, by default in a
        copy of this one. `suspends` is False for a coroutine that never awaits: it needs no task.
        `live` gets what of the call has not ended, and may outlive its time-out. The error is what
        the script raises, `ScriptStopped` for what would stop a program, `TimeoutError` after
        `timeout` seconds, or `ExecutorLost`; the result is None then. The call that is returned can
        be cancelled. Raises `ExecutorLost`, and `Refusal("overloaded")` with `max_calls` in flight.
        """
        thread = self._running_thread()
        if len(thread.calls) >= self._max_calls:
            raise Refusal("overloaded", "too many requests are waiting for handlers")
        if context is None:
            context = contextvars.copy_context()
        deadline = time.monotonic() + timeout
        call = ScriptCall(function, timeout, done, context, suspends, live, deadline, thread.loop)
        thread.submit(call)
        if self._probe_timer is None:
            self._schedule_probe()
        return call

    async def call_script(
        self,
        function: Callable[[], Awaitable[Result]],
        timeout: float,  # noqa: ASYNC109
        *,
        suspends: bool = True,
        live: LiveWork | None = None,
    ) -> Result:
        """Run `function()` as `submit` does and return its result, or raise its error."""
        return await result_of(
            lambda done: self.submit(function, timeout, done, suspends=suspends, live=live)
        )

    async def close(self, grace: float) -> None:
        """Let calls in flight end for `grace` seconds, cancel the rest, stop the thread."""
        self._closed = True
        thread = self._thread
        if thread is None:
            return
        await thread.wait_for_results(grace)
        thread.stop()
        self._fail_calls(thread, "the gateway is stopping")
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        if not await asyncio.to_thread(thread.join, JOIN_TIMEOUT):
            thread.abandon()
            log.warning(
                "script executor %s does not stop, its thread is abandoned",
                self._name,
                extra=event("executor.abandoned", executor=self._name),
            )

    def _running_thread(self) -> ExecutorThread:
        if not self.alive:
            state = "closed" if self._closed else "lost"
            raise ExecutorLost(f"script executor {self._name} is {state}")
        if self._thread is None:
            self._thread = ExecutorThread(self._name, self._closers)
            self._watchdog = Watchdog(self._name, self._thread.loop)
        return self._thread

    def _schedule_probe(self) -> None:
        self._scheduled_at = time.monotonic()
        self._probe_timer = asyncio.get_running_loop().call_later(
            PROBE_INTERVAL, self._probe, context=contextvars.Context()
        )

    def _probe(self) -> None:
        """Check all calls at once: a timer for each of them costs more than a short script."""
        self._probe_timer = None
        thread = self._thread
        if thread is None or not thread.calls:
            return
        if self._watched and self._watchdog is not None:
            self._watchdog.probe(thread.ident)
        now = time.monotonic()
        # This loop itself was held up: results may be here that it has not taken yet.
        if now - self._scheduled_at > PROBE_INTERVAL + REACTION_TIMEOUT / 2:
            self._awake_since = now
        latest = now - REACTION_TIMEOUT + PROBE_INTERVAL
        if self._awake_since < latest and any(
            call.deadline < latest and call.done is not None for call in thread.calls
        ):
            self._replace(thread)
        self._schedule_probe()

    def _replace(self, thread: ExecutorThread) -> None:
        frames = outermost_and_innermost(frame_of(thread.ident))
        place = place_of_frame(frames[1]) if frames else "an unknown place"
        self._replacements += 1
        self._thread = None
        log.error(
            "script executor %s is stuck at %s, its thread is abandoned; %d of %d replacements are used",
            self._name,
            place,
            min(self._replacements, MAX_REPLACEMENTS),
            MAX_REPLACEMENTS,
            extra=event("executor.replaced", executor=self._name, place=place),
        )
        thread.abandon()
        self._fail_calls(thread, f"script executor {self._name} was stuck at {place}")
        if self.alive:
            self._running_thread()

    def _fail_calls(self, thread: ExecutorThread, reason: str) -> None:
        calls, thread.calls = thread.calls, set()
        context = contextvars.Context()
        for call in calls:
            context.run(call.give_result, None, ExecutorLost(reason))


class Watchdog:
    """Watches one executor thread: call `probe()` every `PROBE_INTERVAL` seconds from another one."""

    def __init__(self, executor: str, loop: asyncio.AbstractEventLoop) -> None:
        self._executor = executor
        self._loop = loop
        self._probed_at: float | None = None
        self._reports = 0
        self._suspect: int | None = None

    def probe(self, thread_id: int | None) -> None:
        """Send the loop a callback, or report the script that has kept it from running the last one."""
        probed_at = self._probed_at  # the thread may take it away at any time
        if probed_at is None:
            self._probed_at, self._reports, self._suspect = time.monotonic(), 0, None
            self._loop.call_soon_threadsafe(self._note_alive)
            return
        frames = outermost_and_innermost(frame_of(thread_id))
        # The same call of the same script in two probes: not many short ones of one loop iteration.
        suspect = id(frames[0]) if frames else None
        blocked = time.monotonic() - probed_at
        if frames and suspect == self._suspect:
            self._report(blocked, place_of_frame(frames[1]))
        self._suspect = suspect

    def _note_alive(self) -> None:
        self._probed_at = None

    def _report(self, seconds: float, place: str) -> None:
        if self._reports >= len(REPORT_DELAYS) or seconds < REPORT_DELAYS[self._reports]:
            return
        while self._reports < len(REPORT_DELAYS) and seconds >= REPORT_DELAYS[self._reports]:
            self._reports += 1
        log.warning(
            "%s blocks its script executor: all other scripts there wait. Await, or use"
            " asyncio.to_thread()",
            place,
            extra=event(
                "executor.blocked",
                executor=self._executor,
                place=place,
                blocked_ms=round(seconds * 1000),
            ),
        )
