"""Bytes of a body on their way from the event loop to a file: gathered, then written by a thread."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from gateway.commit.failures import refusal_of
from gateway.commit.writer import ThreadedWrite
from gateway.domain import failpoints
from gateway.storage.waiting import finish, wait_ended

T = TypeVar("T")

MAX_CHUNKS: Final = 512
"""Chunks buffered per body: a client that sends byte by byte must not cost an object for each."""

MAX_BATCH_BYTES: Final = 1 << 20
MIN_BATCH_BYTES: Final = 64 << 10
MAX_BUFFERED_BYTES: Final = 64 << 20
"""Bytes of all bodies that may wait in memory; beyond it each body is written in smaller batches."""


class WriteBuffers:
    """The memory in which the bodies of a process wait to be written. `used` is in bytes."""

    def __init__(self) -> None:
        self.used = 0

    @property
    def batch_bytes(self) -> int:
        """How many bytes of a body are gathered before they are written."""
        return MAX_BATCH_BYTES if self.used < MAX_BUFFERED_BYTES else MIN_BATCH_BYTES


class BatchedWrite(ABC):
    """A body that is written in large batches.

    While a batch is written the buffer of the connection fills, then back-pressure stops the client.
    """

    def __init__(self, buffers: WriteBuffers, executor: Executor) -> None:
        self._buffers = buffers
        self._executor = executor
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._work: asyncio.Future[Any] | None = None

    @property
    def threaded(self) -> ThreadedWrite:
        """See `PendingWrite.threaded`."""
        return self

    @abstractmethod
    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """See `ThreadedWrite.append`."""

    async def write(self, chunk: bytes) -> None:
        """Buffer the next bytes; write them where enough have come. Raises `Refusal`."""
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        self._buffers.used += len(chunk)
        if self._buffered >= self._buffers.batch_bytes or len(self._chunks) >= MAX_CHUNKS:
            await self._flush()

    def start_in_thread(self, work: Callable[[], None], executor: Executor) -> asyncio.Future[None]:
        """See `ThreadedWrite.start_in_thread`."""
        working = asyncio.get_running_loop().run_in_executor(executor, work)
        self._work = working
        return working

    async def _flush(self) -> None:
        """Write what is buffered. Raises `Refusal`. A cancelled caller waits for the end of it."""
        chunks, size = self._chunks, self._buffered
        self._chunks, self._buffered = [], 0
        try:
            await self._in_thread(lambda: self.append(chunks))
        finally:
            self._buffers.used -= size
        failpoints.hit("mid body")

    def _release_buffer(self) -> list[bytes]:
        """Return what is buffered; it counts no more."""
        chunks, size = self._chunks, self._buffered
        self._chunks, self._buffered = [], 0
        self._buffers.used -= size
        return chunks

    async def _work_ended(self) -> None:
        """Wait for whatever a thread still does with the body."""
        if self._work is not None:
            await wait_ended(self._work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Work on the body in a thread; a cancelled caller waits too. Raises `Refusal`."""
        working = asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._work = working
        try:
            return await finish(working)
        except OSError as error:
            raise refusal_of(error) from error
