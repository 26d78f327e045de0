"""The line between the supervisor and a child of its.

A child says when it is prepared (all settled, the port still closed), waits for the go, and says
when it is ready. Should the supervisor die, its end of every line closes and the children kill
themselves: what they promised survives that as it survives any kill -9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import Final

PREPARED: Final = b"p"
READY: Final = b"r"
_GO: Final = b"g"


class SupervisorChannel:
    """A child's end of the line. Dies with it: see the module's rule."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._go = threading.Event()
        threading.Thread(target=self._watch, name="link", daemon=True).start()

    def prepared(self) -> None:
        """Say that everything is settled, and wait until the port may be opened."""
        self._line.sendall(PREPARED)
        self._go.wait()

    def ready(self) -> None:
        """Say that requests are taken."""
        self._line.sendall(READY)

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while self._line.recv(1):
                self._go.set()
        os.kill(os.getpid(), signal.SIGKILL)


def allow_to_listen(line: socket.socket) -> None:
    """Let the child at the other end open the port."""
    with contextlib.suppress(ConnectionError):
        line.sendall(_GO)
