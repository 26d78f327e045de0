"""Starts gateways by a fork: `python -m tests.support.spawner FD`, once for each process of pytest.

An import of the gateway takes 0.7 s of processor time, and the tests start about a thousand gateways.
That was most of what they took. A fork of a process that has imported it takes 0.02 s.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Final

from tests.support import PROJECT

MAX_REQUEST: Final = 1 << 20
PRELOADED: Final = ("gateway.cli.serve",)
_FDS: Final = 3
"""Of a request: standard output, standard error, and the pipe for the exit status."""


class ForkedProcess:
    """A process of the spawner, with what the tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, stdout: IO[bytes], status: int) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises `TimeoutExpired`."""
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"gateway {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM it."""
        self.send_signal(signal.SIGTERM)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._status, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                return None
            answer = os.read(self._status, 32)
            assert answer, "the spawner has ended"
            os.close(self._status)
            self.returncode = int(answer)
        return self.returncode


class Spawner:
    """The process that has imported the gateway. It ends with the process of pytest."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.support.spawner", str(theirs.fileno())]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, cwd=PROJECT, pass_fds=[theirs.fileno()]
            )

    def start(self, arguments: Sequence[str], stderr: int) -> ForkedProcess:
        """Start `failpoint_gateway` with `arguments` in the environment of now."""
        out, out_end = os.pipe()
        status, status_end = os.pipe()
        request = json.dumps({"arguments": list(arguments), "environment": dict(os.environ)})
        fds = array.array("i", [out_end, stderr, status_end])
        try:
            assert len(request) < MAX_REQUEST
            self._socket.sendmsg(
                [request.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())]
            )
            pid = int(self._socket.recv(32))
        finally:
            os.close(out_end)
            os.close(status_end)
        return ForkedProcess(pid, os.fdopen(out, "rb"), status)


_spawner: Spawner | None = None
_starting: Final = threading.Lock()


def start_executed(arguments: Sequence[str], stderr: int) -> subprocess.Popen[bytes]:
    """Start a gateway as a child of this process, from nothing."""
    command = [sys.executable, "-m", "tests.support.failpoint_gateway", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, cwd=PROJECT)


def start_forked(arguments: Sequence[str], stderr: int) -> ForkedProcess:
    """Start a gateway by the spawner of this process."""
    global _spawner
    with _starting:  # some tests start several at once, in threads
        if _spawner is None:
            _spawner = Spawner()
        return _spawner.start(arguments, stderr)


# -- in the spawner


def serve(requests: socket.socket) -> list[str]:
    """Fork for each request. Return in each child, with its arguments."""
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not requests:
                _report_end(selector, key)
                continue
            received, fds = _receive(requests)
            if not received:
                raise SystemExit
            pid = os.fork()
            if pid == 0:
                return _become_child(received, fds)
            requests.send(str(pid).encode())
            os.close(fds[0])
            os.close(fds[1])
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, fds[2]))


def _receive(requests: socket.socket) -> tuple[bytes, list[int]]:
    space = socket.CMSG_SPACE(_FDS * array.array("i").itemsize)
    received, ancillary, _, _ = requests.recvmsg(MAX_REQUEST, space)
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return received, fds.tolist()


def _report_end(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, status = key.data
    _, ended = os.waitpid(pid, 0)
    selector.unregister(key.fileobj)
    os.close(key.fd)
    with contextlib.suppress(BrokenPipeError):
        os.write(status, str(os.waitstatus_to_exitcode(ended)).encode())
    os.close(status)


def _become_child(received: bytes, fds: list[int]) -> list[str]:
    request = json.loads(received)
    os.dup2(fds[0], 1)
    os.dup2(fds[1], 2)
    os.closerange(3, max(1024, *fds) + 1)
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments: list[str] = request["arguments"]
    return arguments


def main() -> None:
    """Import, serve requests, and be a gateway in each child."""
    from tests.support import failpoint_gateway  # the tests themselves need none of it

    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    requests = socket.socket(fileno=int(sys.argv[1]))
    arguments = serve(requests)
    requests.detach()
    sys.argv[1:] = arguments
    raise SystemExit(failpoint_gateway.run(arguments))


if __name__ == "__main__":
    main()
