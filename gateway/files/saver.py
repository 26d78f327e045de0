"""`files.save`: stores what a script gives it, with the promise of every upload.

What is saved is durable before `save` returns, and publishes `OnObjectCreated`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.commit.quotas.files import QuotaFiles
from gateway.commit.writer import PendingWrite, StorageWriter
from gateway.domain.metadata import normalize_metadata
from gateway.domain.model import ON_CONFLICT, OnConflict, Stored, Upload, created_at, new_id
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES
from gateway.storage.waiting import finish_in_thread, finish_on_loop
from gateway.telemetry import tracing

T = TypeVar("T")
Source = bytes | bytearray | memoryview | str | os.PathLike[str] | AsyncIterable[bytes]
"""What can be saved: bytes, the path of a local file, or an async iterator of bytes."""

Store = Callable[[Upload, AsyncIterator[bytes]], Awaitable[Stored]]

CHUNK_BYTES: Final = 1 << 20
SCRIPT_PRINCIPAL: Final = {"name": "script", "kind": "script"}
"""The principal of what a script stores."""


class FileSaver:
    """Saves files from any event loop, after a `store_` method ran. `slot` goes into upload ids."""

    def __init__(self, slot: int = 0) -> None:
        self._slot = slot
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: StorageWriter | None = None
        self._store: Store | None = None
        self.quota_files: QuotaFiles | None = None
        """Hears of files that are moved."""

    def store_with_writer(self, writer: StorageWriter) -> None:
        """Store with `writer`, always on the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._store = partial(self._write, writer)

    def store_with(self, store: Store) -> None:
        """Store with a function, which is called on the caller's loop."""
        self._store = store

    async def save(
        self,
        path: str,
        source: Source,
        *,
        mime: str | None,
        metadata: Mapping[str, str] | None,
        on_conflict: OnConflict,
    ) -> Stored:
        """Store `source`, see `FilesService.save`."""
        if on_conflict not in ON_CONFLICT:
            raise ValueError(f"on_conflict must be one of {', '.join(ON_CONFLICT)}")
        chunks, size = await _chunks_of(source)
        upload_id = new_id(self._slot)
        upload = Upload(
            id=upload_id,
            path=path if path.startswith("/") else f"/{path}",
            method="SAVE",
            principal=dict(SCRIPT_PRINCIPAL),
            content_length=size,
            content_type=mime,
            on_conflict=on_conflict,
            created=created_at(upload_id),
            metadata=normalize_metadata(metadata or {}),
            traceparent=tracing.current().traceparent,
        )
        if self._store is None:
            raise RuntimeError("nothing can be saved here")
        writer = self._writer
        small = size is not None and size <= MAX_IN_MEMORY_BYTES
        if writer is not None and small and isinstance(source, bytes | bytearray | memoryview):
            content = bytes(source)
            return await self._on_server_loop(lambda: writer.store(upload, content, from_client=False))
        try:
            return await self._store(upload, chunks)
        finally:
            if isinstance(chunks, AsyncGenerator) and chunks is not source:
                await chunks.aclose()  # it may hold a file open

    async def _write(
        self, writer: StorageWriter, upload: Upload, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Write from this loop to the server's. A cancelled caller leaves nothing behind.

        The body is in `begun` until its commit begins: from then on it is the writer's.
        """
        begun: list[PendingWrite] = []
        try:
            await self._on_server_loop(partial(_begin, writer, upload, begun))
            (pending,) = begun
            async for chunk in chunks:
                for part in _split(chunk):
                    await self._on_server_loop(partial(pending.write, part))
            await self._on_server_loop(pending.finish)
            return await self._on_server_loop(partial(_commit, begun))
        except BaseException:
            await self._on_server_loop(partial(_discard, begun), cancellable=False)
            raise

    async def _on_server_loop(self, work: Callable[[], Awaitable[T]], *, cancellable: bool = True) -> T:
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await work()
        return await finish_on_loop(self._loop, work, cancellable=cancellable)


async def _begin(writer: StorageWriter, upload: Upload, begun: list[PendingWrite]) -> None:
    """Begin a body and keep it, also where the caller on another loop was cancelled meanwhile."""
    begun.append(await writer.begin(upload))


async def _commit(begun: list[PendingWrite]) -> Stored:
    return await begun.pop().commit({}, from_client=False)


async def _discard(begun: list[PendingWrite]) -> None:
    """Discard what was begun, if anything was. On the server's loop, which alone knows that."""
    while begun:
        await begun.pop().discard()


def _split(chunk: bytes) -> list[bytes]:
    """Split a chunk, to bound what is in flight between the loops."""
    view = memoryview(chunk)
    return [bytes(view[at : at + CHUNK_BYTES]) for at in range(0, len(view), CHUNK_BYTES)]


async def _chunks_of(source: Source) -> tuple[AsyncIterator[bytes], int | None]:
    """Return a source in chunks, and its size where that is known. Raises `OSError`."""
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        return _from_bytes(content), len(content)
    if isinstance(source, str | os.PathLike):
        file = Path(source)
        status = await finish_in_thread(file.stat)
        return _from_file(file, status), status.st_size or None  # a generated file says size 0
    if not isinstance(source, AsyncIterable):
        raise TypeError("save() takes bytes, the path of a local file, or an async iterator of bytes")
    return aiter(source), None


async def _from_bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _from_file(file: Path, status: os.stat_result) -> AsyncIterator[bytes]:
    """Read a file up to the size in `status`: what is appended meanwhile is left out."""
    with contextlib.ExitStack() as stack:
        opened = await finish_in_thread(lambda: stack.enter_context(file.open("rb")))
        left = status.st_size
        if left and not os.path.samestat(status, os.fstat(opened.fileno())):
            raise OSError(f"{file} was replaced while it was being saved")
        wanted = min(CHUNK_BYTES, left) if left else CHUNK_BYTES
        while chunk := await finish_in_thread(opened.read, wanted):
            yield chunk
            if status.st_size:
                left -= len(chunk)
                wanted = min(CHUNK_BYTES, left)
        if left:
            raise OSError(f"{file} was cut short while it was being saved")
