"""Bytes of files on their way to a client: by `sendfile` over plain TCP, else in pieces.

One rule: the loop never waits for a disk, and no client holds a thread: threads of a small pool
send in turns, and a turn ends when the client has enough or its time is up. (uvloop has no
`sendfile` of its own.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web

from gateway.endpoints.downloads.ranges import ByteRange
from gateway.http.sockets import duplicate
from gateway.storage.protocols import MAX_SINGLE_PASS_BYTES, OpenFile

THREADS: Final = min(8, (os.cpu_count() or 1) + 2)

TURN_SECONDS: Final = 0.05
"""How long one client may hold a thread while others wait for one."""

AT_ONCE_BYTES: Final = 1 << 20
"""What one call to the system sends at the most."""

LINGER_SECONDS: Final = 0.002
"""How long a thread waits for a client that has kept it busy so far."""

PIECE_BYTES: Final = 1 << 20
SLICE_BYTES: Final = 64 << 10
"""Over TLS the client must take so much in the time of a silence."""


class TransferPool:
    """The threads of a gateway that send files, and how long a client may take nothing (seconds)."""

    def __init__(self, silence: float) -> None:
        self.silence = silence
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="send")

    def close(self) -> None:
        """End the threads; turns that are under way end first."""
        self.pool.shutdown()


class FileSender:
    """Sends to one client. `sent` counts the bytes of files (those that left for the network)."""

    def __init__(self, sending: TransferPool, request: web.BaseRequest) -> None:
        self.sent = 0
        self._sending = sending
        self._request = request

    async def text(self, data: bytes) -> None:
        """Send what stands between files. Raises `ConnectionError`."""
        if data:
            await self._write(memoryview(data))

    async def part(self, opened: OpenFile, part: ByteRange) -> None:
        """Send a part of an open file.

        Raises `ConnectionError` where the client has gone or takes no more, `OSError` or
        `Refusal` where the file ends too early or cannot be read.
        """
        if opened.fd is None:
            async for piece in opened:
                await self.piece(piece)
            return
        sock = None if part.length <= MAX_SINGLE_PASS_BYTES else await self._socket()
        if sock is None:
            async for piece in _read(opened.fd, part):
                await self.piece(piece)
            return
        with sock:
            await self._send_file(_SendTurns(sock, opened.fd, part))

    async def short(self, body: bytes, count: int) -> None:
        """Send the rest of an answer with what stands before it; `count` bytes of it are files'."""
        async with _within(self._sending.silence):
            await self._request.writer.write_eof(body)
        self.sent += count

    async def piece(self, piece: bytes) -> None:
        """Send some of the files' bytes. Raises `ConnectionError`."""
        view = memoryview(piece)
        for start in range(0, len(view), SLICE_BYTES):
            await self._write(view[start : start + SLICE_BYTES])
        self.sent += len(view)

    async def _write(self, data: memoryview) -> None:
        async with _within(self._sending.silence):
            await self._request.writer.write(data)

    async def _socket(self) -> socket.socket | None:
        """Return a socket of our own, with nothing on its way before us; None: no plain TCP."""
        transport, writer = self._request.transport, self._request.writer
        if transport is None:
            raise ConnectionResetError("the client has gone")
        own = duplicate(transport)
        if own is None:
            return None
        try:
            transport.set_write_buffer_limits(high=0)
            writer.send_headers()
            async with _within(self._sending.silence):
                while transport.get_write_buffer_size():
                    await writer.drain()
                    await asyncio.sleep(0)
            if transport.is_closing():
                raise ConnectionResetError("the client has gone")
            transport.set_write_buffer_limits()
        except BaseException:
            own.close()
            raise
        return own

    async def _send_file(self, turns: _SendTurns) -> None:
        loop = asyncio.get_running_loop()
        try:
            while turns.rest:
                turn = loop.run_in_executor(self._sending.pool, turns.run)
                await _to_its_end(turn, turns)
                if turns.full and not await _writable(turns.socket, self._sending.silence):
                    raise ConnectionResetError("the client takes no more of the file")
        finally:
            self.sent += turns.sent


class _SendTurns:
    """The thread's side of one part. Touched by one thread at a time, but for `over`.

    `rest` bytes are to be sent, `full` tells that the socket takes no more for now, `over` ends a
    turn early.
    """

    def __init__(self, sock: socket.socket, fd: int, part: ByteRange) -> None:
        self.socket = sock
        self.rest = part.length
        self.sent = 0
        self.full = False
        self.over = False
        self._fd = fd
        self._at = part.start
        self._poll = select.poll()
        self._poll.register(sock, select.POLLOUT)

    def run(self) -> None:
        """Send until the socket is full, the part sent or the turn over. Raises `OSError`."""
        until, busy = time.monotonic() + TURN_SECONDS, 0
        self.full = False
        while self.rest and not self.over and not self.full and time.monotonic() < until:
            try:
                size = os.sendfile(
                    self.socket.fileno(), self._fd, self._at, min(self.rest, AT_ONCE_BYTES)
                )
            except BlockingIOError:
                linger = busy >= AT_ONCE_BYTES and self._poll.poll(LINGER_SECONDS * 1000)
                self.full = not linger
                continue
            if not size:
                raise OSError("the file has been cut short while it was sent")
            self._at += size
            self.rest -= size
            self.sent += size
            busy += size


async def _to_its_end(turn: asyncio.Future[None], turns: _SendTurns) -> None:
    """Wait for a turn. Whoever is cancelled meanwhile still waits: the thread uses our descriptors."""
    try:
        await asyncio.shield(turn)
    except asyncio.CancelledError:
        turns.over = True
        while not turn.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({turn})
        raise


async def _read(fd: int, part: ByteRange) -> AsyncIterator[bytes]:
    at = part.start
    while at < part.end:
        piece = await asyncio.to_thread(os.pread, fd, min(PIECE_BYTES, part.end - at), at)
        if not piece:
            raise OSError("the file has been cut short while it was sent")
        at += len(piece)
        yield piece


async def _writable(sock: socket.socket, seconds: float) -> bool:
    """Wait until `sock` takes bytes or is broken; False when `seconds` have passed."""
    loop, writable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        async with asyncio.timeout(seconds):
            return await writable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_writer(sock)


@contextlib.asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Raise `ConnectionError` where the client lets `seconds` pass."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as fault:
        raise ConnectionResetError("the client takes no more of the file") from fault
