"""A lane: where scripts run, beside the server's loop and never on it.

One rule: whatever a script does, `call` answers within its time-out and a second. A lane that does
not react is abandoned and replaced, three times at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from gateway.errors import GatewayError, Refusal
from gateway.plugins.scripting.executor_thread import REACTION, Call, Closer, ExecutorThread
from gateway.plugins.scripting.trace import frame_of, outermost_and_innermost, place_of_frame
from gateway.plugins.scripting.watchdog import TICK, Watchdog

REPLACEMENTS: Final = 3
IN_FLIGHT: Final = 10_000
JOIN_SECONDS: Final = 3.0

log = logging.getLogger("gateway.lane")
Result = TypeVar("Result")


class ExecutorLost(GatewayError):
    """The lane was stuck and has been abandoned, with all calls that were in flight, or is closed."""


class ScriptExecutor:
    """An event loop in a thread of its own. All methods belong to one loop, the server's.

    `closers` run in the lane's loop before it ends. `limit` bounds the calls in flight.
    `watched` is False where blocking is nobody's fault.
    """

    def __init__(
        self, name: str, closers: Sequence[Closer] = (), limit: int = IN_FLIGHT, watched: bool = True
    ) -> None:
        self._name = name
        self._closers = closers
        self._limit = limit
        self._watched = watched
        self._thread: ExecutorThread | None = None
        self._watchdog: Watchdog | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._looked = self._awake_since = time.monotonic()
        self._replaced = 0
        self._closed = False

    @property
    def alive(self) -> bool:
        """False once lost or closed."""
        return not self._closed and not self.lost

    @property
    def lost(self) -> bool:
        """True after the last replacement was lost too."""
        return self._replaced > REPLACEMENTS

    @property
    def in_flight(self) -> int:
        """How many calls have not ended."""
        return len(self._thread.calls) if self._thread else 0

    def start(self) -> None:
        """Start the thread now, rather than at the first call."""
        self._ready()

    async def call(
        self,
        make: Callable[[], Awaitable[Result]],
        timeout: float,  # noqa: ASYNC109
        *,
        waits: bool = True,
    ) -> Result:
        """Run `make()` in the lane, in a copy of this context, and return its result.

        `waits` is False where `make()` is a coroutine that never awaits: it needs no task.
        Raises what it raises, `ScriptStopped` for what would stop a program, `TimeoutError` after
        `timeout` seconds, `ExecutorLost`, or `Refusal("overloaded")` with `limit` calls in flight.
        """
        thread = self._ready()
        if len(thread.calls) >= self._limit:
            raise Refusal("overloaded", "too many requests are waiting for handlers")
        call = Call(make, timeout, asyncio.get_running_loop().create_future(), waits=waits)
        thread.put(call)
        self._watch()
        try:
            result: Result = await call.answer
            return result
        except asyncio.CancelledError:
            thread.cancel(call)
            raise

    async def close(self, grace: float) -> None:
        """Let calls in flight end for `grace` seconds, cancel the rest, end the thread."""
        self._closed = True
        thread = self._thread
        if thread is None:
            return
        answers = [call.answer for call in thread.calls if not call.answer.done()]
        if answers:
            await asyncio.wait(answers, timeout=grace)
        thread.stop()
        self._lose(thread, "the gateway is stopping")
        if self._ticking is not None:
            self._ticking.cancel()
        if not await asyncio.to_thread(thread.join, JOIN_SECONDS):
            thread.abandon()
            log.warning("lane %s does not end; left behind", self._name)

    def _ready(self) -> ExecutorThread:
        if not self.alive:
            raise ExecutorLost(f"lane {self._name} is {'closed' if self._closed else 'lost'}")
        if self._thread is None:
            self._thread = ExecutorThread(self._name, self._closers)
            self._watchdog = Watchdog(self._name, self._thread.loop)
        return self._thread

    def _watch(self) -> None:
        if self._ticking is None:
            self._looked = time.monotonic()
            self._ticking = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        """Look after all calls at once: a timer for each of them costs more than a short script."""
        self._ticking = None
        thread = self._thread
        if thread is None or not thread.calls:
            return
        if self._watched and self._watchdog is not None:
            self._watchdog.look(thread.ident)
        now = time.monotonic()
        # Where this very loop was held up: what it did not see is no fault of the lane.
        if now - self._looked > TICK + REACTION / 2:
            self._awake_since = now
        latest = now - REACTION + TICK
        if self._awake_since < latest and any(
            call.deadline < latest and not call.answer.done() for call in thread.calls
        ):
            self._replace(thread)
        self._watch()

    def _replace(self, thread: ExecutorThread) -> None:
        frames = outermost_and_innermost(frame_of(thread.ident))
        place = place_of_frame(frames[1]) if frames else "an unknown place"
        self._replaced += 1
        self._thread = None
        log.error(
            "lane %s is stuck at %s and abandoned; %d of %d replacements are used",
            self._name,
            place,
            min(self._replaced, REPLACEMENTS),
            REPLACEMENTS,
        )
        thread.abandon()
        self._lose(thread, f"lane {self._name} was stuck at {place}")
        if self.alive:
            self._ready()

    def _lose(self, thread: ExecutorThread, why: str) -> None:
        for call in thread.calls:
            if not call.answer.done():
                call.answer.set_exception(ExecutorLost(why))
        thread.calls.clear()
