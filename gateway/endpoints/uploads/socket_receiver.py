"""The fast road, from the socket to the disk without a detour through the loop.

Large bodies of plain TCP connections are read and written by a thread of a small pool, in turns. A
turn ends when the socket runs dry or its time is up: slow clients hold no thread, and a fast one
starves nobody. All else about a body is as on the ordinary road, and what cannot be taken over goes
there.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

from aiohttp import web

from gateway.commit.disk_space import Reservation
from gateway.domain import failpoints
from gateway.endpoints.inflight import Inflight, Progress
from gateway.endpoints.uploads.body import ReceiveLimits, Receiver
from gateway.endpoints.uploads.socket_selftest import fast_road_works
from gateway.endpoints.uploads.socket_takeover import TakenSocket, take
from gateway.errors import ClientDisconnected
from gateway.http.request_body import idle_refusal
from gateway.http.socket_turns import SocketTurns, wait_readable
from gateway.storage.local.incoming import IncomingFile

THRESHOLD: Final = 8 << 20
"""Bytes still to come from which on the fast road pays for the connection that it uses up: a client
that keeps its connection would have to make a new one."""

BUFFER_BYTES: Final = 1 << 20
"""One per thread. A quarter of it took nearly twice the processor time: more steps for each byte."""

THREADS: Final = min(8, (os.cpu_count() or 1) + 1)

GATHER_BYTES: Final = 128 << 10
GATHER_SECONDS: Final = 0.02
"""A client that is slower than we are is visited when so much has come, or after this time."""

LINGER_TIMEOUT: Final = 0.001
"""Seconds that a thread waits for a client that has kept it busy so far."""


class ReceiverFactory:
    """Gives each body its receiver: over the fast road where `fast`, else over the ordinary one."""

    def __init__(self, inflight: Inflight, disk: Executor, idle_timeout: float) -> None:
        self.fast = False
        self.threshold = THRESHOLD
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="receive")
        self._inflight = inflight
        self._disk = disk
        self._idle_timeout = idle_timeout
        self._buffers = threading.local()

    async def open(self) -> None:
        """Find out whether the fast road can be used here; where not, log it and do without."""
        self.fast = await fast_road_works()

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()

    def receiver(
        self, body: IncomingFile, share: Reservation, progress: Progress, limit: int | None
    ) -> Receiver:
        """Return the receiver for a body. `limit` is the greatest size in bytes, None for none."""
        terms = ReceiveLimits(self._inflight, self._disk, limit, self._idle_timeout)
        if self.fast:
            return SocketReceiver(body, share, progress, terms, self)
        return Receiver(body, share, progress, terms)

    def buffer(self) -> memoryview:
        """Return the buffer of the thread that asks."""
        view: memoryview | None = getattr(self._buffers, "view", None)
        if view is None:
            view = self._buffers.view = memoryview(bytearray(BUFFER_BYTES))
        return view


class SocketReceiver(Receiver):
    """Receives one body over the fast road, or over the ordinary one where it cannot be taken."""

    def __init__(
        self,
        body: IncomingFile,
        share: Reservation,
        progress: Progress,
        terms: ReceiveLimits,
        roads: ReceiverFactory,
    ) -> None:
        super().__init__(body, share, progress, terms)
        self._roads = roads

    async def receive(self, request: web.BaseRequest, declared: int | None) -> None:
        """Read the body to its end. Raises as `Receiver.receive` does."""
        taken = None if declared is None else take(request, declared, self._roads.threshold)
        if taken is None:
            await super().receive(request, declared)
            return
        turns = _ReceiveTurns(taken, self.body, self._share, self._roads.buffer)
        try:
            while await self._turn(turns):
                if turns.would_block:
                    await self._until_readable(turns)
        finally:
            self._give_up(turns)

    async def _turn(self, turns: _ReceiveTurns) -> bool:
        """Let a thread take what has come; tell whether more is to come."""
        try:
            await self._in_thread(turns.run_turn, self._roads.pool)
        finally:
            self._progress.received = turns.transferred
        return turns.remaining > 0

    async def _until_readable(self, turns: _ReceiveTurns) -> None:
        """Wait on the loop, holding no thread. Raises `Refusal("idle_timeout")`."""
        gather = min(GATHER_SECONDS, self._terms.idle_timeout)
        turns.expect(GATHER_BYTES)
        if await wait_readable(turns.socket, gather):
            return
        turns.expect(1)
        if not await wait_readable(turns.socket, self._terms.idle_timeout - gather):
            raise idle_refusal(self._terms.idle_timeout)

    def _give_up(self, turns: _ReceiveTurns) -> None:
        """Close our socket, but not under a thread that still reads from it."""
        turns.stopped = True
        if self._on_disk is not None and not self._on_disk.done():
            self._on_disk.add_done_callback(lambda _: turns.socket.close())
        else:
            turns.socket.close()


class _ReceiveTurns(SocketTurns):
    """The thread's side of one body."""

    def __init__(
        self,
        taken: TakenSocket,
        body: IncomingFile,
        share: Reservation,
        buffer: Callable[[], memoryview],
    ) -> None:
        super().__init__(taken.socket, taken.rest, select.POLLIN)
        self._parsed = taken.parsed
        self._body = body
        self._share = share
        self._buffer = buffer
        self._expected = 1

    def run_turn(self) -> None:
        """Receive until the socket would block, the body is complete or the turn is over."""
        if self._parsed:
            self._write_parsed()
        super().run_turn()

    def _move_bytes(self, moved: int) -> int:
        buffer = self._buffer()[: self.remaining]
        size = self._fill(buffer, linger=moved >= GATHER_BYTES)
        self._share.use(size)
        self._body.write_from(buffer[:size])
        failpoints.hit("mid body")
        return size

    def _write_parsed(self) -> None:
        size = sum(map(len, self._parsed))
        self._share.use(size)
        self._body.write(self._parsed)
        self._parsed = []
        self.transferred += size
        failpoints.hit("mid body")

    def expect(self, size: int) -> None:
        """Let the socket count as readable when `size` bytes have come, or all, or its end."""
        size = min(size, self.remaining)
        if size != self._expected:
            self._expected = size
            with contextlib.suppress(OSError):  # a system without it wakes us more often, that is all
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _fill(self, buffer: memoryview, *, linger: bool) -> int:
        """Fill `buffer` as far as bytes are there. Raises `ClientDisconnected` at the client's end."""
        filled = 0
        try:
            while filled < len(buffer) and not self.would_block:
                try:
                    size = self.socket.recv_into(buffer[filled:])
                except BlockingIOError:
                    self.would_block = not (linger and self._come(len(buffer) - filled))
                    continue
                if not size:
                    raise ClientDisconnected("the client ended the connection in the middle of the body")
                filled += size
        except OSError as fault:
            raise ClientDisconnected(str(fault) or type(fault).__name__) from fault
        return filled

    def _come(self, wanted: int) -> bool:
        self.expect(min(GATHER_BYTES, wanted))
        return self._poll(LINGER_TIMEOUT)
