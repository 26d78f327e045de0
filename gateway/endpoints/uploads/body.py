"""The bytes of one body, from the connection to the disk.

Pieces are gathered on the loop and written by a thread in big batches; while one batch is being
written the connection's own buffer fills, then back-pressure stops the client. Memory is bounded by
the batch and that buffer. Only "all declared bytes" or "a clean last chunk" is an end; all else
raises. May import storage, commit.reserve, inflight, errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from gateway.commit.disk_space import Reservation
from gateway.commit.error_mapping import discard_quietly, refusal_of
from gateway.domain import failpoints
from gateway.endpoints.inflight import Inflight, Progress
from gateway.errors import Refusal
from gateway.http.request_body import read_chunk
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES, IncomingFile

MAX_PIECES: Final = 512
"""Pieces gathered at the most: a client that sends byte by byte must not cost an object each."""


@dataclass(slots=True, frozen=True)
class ReceiveLimits:
    """What a body is received on: `limit` is its greatest size in bytes, None for none."""

    inflight: Inflight
    disk: Executor
    limit: int | None
    idle_timeout: float


class Receiver:
    """Receives one body over the ordinary road."""

    def __init__(
        self, body: IncomingFile, share: Reservation, progress: Progress, terms: ReceiveLimits
    ) -> None:
        self.body = body
        self._share = share
        self._progress = progress
        self._terms = terms
        self._on_disk: asyncio.Future[Any] | None = None
        self._pieces: list[bytes] = []
        self._gathered = 0

    async def receive(self, request: web.BaseRequest, declared: int | None) -> None:
        """Read the body to its end.

        Raises `Refusal` (`too_large`, `no_space`, `idle_timeout`, `incomplete_body`) or
        `ClientDisconnected`.
        """
        try:
            while piece := await read_chunk(request.content, self._terms.idle_timeout):
                self._count(piece)
                full = self._gathered >= self._terms.inflight.batch_bytes
                if full or len(self._pieces) >= MAX_PIECES:
                    await self._write()
            if declared is not None and self._progress.received != declared:
                raise Refusal("incomplete_body", "the body ended before its declared length")
            await self._finish(declared)
        finally:
            self._let_go()

    async def discard(self) -> None:
        """Remove what was received, after whatever a thread is still doing with it."""
        pending = self._on_disk
        if pending is not None and not pending.done():
            await asyncio.wait([pending])
        self._share.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._terms.disk, discard_quietly, self.body)

    def _count(self, piece: bytes) -> None:
        size = len(piece)
        self._progress.received += size
        if self._terms.limit is not None and self._progress.received > self._terms.limit:
            raise Refusal("too_large", f"the upload is larger than {self._terms.limit} bytes")
        self._pieces.append(piece)
        self._gathered += size
        self._terms.inflight.gathered += size

    def _let_go(self) -> tuple[list[bytes], int]:
        """Take what was gathered; it counts no more."""
        pieces, size = self._pieces, self._gathered
        self._pieces, self._gathered = [], 0
        self._terms.inflight.gathered -= size
        return pieces, size

    async def _write(self) -> None:
        pieces, size = self._pieces, self._gathered

        def write() -> None:
            self._share.use(size)
            self.body.write(pieces)

        await self._in_thread(write)
        self._let_go()
        failpoints.hit("mid body")

    async def _finish(self, declared: int | None) -> None:
        """Write the rest, or leave a small body in memory for the committer."""
        small = self._progress.received == self._gathered <= MAX_IN_MEMORY_BYTES
        if not small or self.body.hashing:
            await self._write()
            return
        pieces, size = self._let_go()
        if declared is None:
            await self._in_thread(lambda: self._share.use(size))
        else:
            self._share.use(size)
        self.body.buffer(b"".join(pieces))

    async def _in_thread(self, work: Callable[[], None], pool: Executor | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._on_disk = loop.run_in_executor(pool or self._terms.disk, work)
        try:
            await asyncio.shield(self._on_disk)
        except OSError as fault:
            raise refusal_of(fault) from fault
