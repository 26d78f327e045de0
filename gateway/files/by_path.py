"""The storage as scripts have it, by path: open, save, stat, list, delete, expire.

One rule: what is saved here has the promise of every upload: durable before `save` returns, and
`OnObjectCreated` is told of it. Callable from any event loop: what stores is the server's, and is
asked to do it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

from gateway.commit.writer import PendingWrite, StorageWriter
from gateway.domain.metadata import normalize_metadata
from gateway.domain.model import ON_CONFLICT, OnConflict, Stored, Upload, new_id
from gateway.errors import Refusal, Superseded
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES
from gateway.storage.protocols import ExpiringStorage, OpenFile, Stat, Storage
from gateway.storage.s3.parts import user_metadata

log = logging.getLogger("gateway.storage")
T = TypeVar("T")
Source = bytes | bytearray | memoryview | str | os.PathLike[str] | AsyncIterable[bytes]
"""What can be saved: the bytes, the path of a local file, or pieces as they come."""

Put = Callable[[Upload, AsyncIterator[bytes]], Awaitable[Stored]]

PIECE_BYTES: Final = 1 << 20
SCRIPT: Final = {"name": "script", "kind": "script"}
"""The principal of what a script stores."""


class FilesByPath:
    """What `files` does by path. Nothing can be saved before `serve` has told with what."""

    def __init__(self, shelf: Storage, slot: int) -> None:
        self._shelf = shelf
        self._slot = slot
        self._loop: asyncio.AbstractEventLoop | None = None
        self._put: Put | None = None
        self._writer: StorageWriter | None = None
        self._ruled: dict[str, float] = {}

    def serve(self, writer: StorageWriter) -> None:
        """Store with `writer`, on the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._put = partial(self._write, writer)

    def store_with(self, put: Put) -> None:
        """Let somebody else store, called on the loop of whoever saves."""
        self._put = put

    @contextlib.asynccontextmanager
    async def open_path(self, path: str, etag: str | None = None) -> AsyncIterator[AsyncBufferedReader]:
        """Open what is stored at a path for reading, as `aiofiles.open(..., "rb")` would.

        An object is fetched into a temporary file first. Raises `Refusal` `not_found`, `bad_path`,
        `forbidden`; `Superseded` where `etag` is given and it has another.
        """
        with contextlib.ExitStack() as held:
            async with self._shelf.open(path, etag=etag) as opened:
                fd = await _descriptor(opened, held)
            async with aiofiles.open(fd, "rb") as reader:
                yield reader

    async def stat(self, path: str) -> Stat:
        """Describe what is stored at a path. Raises `Refusal` as `open_path` does."""
        stat = await self._shelf.stat(path)
        return replace(stat, metadata=user_metadata(stat.metadata))

    def list(self, prefix: str = "/", *, after: str | None = None) -> AsyncIterator[Stat]:
        """Iterate over what is stored under paths that start with `prefix`, in their byte order."""
        return self._shelf.list(prefix, after=after)

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove what is stored at a path, durably. Raises as `open_path` does."""
        await self._shelf.delete(path, etag)

    async def expire(self, prefix: str, seconds: float) -> int:
        """Remove what is stored under `prefix` and older than `seconds`; return how many that were.

        What is replaced meanwhile stays. A bucket also gets a rule by which it removes by itself, in
        whole days, what nobody sweeps; the log tells it. Raises `ValueError` for no folder.
        """
        if len(prefix) < 3 or not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError("expire() takes a folder, such as /exports/")
        await self._rule(prefix, seconds)
        limit, removed = time.time() - seconds, 0
        async for stat in self._shelf.list(prefix):
            if stat.modified < limit:
                with contextlib.suppress(Superseded, Refusal):
                    await self._shelf.delete(stat.path, stat.etag)
                    removed += 1
        return removed

    async def _rule(self, prefix: str, seconds: float) -> None:
        """Let the storage itself remove what is old, where it can; tell of it once."""
        if not isinstance(self._shelf, ExpiringStorage) or self._ruled.get(prefix) == seconds:
            return
        try:
            rule = await self._shelf.expire(prefix, seconds)
        except Refusal as refusal:  # whoever sweeps needs no rule, and tries again
            log.warning("no rule by which %s expires could be set: %s", prefix, refusal)
            return
        if rule is not None:
            log.info("%s", rule)
        self._ruled[prefix] = seconds

    async def save(
        self,
        path: str,
        source: Source,
        *,
        mime: str | None = None,
        metadata: Mapping[str, str] | None = None,
        on_conflict: OnConflict = "replace",
    ) -> Stored:
        """Store bytes, a local file, or pieces as they come; on stable storage when it returns.

        Raises `Refusal` where nothing was stored (`conflict`, `bad_path`, `forbidden`, `no_space`,
        `storage_unavailable`), `UnknownOutcome` where nobody can say, and what `source` raises.
        """
        if on_conflict not in ON_CONFLICT:
            raise ValueError(f"on_conflict must be one of {', '.join(ON_CONFLICT)}")
        pieces, size = await _pieces(source)
        path = path if path.startswith("/") else f"/{path}"
        upload = Upload(
            id=new_id(self._slot),
            path=path,
            method="SAVE",
            principal=dict(SCRIPT),
            content_length=size,
            content_type=mime,
            on_conflict=on_conflict,
            created=time.time(),
            metadata=normalize_metadata(metadata or {}),
        )
        if self._put is None:
            raise RuntimeError("nothing can be saved here")
        writer = self._writer
        if writer is not None and isinstance(source, bytes | bytearray | memoryview):
            content = bytes(source)
            if len(content) <= MAX_IN_MEMORY_BYTES:
                return await self._there(lambda: writer.store(upload, content, from_client=False))
        return await self._put(upload, pieces)

    async def _write(
        self, writer: StorageWriter, upload: Upload, pieces: AsyncIterator[bytes]
    ) -> Stored:
        begun: list[PendingWrite] = []
        try:
            await self._there(partial(_begin, writer, upload, begun))
            (pending,) = begun
            async for piece in pieces:
                for part in _parts(piece):
                    await self._there(partial(pending.write, part))
            await self._there(pending.finish)
        except BaseException:
            await asyncio.shield(self._there(partial(_discard, begun)))
            raise
        return await self._there(lambda: pending.commit({}, from_client=False))

    async def _there(self, work: Callable[[], Awaitable[T]]) -> T:
        """Have work done on the server's loop."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_run(work), self._loop))


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


