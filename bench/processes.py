"""A server as a process: start, wait, measure, stop.

Started processes are stopped with all their children, however the bench ends.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from bench.samples import BenchError

STOP_TIMEOUT = 30.0
"""Seconds within which a server must start, settle or stop."""


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _HeldSignals:
    """Blocks stop signals between the start of a process and its registration."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _note(self, number: int, _: object) -> None:
        self._came.append(number)

    def let_go(self) -> None:
        """Unblock signals, first those that arrived meanwhile."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for came in self._came:
            signal.raise_signal(came)


class Server:
    """A command that listens on `port`; its output goes to `log`."""

    def __init__(
        self, command: Sequence[str], port: int, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._command = command
        held = _HeldSignals()
        try:
            with log.open("wb") as output:
                # A process group of its own: Ctrl-C reaches the bench only, which then ends everything.
                # Not a session: the kernel would share the processors among servers and clients
                # by session, see `scheduling`.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **(environ or {})},
                    process_group=0,
                )
        except BaseException:
            held.let_go()
            raise
        try:
            held.let_go()
            self._wait_for(port)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        output = self._log.read_text(errors="replace")[-2000:]
        raise BenchError(f"did not start: {' '.join(self._command)}\n{output}")

    def _tree(self) -> list[psutil.Process]:
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def cpu(self) -> float:
        """Return user and system seconds that all processes of the server have used."""
        total = 0.0
        for process in self._tree():
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def settle(self) -> None:
        """Wait until the server has finished its work after the last response."""
        deadline = time.monotonic() + STOP_TIMEOUT
        before = -1.0
        while (now := self.cpu()) != before and time.monotonic() < deadline:
            before = now
            time.sleep(0.15)

    def resident(self) -> int:
        """Return bytes of memory resident now, summed over all processes."""
        return sum(process.memory_info().rss for process in self._tree())

    def peak(self) -> int:
        """Return the sum of the most that each process ever had resident, bytes."""
        return sum(_high_water(process.pid) for process in self._tree())

    def stop(self) -> None:
        """Stop the server: SIGTERM, then SIGKILL."""
        if self._process.poll() is not None:
            return
        tree = self._tree()
        self._process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=STOP_TIMEOUT)
        for process in alive:
            process.kill()
        self._process.wait()


def _high_water(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else 0
