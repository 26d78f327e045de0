"""The supervisor: several processes that share the port, kept alive and ended together.

The rule: it has no thread and no event loop, so that it may fork at any time, and it serves nobody.
What it and its children say to each other is in `link`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.server.supervisor_channel import PREPARED, READY, SupervisorChannel, allow_to_listen

log = logging.getLogger("gateway.supervisor")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

STEADY_TIME: Final = 10.0
"""A child that lived this long starts again at once when it dies."""

MIN_RESTART_DELAY: Final = 0.1
MAX_RESTART_DELAY: Final = 30.0
"""Seconds before a child that dies again and again is started again, doubling between the two."""

FORK_RETRY_DELAY: Final = 1.0
"""Seconds after which a child that could not even be forked is tried again."""

KILL_TIMEOUT: Final = 15.0
"""Seconds beyond the grace time after which a child that does not end is killed."""

Work = Callable[[int, SupervisorChannel], int]
"""What a child does, given its slot and its link; returns its exit code."""


@dataclass(slots=True)
class _Child:
    slot: int
    pid: int
    line: socket.socket
    born: float
    prepared: bool = False
    ready: bool = False


@dataclass(slots=True)
class Supervisor:
    """Runs `work` in `count` children. `on_ready()` is called once, when each has been ready.

    `on_end(slot)` is called whenever a child has ended, `on_stop()` when all are told to end, which
    takes them `grace` seconds at the most.
    """

    count: int
    work: Work
    grace: float
    on_ready: Callable[[], None]
    on_end: Callable[[int], None]
    on_stop: Callable[[], None]
    _children: dict[int, _Child] = field(default_factory=dict)
    _due: dict[int, float] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _served: set[int] = field(default_factory=set)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _opened: bool = False
    _announced: bool = False
    _kill_at: float | None = None
    _code: int = 0

    def run(self) -> int:
        """Supervise until a signal says stop; return the exit code.

        Where a child gives up before all have been ready, all end, with its exit code.
        """
        gc.freeze()  # what is loaded now stays shared with the children
        with _signals() as wakeup:
            self._selector.register(wakeup, selectors.EVENT_READ)
            self._spawn(0)
            while self._children or (self._due and self._kill_at is None):
                for key, _ in self._selector.select(self._patience()):
                    if key.data is None:
                        self._obey(wakeup.recv(64))
                    else:
                        self._hear(key.data)
                self._reap()
                self._look_at_the_clock()
        return self._code

    # -- what children say

    def _hear(self, child: _Child) -> None:
        words = b""
        with contextlib.suppress(ConnectionError):
            words = child.line.recv(16)
        if not words:  # it is about to be reaped
            self._selector.unregister(child.line)
        if PREPARED in words:
            self._prepared(child)
        if READY in words:
            self._ready(child)

    def _prepared(self, child: _Child) -> None:
        """Let it open the port, at the first start once all are prepared."""
        child.prepared = True
        if self._opened:
            allow_to_listen(child.line)
            return
        for slot in range(self.count):  # the first has said what is wrong with the settings, if anything
            if slot not in self._children and slot not in self._due:
                self._spawn(slot)
        if all(other.prepared for other in self._children.values()):
            self._opened = True
            for other in self._children.values():
                allow_to_listen(other.line)

    def _ready(self, child: _Child) -> None:
        child.ready = True
        if child.slot in self._served:
            log.info("process %d serves again", child.slot)
        self._served.add(child.slot)
        if len(self._served) == self.count and not self._announced:
            self._announced = True
            self.on_ready()

    # -- how children end

    def _reap(self) -> None:
        """Bury who has ended; as the first process of a container, strangers' orphans too."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                for child in [child for child in self._children.values() if child.pid == pid]:
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        del self._children[child.slot]
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.line)
        child.line.close()
        self.on_end(child.slot)
        if self._kill_at is not None:
            if code not in {0, -signal.SIGTERM}:
                self._code = self._code or 1
        elif not self._opened or (code >= 0 and not self._announced):
            self._code = max(code, 0) or 1
            self._stop()
        else:
            self._start_again(child, code)

    def _start_again(self, child: _Child, code: int) -> None:
        steady = child.ready and time.monotonic() - child.born > STEADY_TIME
        failures = 0 if steady else self._failures.get(child.slot, 0)
        self._failures[child.slot] = failures + 1
        pause = (
            min(MIN_RESTART_DELAY * 2.0 ** min(failures - 1, 60), MAX_RESTART_DELAY) if failures else 0.0
        )
        self._due[child.slot] = time.monotonic() + pause
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        log.error(
            "process %d (pid %d) %s; it is started again in %.1f s, the others go on",
            *(child.slot, child.pid, how, pause),
        )

    # -- what the world says

    def _obey(self, numbers: bytes) -> None:
        if {signal.SIGTERM, signal.SIGINT} & set(numbers) and self._kill_at is None:
            log.info("stopping: each process finishes the uploads on their way")
            self._stop()
        elif signal.SIGHUP in numbers:
            self._signal_all(signal.SIGHUP)

    def _stop(self) -> None:
        self._kill_at = time.monotonic() + self.grace + KILL_TIMEOUT
        self._signal_all(signal.SIGTERM)
        self.on_stop()

    def _signal_all(self, number: int) -> None:
        for child in self._children.values():
            os.kill(child.pid, number)  # not yet reaped: the pid is still the child's

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._kill_at is None:
            for slot in [slot for slot, due in self._due.items() if due <= now]:
                del self._due[slot]
                self._spawn(slot)
        elif now >= self._kill_at:
            log.error("%d processes did not end in time and are killed", len(self._children))
            self._signal_all(signal.SIGKILL)
            self._kill_at = now + KILL_TIMEOUT

    def _patience(self) -> float | None:
        """Seconds until the clock has something to say; None: only others have."""
        moments = self._due.values() if self._kill_at is None else (self._kill_at,)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    # -- births

    def _spawn(self, slot: int) -> None:
        """Start a child, or try again later: the others go on where no process can be had just now."""
        try:
            pid, ours = self._fork(slot)
        except OSError as fault:
            log.error("process %d cannot be started yet, the others go on: %s", slot, fault)
            self._due[slot] = time.monotonic() + FORK_RETRY_DELAY
            return
        child = _Child(slot, pid, ours, time.monotonic())
        self._children[slot] = child
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _fork(self, slot: int) -> tuple[int, socket.socket]:
        """Return a child's pid and our end of its line. Raises OSError."""
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child has handlers of its own
        try:
            pid = os.fork()
            if not pid:
                self._be_child(slot, ours, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            theirs.close()
        return pid, ours

    def _be_child(self, slot: int, ours: socket.socket, theirs: socket.socket) -> None:
        """Never returns: what stands on the stack above belongs to the supervisor."""
        code = 1
        try:
            for line in (ours, *(child.line for child in self._children.values())):
                line.close()  # held here too, they would hide the supervisor's death from the others
            self._selector.close()
            _forget_signals()
            code = self.work(slot, SupervisorChannel(theirs))
        except BaseException:
            log.exception("process %d broke", slot)
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(code)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Yield a socket on which the numbers of arriving signals can be read."""
    heard, told = socket.socketpair()
    heard.setblocking(False)
    told.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.close()
        told.close()


def _forget_signals() -> None:
    """Undo the supervisor's handling in a child, which sets its own when it serves.

    Until it loads its plugins a reload has nothing to do; Ctrl-C is the supervisor's to pass on.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
