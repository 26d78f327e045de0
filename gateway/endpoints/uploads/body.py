"""Receives bodies: from memory, through the event loop, or straight from the socket to the disk.

Only "all declared bytes" or "a clean last chunk" is an end; everything else raises. A large body on
plain TCP is read by a thread of a small pool, in turns. A turn ends when the socket has no more bytes or
the time is up: slow clients hold no thread, and a fast one does not starve others. One over TLS is read
on the loop, past the parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from gateway.commit.failures import refusal_of
from gateway.commit.writer import ThreadedWrite
from gateway.domain import failpoints
from gateway.endpoints.inflight import Progress
from gateway.endpoints.uploads.socket_takeover import DetachedSocket, detach_socket, socket_path_works
from gateway.endpoints.uploads.tls_body import DecryptionBuffer, take_over_tls
from gateway.errors import ClientDisconnected, Refusal
from gateway.http.protocol import facts_of
from gateway.http.request_body import idle_refusal, read_chunk
from gateway.http.socket_turns import SocketTurns
from gateway.limits import MinRate
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES

MIN_DETACH_BYTES: Final = 8 << 20
"""Bytes still to come from which on detaching pays for the connection that the client loses."""

BUFFER_BYTES: Final = 1 << 20
"""One per thread. A quarter of it took nearly twice the processor time: more steps for each byte."""

MAX_THREADS: Final = min(8, (os.cpu_count() or 1) + 1)

WAKEUP_BYTES: Final = 128 << 10
WAKEUP_TIMEOUT: Final = 0.02
"""A slow client gets its next turn when so many bytes have come, or after this time, in seconds."""

POLL_TIMEOUT: Final = 0.001
"""Seconds that a thread waits for a client that has kept it busy so far."""


def body_is_buffered(request: web.BaseRequest) -> bool:
    """Tell whether a whole small body is in memory already, as a few KiB usually are.

    Such an upload needs no thread and no file before its commit, which checks the target and the
    space for many uploads at once. Not so where the client waits for `100 Continue`, or for
    `If-Match`: the commit would create a missing folder to check it.
    """
    content = request.content
    if not content.is_eof() or content.exception() is not None:
        return False
    if content.total_bytes > MAX_IN_MEMORY_BYTES:
        return False
    return "Expect" not in request.headers and "If-Match" not in request.headers


def read_buffered(request: web.BaseRequest) -> bytes:
    """Return the body of a request for which `body_is_buffered` is true."""
    content = request.content
    return b"" if content.at_eof() else content.read_nowait(-1)


def check_received(received: int, limit: int | None) -> None:
    """Check the bytes received so far against the size limit (None: none). Raises `Refusal`."""
    if limit is not None and received > limit:
        raise Refusal("too_large", f"the upload is larger than {limit} bytes")


class BodySink(Protocol):
    """Where a body goes: a `PendingWrite`, or a partial upload that is open."""

    @property
    def threaded(self) -> ThreadedWrite | None:
        """As `PendingWrite.threaded`."""

    async def write(self, chunk: bytes) -> None:
        """As `PendingWrite.write`."""


class CountedBody(Protocol):
    """A body that is being received, `received` bytes so far, of `declared` ones (None: chunked)."""

    received: int

    @property
    def declared(self) -> int | None:
        """The Content-Length."""

    def check(self) -> None:
        """Raise `Refusal` where more has come than is allowed."""


@dataclass(slots=True)
class WholeBody:
    """The body of an upload in one request, counted in its progress."""

    progress: Progress

    @property
    def received(self) -> int:
        """Bytes so far."""
        return self.progress.received

    @received.setter
    def received(self, count: int) -> None:
        self.progress.received = count

    @property
    def declared(self) -> int | None:
        """See `CountedBody.declared`."""
        return self.progress.upload.content_length

    def check(self) -> None:
        """See `CountedBody.check`."""
        check_received(self.progress.received, self.progress.upload.max_bytes)


async def receive_streamed(
    read: Callable[[], Awaitable[bytes]], body: CountedBody, sink: BodySink
) -> None:
    """Read the body to its end; the client is read no faster than the storage writes.

    `read` returns the next bytes, b"" at the end. Raises `Refusal` (`too_large`, `no_space`,
    `idle_timeout`, `incomplete_body`), `ClientDisconnected`.
    """
    while chunk := await read():
        body.received += len(chunk)
        body.check()
        await sink.write(chunk)
    if body.declared is not None and body.received != body.declared:
        raise Refusal("incomplete_body", "the body ended before its declared length")


class BodyReceiver:
    """Moves bodies into pending writes. `idle_timeout` is the time without a byte, in seconds, and
    `min_rate` what a client must send while it is waited for.

    `socket_path` says whether connections may be detached; `min_detach_bytes` from which size on.
    """

    def __init__(self, idle_timeout: float, min_rate: MinRate) -> None:
        self.socket_path = False
        self.min_detach_bytes = MIN_DETACH_BYTES
        self.executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="receive")
        self._idle_timeout = idle_timeout
        self._min_rate = min_rate
        self._buffers = threading.local()
        self._decryption_buffer = DecryptionBuffer()

    async def open(self) -> None:
        """Test whether sockets can be detached here; where not, log it and stream all bodies."""
        self.socket_path = await socket_path_works()

    def close(self) -> None:
        """End the threads."""
        self.executor.shutdown()

    def chunk_reader(self, request: web.BaseRequest) -> Callable[[], Awaitable[bytes]]:
        """Return what reads the next bytes of a body on the event loop, b"" at its end."""
        timing = self._idle_timeout, self._min_rate.meter()
        return lambda: read_chunk(request.content, *timing)

    async def receive_body(self, request: web.BaseRequest, body: CountedBody, sink: BodySink) -> None:
        """Read the body to its end. Raises as `receive_streamed` does."""
        threaded, declared = sink.threaded, body.declared
        if self.socket_path and threaded is not None and declared is not None:
            detached = detach_socket(request, declared, self.min_detach_bytes)
            if detached is not None:
                turns = _ReceiveTurns(detached, threaded, self._buffer)
                try:
                    return await self._receive_detached(turns, body, threaded)
                finally:
                    facts_of(request).bytes_in = declared - turns.remaining
        timing = self._idle_timeout, self._min_rate.meter()
        if self.socket_path and declared is not None:
            tls = take_over_tls(request, declared, self.min_detach_bytes, self._decryption_buffer)
            if tls is not None:
                try:
                    await receive_streamed(lambda: tls.read_chunk(*timing), body, sink)
                finally:
                    tls.close(request)
                return
        await receive_streamed(self.chunk_reader(request), body, sink)

    async def _receive_detached(
        self, turns: _ReceiveTurns, body: CountedBody, pending: ThreadedWrite
    ) -> None:
        meter, waited, before = self._min_rate.meter(), 0.0, 0
        turn: asyncio.Future[None] | None = None
        try:
            while turns.remaining:
                turn = pending.start_in_thread(turns.run_turn, self.executor)
                try:
                    await asyncio.shield(turn)
                except OSError as error:
                    raise refusal_of(error) from error
                finally:
                    body.received = turns.transferred
                if turns.remaining and turns.would_block:
                    meter.check(waited, turns.transferred - before)
                    started, before = time.monotonic(), turns.transferred
                    await self._until_readable(turns)
                    waited = time.monotonic() - started
        finally:
            # Close our socket, but not under a thread that still reads from it.
            turns.stopped = True
            if turn is not None and not turn.done():
                turn.add_done_callback(lambda _: turns.socket.close())
            else:
                turns.socket.close()

    async def _until_readable(self, turns: _ReceiveTurns) -> None:
        """Wait on the loop, holding no thread. Raises `Refusal("idle_timeout")`."""
        wakeup = min(WAKEUP_TIMEOUT, self._idle_timeout)
        turns.set_low_water(WAKEUP_BYTES)
        if await turns.wait_ready(wakeup):
            return
        turns.set_low_water(1)
        if not await turns.wait_ready(self._idle_timeout - wakeup):
            raise idle_refusal(self._idle_timeout)

    def _buffer(self) -> memoryview:
        """Return the buffer of the calling thread."""
        view: memoryview | None = getattr(self._buffers, "view", None)
        if view is None:
            view = self._buffers.view = memoryview(bytearray(BUFFER_BYTES))
        return view


class _ReceiveTurns(SocketTurns):
    """The thread's side of one body."""

    def __init__(
        self, detached: DetachedSocket, pending: ThreadedWrite, buffer: Callable[[], memoryview]
    ) -> None:
        super().__init__(detached.socket, detached.remaining, select.POLLIN)
        self._parsed = detached.parsed
        self._pending = pending
        self._buffer = buffer
        self._low_water = 1

    def run_turn(self) -> None:
        """Receive until the socket would block, the body is complete or the turn is over."""
        if self._parsed:
            self._write_parsed()
        super().run_turn()

    def _move_bytes(self, moved: int) -> int:
        buffer = self._buffer()[: self.remaining]
        size = self._fill(buffer, linger=moved >= WAKEUP_BYTES)
        self._pending.append((buffer[:size],))
        failpoints.hit("mid body")
        return size

    def _write_parsed(self) -> None:
        self._pending.append(self._parsed)
        self.transferred += sum(map(len, self._parsed))
        self._parsed = []
        failpoints.hit("mid body")

    def set_low_water(self, size: int) -> None:
        """Let the socket count as readable when `size` bytes have come, or all, or its end."""
        size = min(size, self.remaining)
        if size != self._low_water:
            self._low_water = size
            with contextlib.suppress(OSError):  # a system without it wakes us more often
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _fill(self, buffer: memoryview, *, linger: bool) -> int:
        """Fill `buffer` with the bytes that have come. Raises `ClientDisconnected`."""
        filled = 0
        try:
            while filled < len(buffer) and not self.would_block:
                try:
                    size = self.socket.recv_into(buffer[filled:])
                except BlockingIOError:
                    self.would_block = not (linger and self._more_comes(len(buffer) - filled))
                    continue
                if not size:
                    raise ClientDisconnected("the client ended the connection in the middle of the body")
                filled += size
        except OSError as error:
            raise ClientDisconnected(str(error) or type(error).__name__) from error
        return filled

    def _more_comes(self, wanted: int) -> bool:
        self.set_low_water(min(WAKEUP_BYTES, wanted))
        return self._poll(POLL_TIMEOUT)
