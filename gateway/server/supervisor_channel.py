"""The channel between the supervisor and one of its processes.

A process reports that it is prepared (recovered, the port still closed), waits until it may listen, and
reports that it is ready, and again and again that it reacts. It is told which others do not. If the
supervisor dies, its ends of all channels close and the processes kill themselves: what they promised
survives that as it survives any kill -9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Collection
from typing import Final

from gateway.server.forking import withhold_socket
from gateway.server.heartbeat import ProcessHealth

PREPARED: Final = b"p"
READY: Final = b"r"
HEARTBEAT: Final = b"h"
_GO: Final = b"go\n"
_UNRESPONSIVE: Final = b"unresponsive"

MAX_MESSAGE_BYTES: Final = 4096
"""Bytes that are read at once."""


class SupervisorChannel:
    """A process's end; `health` gets what it is told. It kills the process when the supervisor died."""

    def __init__(self, line: socket.socket, health: ProcessHealth) -> None:
        self._line = line
        self._health = health
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

    def report_heartbeat(self) -> None:
        """Report that this process reacts. Never blocks, although the supervisor may be stopped."""
        _send_now(self._line, HEARTBEAT)

    def _watch(self) -> None:
        buffered = b""
        with contextlib.suppress(OSError):
            while received := self._line.recv(MAX_MESSAGE_BYTES):
                *messages, buffered = (buffered + received).split(b"\n")
                for message in messages:
                    self._receive(message)
        os.kill(os.getpid(), signal.SIGKILL)

    def _receive(self, message: bytes) -> None:
        name, *slots = message.split()
        if name == _UNRESPONSIVE:
            self._health.unresponsive = frozenset(map(int, slots))
        else:
            self._go.set()


def allow_to_listen(line: socket.socket) -> None:
    """Let the process at the other end open the port."""
    _send_now(line, _GO)


def send_unresponsive(line: socket.socket, slots: Collection[int]) -> None:
    """Tell the process at the other end which processes do not react, all of them."""
    _send_now(line, b" ".join([_UNRESPONSIVE, *(b"%d" % slot for slot in sorted(slots))]) + b"\n")


def _send_now(line: socket.socket, message: bytes) -> None:
    """Send a short message, or nothing where the other end has died or reads nothing any more."""
    with contextlib.suppress(ConnectionError, BlockingIOError):
        line.send(message, socket.MSG_DONTWAIT)
