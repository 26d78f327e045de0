"""Moves the bytes of plain TCP connections in a few threads that take turns.

A turn ends when the socket would block, all bytes have moved, or its time is up: a slow client
holds no thread, and a fast one does not starve the others.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from typing import Final

MAX_TURN_SECONDS: Final = 0.05
"""Seconds that one connection may hold a thread while others wait for one."""


class SocketTurns:
    """One transfer over a non-blocking socket: turns in threads, and waits on the loop between them.

    One thread at a time touches it; only `stopped`, which ends a turn early, is set by another.
    `remaining` bytes are still to move, `would_block` says that the socket ended the last turn.
    `events` are those of poll(2) that are waited for: POLLIN or POLLOUT.
    """

    def __init__(self, connection: socket.socket, remaining: int, events: int) -> None:
        self.socket = connection
        self.remaining = remaining
        self.transferred = 0
        self.would_block = False
        self.stopped = False
        self._reads = events == select.POLLIN
        self._poller = select.poll()
        self._poller.register(connection, events)

    def run_turn(self) -> None:
        """Move bytes until the turn is over. Raises `OSError` and what `_move_bytes` raises."""
        deadline, moved = time.monotonic() + MAX_TURN_SECONDS, 0
        self.would_block = False
        while self.remaining and not self.would_block and not self.stopped:
            if time.monotonic() >= deadline:
                return
            size = self._move_bytes(moved)
            self.remaining -= size
            self.transferred += size
            moved += size

    def _move_bytes(self, moved: int) -> int:
        """Move some bytes and return how many; `moved` bytes went before them in this turn."""
        raise NotImplementedError

    def _poll(self, seconds: float) -> bool:
        """Wait up to `seconds`, in the thread; tell whether the socket is ready."""
        return bool(self._poller.poll(seconds * 1000))

    async def wait_ready(self, seconds: float) -> bool:
        """Wait on the loop until the socket is ready or broken; False after `seconds`."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        if self._reads:
            loop.add_reader(self.socket, ready.set)
        else:
            loop.add_writer(self.socket, ready.set)
        try:
            async with asyncio.timeout(seconds):
                return await ready.wait()
        except TimeoutError:
            return False
        finally:
            (loop.remove_reader if self._reads else loop.remove_writer)(self.socket)


def duplicate_tcp_socket(transport: asyncio.Transport) -> socket.socket | None:
    """Return a second, non-blocking socket of the same connection; None if it is not plain TCP.

    A thread may read or send with it past the event loop, whatever becomes of the transport.
    """
    original = transport.get_extra_info("socket")
    if transport.get_extra_info("sslcontext") is not None or original is None:
        return None
    if original.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    try:
        duplicate = socket.socket(fileno=os.dup(original.fileno()))
    except OSError:  # no descriptor is left, or the connection is closed: the transport reports it
        return None
    duplicate.setblocking(False)
    return duplicate
