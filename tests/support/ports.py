"""Ports of 127.0.0.1 for servers that take a port number and may be killed and started again."""

from __future__ import annotations

import atexit
import contextlib
import socket
from collections.abc import Iterable, Iterator

_until_the_end = contextlib.ExitStack()
atexit.register(_until_the_end.close)


@contextlib.contextmanager
def reserve_ports(ports: Iterable[int]) -> Iterator[None]:
    """Reserve ports for servers of ours.

    The sockets are bound with `SO_REUSEADDR` and do not listen: a server can bind the number, and the
    kernel gives it to no other process, not even while the server is down between two starts.
    """
    with contextlib.ExitStack() as sockets:
        for port in ports:
            _bind(sockets, port)
        yield


@contextlib.contextmanager
def reserved_ports(count: int, twin: int = 0) -> Iterator[list[int]]:
    """Find ports and reserve them; with `twin`, those that are so much higher too."""
    with contextlib.ExitStack() as sockets:
        ports: list[int] = []
        while len(ports) < count:
            port = _bind_free(sockets, 0)
            with contextlib.suppress(OSError, OverflowError):  # taken, or there is no such port
                if twin:
                    _bind_free(sockets, port + twin)
                ports.append(port)
        yield ports


def free_ports(count: int, twin: int = 0) -> list[int]:
    """Return ports that nobody listens on, reserved until this process ends.

    Tests run in several processes: a port that is let go may be another's before it is used.
    """
    return _until_the_end.enter_context(reserved_ports(count, twin))


def free_port() -> int:
    """Return a port that nobody listens on."""
    return free_ports(1)[0]


def _bind_free(sockets: contextlib.ExitStack, port: int) -> int:
    """Bind a port that no other socket has, not even one that would share it: that may be reserved."""
    sock = sockets.enter_context(socket.socket())
    sock.bind(("127.0.0.1", port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return int(sock.getsockname()[1])


def _bind(sockets: contextlib.ExitStack, port: int) -> int:
    sock = sockets.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return int(sock.getsockname()[1])