async def _begin(writer: StorageWriter, upload: Upload, begun: list[PendingWrite]) -> None:
    """Begin a body and keep it, also where the caller on another loop was cancelled meanwhile."""
    begun.append(await writer.begin(upload))


async def _discard(begun: list[PendingWrite]) -> None:
    """Discard what was begun, if anything was. On the loop where that happens: it is known there."""
    for pending in begun:
        await pending.discard()


def _parts(piece: bytes) -> list[bytes]:
    """Cut a piece: what is on its way at a time is bounded, whatever a script hands over."""
    view = memoryview(piece)
    return [bytes(view[at : at + PIECE_BYTES]) for at in range(0, len(view), PIECE_BYTES)]


async def _pieces(source: Source) -> tuple[AsyncIterator[bytes], int | None]:
    """Return what is to be saved in pieces, and its size where that is known. Raises `OSError`."""
    if isinstance(source, bytes | bytearray | memoryview):
        return _of_bytes(bytes(source)), len(bytes(source))
    if isinstance(source, str | os.PathLike):
        file = Path(source)
        told = await asyncio.to_thread(file.stat)
        return _of_file(file, told), told.st_size or None  # what is made as it is read has no size
    if not isinstance(source, AsyncIterable):
        raise TypeError("save() takes bytes, the path of a local file, or an async iterator of bytes")
    return aiter(source), None


async def _of_bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _of_file(file: Path, told: os.stat_result) -> AsyncIterator[bytes]:
    """Read a file as it was when it was asked for its size: what is appended meanwhile is left out."""
    with await asyncio.to_thread(file.open, "rb") as opened:
        left = told.st_size
        if left and not os.path.samestat(told, os.fstat(opened.fileno())):
            raise OSError(f"{file} was replaced while it was being saved")
        most = min(PIECE_BYTES, left) if left else PIECE_BYTES
        while piece := await asyncio.to_thread(opened.read, most):
            yield piece
            if told.st_size:
                left -= len(piece)
                most = min(PIECE_BYTES, left)
        if left:
            raise OSError(f"{file} was cut short while it was being saved")


async def _descriptor(opened: OpenFile, held: contextlib.ExitStack) -> int:
    """Return a descriptor of an open file that outlives it; what is no local file is fetched."""
    if opened.fd is not None:
        return os.dup(opened.fd)
    fetched = held.enter_context(await asyncio.to_thread(tempfile.TemporaryFile))
    async for piece in opened:
        await asyncio.to_thread(fetched.write, piece)
    await asyncio.to_thread(fetched.seek, 0)
    return os.dup(fetched.fileno())
