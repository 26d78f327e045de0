"""The channel between the supervisor and one of its processes.

A process reports that it is prepared (recovered, the port still closed), waits until it may listen, and
reports that it is ready. If the supervisor dies, its ends of all channels close and the processes kill
themselves: what they promised survives that as it survives any kill -9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import Final

from gateway.server.forking import withhold_socket

PREPARED: Final = b"p"
READY: Final = b"r"
_GO: Final = b"g"


class SupervisorChannel:
    """A process's end. It kills the process when the supervisor has died."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        withhold_socket(line.fileno())
        self._go = threading.Event()
        threading.Thread(target=self._watch, name="supervisor-channel", daemon=True).start()

    def prepared(self) -> None:
        """Report that everything is recovered, and wait until the port may be opened."""
        self._line.sendall(PREPARED)
        self._go.wait()

    def ready(self) -> None:
        """Report that requests are accepted."""
        self._line.sendall(READY)

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while self._line.recv(1):
                self._go.set()
        os.kill(os.getpid(), signal.SIGKILL)


def allow_to_listen(line: socket.socket) -> None:
    """Let the process at the other end open the port."""
    with contextlib.suppress(ConnectionError):
        line.sendall(_GO)
