"""Ports of 127.0.0.1 for servers that must be told theirs, and that may die and come back."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def reserve_ports(ports: Iterable[int]) -> Iterator[None]:
    """Keep ports for servers of ours.

    Bound and not listening, with `SO_REUSEADDR`, they are free for who asks for them by number, and
    nobody else is given one, not even while a server is dead between two starts.
    """
    with contextlib.ExitStack() as sockets:
        for port in ports:
            _bind(sockets, port)
        yield


@contextlib.contextmanager
def reserved_ports(count: int, twin: int = 0) -> Iterator[list[int]]:
    """Find ports and keep them; with `twin`, those that are so much higher are kept as well."""
    with contextlib.ExitStack() as sockets:
        found: list[int] = []
        while len(found) < count:
            port = _bind(sockets, 0)
            with contextlib.suppress(OSError, OverflowError):  # taken, or there is no such port
                if twin:
                    _bind(sockets, port + twin)
                found.append(port)
        yield found


def free_ports(count: int, twin: int = 0) -> list[int]:
    """Return ports that nobody uses now."""
    with reserved_ports(count, twin) as ports:
        return ports


def free_port() -> int:
    """Return a port that nobody uses now."""
    return free_ports(1)[0]


def _bind(sockets: contextlib.ExitStack, port: int) -> int:
    one = sockets.enter_context(socket.socket())
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    return int(one.getsockname()[1])
