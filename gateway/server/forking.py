"""Takes from forked children what is the gateway's: locks, journal, ports and connections.

Scripts may fork: `multiprocessing` does so by default on Linux. A lock, a bound port and a connection
end with the last process that has them, so a child that outlives the gateway would keep the directory
locked and clients waiting for an answer. In a child each such descriptor becomes `/dev/null`: its number
stays taken, so that what still refers to it there reaches no other file.

Taken are the files below the state folder but for the records, all TCP and UDP sockets, the sockets
between the processes of a gateway, and what is registered. Pipes, socket pairs and other files of the
script stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_OWN_DESCRIPTORS: Final = "/proc/self/fd"
_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_OWNER_SOCKET: Final = re.compile(r"/owner-\d+\.sock")
_RECORDS: Final = re.compile(r"/records\.db(-wal|-shm)?")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD)


class _ForkingThread(threading.local):
    """The signal mask of a thread before it began to fork, None while it does not."""

    mask: set[int] | None = None


class _Registry:
    """What is withheld from children, while something is."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.sockets: set[int] = set()
        self.forks_worker = False
        self._thread = _ForkingThread()
        os.register_at_fork(
            before=self._before,
            after_in_parent=self._unblock_signals,
            after_in_child=self._after_in_child,
        )

    def _before(self) -> None:
        """Block signals: one that reached the child now would be told to the gateway."""
        if self.folders and not self.forks_worker:
            self._thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def _unblock_signals(self) -> None:
        mask, self._thread.mask = self._thread.mask, None
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _after_in_child(self) -> None:
        if self._thread.mask is None:
            return
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in map(int, os.listdir(_OWN_DESCRIPTORS)):
            with contextlib.suppress(OSError):  # the folder that was listed is closed by now
                if descriptor > 2 and self._is_withheld(descriptor):
                    os.dup2(null, descriptor, inheritable=False)
        os.close(null)
        _reset_signals()
        self._unblock_signals()

    def _is_withheld(self, descriptor: int) -> bool:
        if descriptor in self.sockets:
            return True
        target = os.readlink(f"{_OWN_DESCRIPTORS}/{descriptor}")
        if target.startswith("socket:"):
            return _is_of_network_or_process(descriptor)
        return any(_is_withheld_file(target, folder) for folder in self.folders)


_registry: Final = _Registry()


@contextlib.contextmanager
def withhold(state_folder: Path) -> Iterator[None]:
    """Withhold from children what the gateway opens, until the end of the context."""
    folder = str(state_folder.resolve())
    _registry.folders.append(folder)
    try:
        yield
    finally:
        _registry.folders.remove(folder)


def withhold_socket(descriptor: int) -> None:
    """Withhold also a socket without a name, which is open as long as the process."""
    _registry.sockets.add(descriptor)


def fork_worker_process() -> int:
    """Fork a process of the gateway, which keeps everything; return as `os.fork` does."""
    _registry.forks_worker = True
    try:
        return os.fork()
    finally:
        _registry.forks_worker = False


def _is_withheld_file(target: str, folder: str) -> bool:
    """Tell whether `target` is the state folder or a file in it, other than the records.

    SQLite locks the records against other processes, and shares memory with them: it must not take
    `/dev/null` for the locked file. Those locks are no child's, so one that keeps the file holds
    nothing up.
    """
    if target != folder and not target.startswith(f"{folder}/"):
        return False
    return _RECORDS.fullmatch(target.removeprefix(folder)) is None


def _is_of_network_or_process(descriptor: int) -> bool:
    """Tell whether a socket is an Internet one, or one between processes of a gateway."""
    connection = socket.socket(fileno=descriptor)
    try:
        if connection.family != socket.AF_UNIX:
            return connection.family in _INTERNET
        names = [connection.getsockname()]
        with contextlib.suppress(OSError):  # it is not connected
            names.append(connection.getpeername())
        return any(isinstance(name, str) and _OWNER_SOCKET.search(name) for name in names)
    finally:
        connection.detach()


def _reset_signals() -> None:
    """Undo the signal handling of the gateway, which a signal to the child would reach."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if callable(signal.getsignal(number)):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
