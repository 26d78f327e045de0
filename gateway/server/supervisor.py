"""Supervises several processes that share the port: restarts them, ends them together.

It has no thread and no event loop, so that it may fork at any time, and it serves no request. Its
protocol with the processes is in `supervisor_channel`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.server import heartbeat
from gateway.server.forking import fork_worker_process
from gateway.server.os_process import SIGNALS, end_process, flush_output, received_signals, reset_signals
from gateway.server.supervisor_channel import (
    HEARTBEAT,
    MAX_MESSAGE_BYTES,
    PREPARED,
    READY,
    SupervisorChannel,
    allow_to_listen,
    send_unresponsive,
)
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.supervisor")

STEADY_TIME: Final = 10.0
"""Seconds after which a process that dies is restarted at once."""

MIN_RESTART_DELAY: Final = 0.1
MAX_RESTART_DELAY: Final = 30.0
"""Seconds before a process that dies repeatedly is restarted, doubling between the two."""

FORK_RETRY_DELAY: Final = 1.0
"""Seconds before a failed fork is tried again."""

KILL_TIMEOUT: Final = 15.0
"""Seconds beyond the grace time after which a process that does not end is killed."""

Work = Callable[[int, SupervisorChannel], int]
"""Runs a process, given its slot and its channel; returns its exit code."""


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
    """Runs `work` in `count` processes. `on_ready()` is called once, when each has been ready.

    `on_end(slot)` is called whenever a process has ended, `on_stop()` when all are signalled to end,
    which takes them at most `grace` seconds. Each process finds in `health` which others hang.
    """

    count: int
    work: Work
    grace: float
    on_ready: Callable[[], None]
    on_end: Callable[[int], None]
    on_stop: Callable[[], None]
    health: heartbeat.ProcessHealth = field(default_factory=heartbeat.ProcessHealth)
    _monitor: heartbeat.HeartbeatMonitor = field(default_factory=heartbeat.HeartbeatMonitor)
    _children: dict[int, _Child] = field(default_factory=dict)
    _due: dict[int, float] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _served: set[int] = field(default_factory=set)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    opened: bool = False
    _announced: bool = False
    _kill_at: float | None = None
    _code: int = 0

    def run(self) -> int:
        """Supervise until a stop signal; return the exit code.

        If a process exits before all have been ready, all end, with its exit code.
        """
        gc.freeze()  # what is loaded now stays shared with the children
        with received_signals() as wakeup:
            self._selector.register(wakeup, selectors.EVENT_READ)
            self._spawn(0)
            while self._children or (self._due and self._kill_at is None):
                for key, _ in self._selector.select(self._timeout()):
                    if key.data is None:
                        self._handle_signals(wakeup.recv(64))
                    else:
                        self._read_message(key.data)
                self._reap()
                self._check_heartbeats()
                self._check_deadlines()
        return self._code

    # -- messages of processes

    def _read_message(self, child: _Child) -> None:
        message = b""
        with contextlib.suppress(ConnectionError):
            message = child.line.recv(MAX_MESSAGE_BYTES)
        if not message:  # it is about to be reaped
            self._selector.unregister(child.line)
        if PREPARED in message:
            self._prepared(child)
        if READY in message:
            self._ready(child)
        if HEARTBEAT in message and child.ready and self._monitor.note_heartbeat(child.slot):
            self._send_unresponsive()

    def _prepared(self, child: _Child) -> None:
        """Let it listen, at the first start once all are prepared."""
        child.prepared = True
        if self.opened:
            allow_to_listen(child.line)
            return
        for slot in range(self.count):  # the first has reported errors of the settings, if any
            if slot not in self._children and slot not in self._due:
                self._spawn(slot)
        if all(other.prepared for other in self._children.values()):
            self.opened = True
            for other in self._children.values():
                allow_to_listen(other.line)

    def _ready(self, child: _Child) -> None:
        child.ready = True
        self._monitor.note_heartbeat(child.slot)
        send_unresponsive(child.line, self._monitor.unresponsive)
        if child.slot in self._served:
            log.info(
                "process %d serves again", child.slot, extra=event("process.restarted", slot=child.slot)
            )
        self._served.add(child.slot)
        if len(self._served) == self.count and not self._announced:
            self._announced = True
            self.on_ready()

    def _check_heartbeats(self) -> None:
        """Find processes that hang. During a stop they are killed: they would not end."""
        if self._monitor.check():
            self._send_unresponsive()
            self._kill_unresponsive()

    def _send_unresponsive(self) -> None:
        for child in self._children.values():
            send_unresponsive(child.line, self._monitor.unresponsive)

    # -- exits

    def _reap(self) -> None:
        """Reap what has ended; as the first process of a container, orphans of others too."""
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = reaped
                for child in [child for child in self._children.values() if child.pid == pid]:
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        del self._children[child.slot]
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.line)
        child.line.close()
        if self._monitor.forget(child.slot):
            self._send_unresponsive()
        self.on_end(child.slot)
        if self._kill_at is not None:
            if code not in {0, -signal.SIGTERM}:
                self._code = self._code or 1
        elif not self.opened or (code >= 0 and not self._announced):
            self._code = max(code, 0) or 1
            self._stop()
        else:
            self._schedule_restart(child, code)

    def _schedule_restart(self, child: _Child, code: int) -> None:
        steady = child.ready and time.monotonic() - child.born > STEADY_TIME
        failures = 0 if steady else self._failures.get(child.slot, 0)
        self._failures[child.slot] = failures + 1
        pause = (
            min(MIN_RESTART_DELAY * 2.0 ** min(failures - 1, 60), MAX_RESTART_DELAY) if failures else 0.0
        )
        self._due[child.slot] = time.monotonic() + pause
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        log.error(
            "process %d (pid %d) %s; it is restarted in %.1f s, the others go on",
            *(child.slot, child.pid, how, pause),
            extra=event("process.exited", slot=child.slot, code=code),
        )

    # -- signals and deadlines

    def _handle_signals(self, numbers: bytes) -> None:
        if {signal.SIGTERM, signal.SIGINT} & set(numbers) and self._kill_at is None:
            log.info(
                "stopping: each process finishes its running uploads", extra=event("supervisor.stopping")
            )
            self._stop()
        elif signal.SIGHUP in numbers:
            self._signal_all(signal.SIGHUP)

    def _stop(self) -> None:
        self._kill_at = time.monotonic() + self.grace + KILL_TIMEOUT
        self._signal_all(signal.SIGTERM)
        self._kill_unresponsive()
        self.on_stop()

    def _kill_unresponsive(self) -> None:
        for child in self._children.values():
            if self._kill_at is not None and child.slot in self._monitor.unresponsive:
                os.kill(child.pid, signal.SIGKILL)

    def _signal_all(self, number: int) -> None:
        for child in self._children.values():
            os.kill(child.pid, number)  # not yet reaped: the pid is still the child's

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        if self._kill_at is None:
            for slot in [slot for slot, due in self._due.items() if due <= now]:
                del self._due[slot]
                self._spawn(slot)
        elif now >= self._kill_at:
            count = len(self._children)
            message = "%d processes did not end in time and are killed"
            log.error(message, count, extra=event("process.killed", count=count))
            self._signal_all(signal.SIGKILL)
            self._kill_at = now + KILL_TIMEOUT

    def _timeout(self) -> float | None:
        """Return the seconds until the next deadline or look at heartbeats, None without any."""
        moments = [*self._due.values()] if self._kill_at is None else [self._kill_at]
        seconds = [max(0.0, moment - time.monotonic()) for moment in moments]
        return min(seconds + self._monitor.delays, default=None)

    # -- starting

    def _spawn(self, slot: int) -> None:
        """Start a process, or try again later where the fork fails: the others go on."""
        try:
            pid, ours = self._fork(slot)
        except OSError as error:
            log.error(
                "process %d cannot be started yet, the others go on: %s",
                slot,
                error,
                extra=event("process.delayed", slot=slot),
            )
            self._due[slot] = time.monotonic() + FORK_RETRY_DELAY
            return
        child = _Child(slot, pid, ours, time.monotonic())
        self._children[slot] = child
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _fork(self, slot: int) -> tuple[int, socket.socket]:
        """Return a process's pid and this end of its channel. Raises `OSError`."""
        ours, theirs = socket.socketpair()
        flush_output()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child has handlers of its own
        try:
            if not (pid := fork_worker_process()):
                self._run_child(slot, ours, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            theirs.close()
        return pid, ours

    def _run_child(self, slot: int, ours: socket.socket, theirs: socket.socket) -> None:
        """Run the process. Never returns: the stack above belongs to the supervisor."""
        code = 1
        try:
            for line in (ours, *(child.line for child in self._children.values())):
                line.close()  # held here too, they would hide the supervisor's death from the others
            self._selector.close()
            reset_signals()
            code = self.work(slot, SupervisorChannel(theirs, self.health))
        except BaseException:
            log.exception("worker process %d failed", slot, extra=event("process.failed", slot=slot))
        finally:
            end_process(code)
