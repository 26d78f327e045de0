"""Sends the bytes of files to a client: with `sendfile` over plain TCP, else in chunks.

The event loop never waits for a disk: uvloop has no `sendfile` of its own, so threads of a small
pool send in turns, and no client holds a thread.
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

from gateway.endpoints.downloads.negotiation import ByteRange
from gateway.http.protocol import facts_of
from gateway.http.socket_turns import SocketTurns, duplicate_tcp_socket
from gateway.limits import MinRate
from gateway.storage.protocols import MAX_SINGLE_PASS_BYTES, OpenFile
from gateway.storage.waiting import finish_in_thread, wait_ended

THREADS: Final = min(8, (os.cpu_count() or 1) + 2)

MAX_SENDFILE_BYTES: Final = 1 << 20
"""What one call of sendfile(2) sends at most."""

POLL_TIMEOUT: Final = 0.002
"""Seconds that a thread waits for a client that has kept it busy so far."""

CHUNK_BYTES: Final = 1 << 20
TLS_WRITE_BYTES: Final = 64 << 10
"""Over TLS the client must take so many bytes within the idle timeout."""


class TransferPool:
    """The threads of a process that send files, and what they demand of those that read them."""

    def __init__(self, idle_timeout: float, min_rate: MinRate) -> None:
        self.idle_timeout = idle_timeout
        self.min_rate = min_rate
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="send")

    def close(self) -> None:
        """End the threads, after the turns that are running."""
        self.threads.shutdown()


class FileSender:
    """Sends to one client. `sent` counts the bytes of files that left for the network."""

    def __init__(self, pool: TransferPool, request: web.BaseRequest) -> None:
        self.sent = 0
        self._pool = pool
        self._meter = pool.min_rate.meter()
        self._request = request
        self._facts = facts_of(request)

    async def send_text(self, text: bytes) -> None:
        """Send text between ranges of a file. Raises `ConnectionError`."""
        if text:
            await self._write(memoryview(text))

    async def send_range(self, file: OpenFile, byte_range: ByteRange) -> None:
        """Send a range of an open file.

        Raises `ConnectionError` if the client has disconnected or takes no more, `OSError` or
        `Refusal` if the file ends too early or cannot be read.
        """
        if file.fd is None:
            async for chunk in file:
                await self.send_chunk(chunk)
            return
        connection = None if byte_range.length <= MAX_SINGLE_PASS_BYTES else await self._own_socket()
        if connection is None:
            async for chunk in _read_chunks(file.fd, byte_range):
                await self.send_chunk(chunk)
            return
        with connection:
            await self._send_file(_SendTurns(connection, file.fd, byte_range))

    async def send_short(self, body: bytes, file_bytes: int) -> None:
        """Send headers and body in one packet; `file_bytes` of them are a file's."""
        async with self._idle_timeout():
            await self._request.writer.write_eof(body)
        self.sent += file_bytes
        self._facts.bytes_out += len(body)

    async def send_chunk(self, chunk: bytes) -> None:
        """Send some bytes of a file. Raises `ConnectionError`."""
        view = memoryview(chunk)
        for start in range(0, len(view), TLS_WRITE_BYTES):
            await self._write(view[start : start + TLS_WRITE_BYTES])
        self.sent += len(view)

    async def _write(self, data: memoryview) -> None:
        started = time.monotonic()
        async with self._idle_timeout():
            await self._request.writer.write(data)
        self._facts.bytes_out += len(data)
        self._check_rate(time.monotonic() - started, len(data))

    def _check_rate(self, seconds: float, size: int) -> None:
        """Count what the client took in a wait for it. Raises `ConnectionError`."""
        if self._meter.too_slow(seconds, size):
            raise ConnectionResetError("the client takes the file too slowly")

    async def _own_socket(self) -> socket.socket | None:
        """Return a second socket, with no bytes queued before ours; None if it is not plain TCP."""
        transport, writer = self._request.transport, self._request.writer
        if transport is None:
            raise ConnectionResetError("the client has disconnected")
        connection = duplicate_tcp_socket(transport)
        if connection is None:
            return None
        try:
            transport.set_write_buffer_limits(high=0)
            writer.send_headers()
            async with self._idle_timeout():
                while transport.get_write_buffer_size():
                    await writer.drain()
                    await asyncio.sleep(0)
            if transport.is_closing():
                raise ConnectionResetError("the client has disconnected")
            transport.set_write_buffer_limits()
        except BaseException:
            connection.close()
            raise
        return connection

    async def _send_file(self, turns: _SendTurns) -> None:
        loop, waited, before = asyncio.get_running_loop(), 0.0, 0
        try:
            while turns.remaining:
                turn = loop.run_in_executor(self._pool.threads, turns.run_turn)
                try:
                    await asyncio.shield(turn)
                except asyncio.CancelledError:
                    turns.stopped = True
                    await wait_ended(turn)  # the thread uses our descriptors
                    raise
                if turns.would_block:
                    self._check_rate(waited, turns.transferred - before)
                    started, before = time.monotonic(), turns.transferred
                    if not await turns.wait_ready(self._pool.idle_timeout):
                        raise _stalled()
                    waited = time.monotonic() - started
        finally:
            self.sent += turns.transferred
            self._facts.bytes_out += turns.transferred

    @contextlib.asynccontextmanager
    async def _idle_timeout(self) -> AsyncIterator[None]:
        """Raise `ConnectionError` if the client takes nothing for the idle timeout."""
        try:
            async with asyncio.timeout(self._pool.idle_timeout):
                yield
        except TimeoutError as error:
            raise _stalled() from error


class _SendTurns(SocketTurns):
    """The thread's side of one range of a file."""

    def __init__(self, connection: socket.socket, fd: int, byte_range: ByteRange) -> None:
        super().__init__(connection, byte_range.length, select.POLLOUT)
        self._fd = fd
        self._end = byte_range.end

    def _move_bytes(self, moved: int) -> int:
        size = min(self.remaining, MAX_SENDFILE_BYTES)
        try:
            sent = os.sendfile(self.socket.fileno(), self._fd, self._end - self.remaining, size)
        except BlockingIOError:
            self.would_block = moved < MAX_SENDFILE_BYTES or not self._poll(POLL_TIMEOUT)
            return 0
        if not sent:
            raise _truncated()
        return sent


async def _read_chunks(fd: int, byte_range: ByteRange) -> AsyncIterator[bytes]:
    position = byte_range.start
    while position < byte_range.end:
        size = min(CHUNK_BYTES, byte_range.end - position)
        chunk = await finish_in_thread(os.pread, fd, size, position)
        if not chunk:
            raise _truncated()
        position += len(chunk)
        yield chunk


def _stalled() -> ConnectionResetError:
    return ConnectionResetError("the client takes no more of the file")


def _truncated() -> OSError:
    return OSError("the file was truncated while it was sent")
