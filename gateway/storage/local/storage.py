"""A local directory as a `Storage`.

A file is opened once, by descriptors and without following a link. Its size, date, etag and bytes are
those of the open file, whatever happens to its name. Threads do all work on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol, TypeVar

from gateway.domain import paths
from gateway.domain.grant import Grant
from gateway.domain.model import Identity, OnConflict
from gateway.errors import Refusal, Superseded
from gateway.storage.local.cached_read import CachedReader
from gateway.storage.local.folder_pages import FolderEntry, FolderPages
from gateway.storage.local.listing import Entries, Entry, walk
from gateway.storage.local.moving import move_file
from gateway.storage.local.read_pool import ReadPool
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import NO_ATTRIBUTES, FileAttributes, read_attributes
from gateway.storage.protocols import (
    MAX_FOLDER_PAGE,
    MAX_SINGLE_PASS_BYTES,
    FolderPage,
    PresignedRequest,
    SinglePassRead,
    Stat,
)
from gateway.storage.waiting import finish_in_thread

T = TypeVar("T")
Opened = TypeVar("Opened", bound=tuple[int | None, object])

PIECE_BYTES: Final = 1 << 20
LIST_PAGE_SIZE: Final = 500
"""Files that a thread finds for a list before it returns."""

_LIST_EXECUTOR: Final = ThreadPoolExecutor(2, thread_name_prefix="list")
"""Threads of their own: sorting a folder of many names takes long, and would delay opening files."""


class RunBetweenBatches(Protocol):
    """Runs a function while nothing is being published."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return what `function` returns."""


@dataclass(eq=False)
class LocalStorage:
    """DIRECTORY as a `Storage`. Callable from any event loop.

    `between_batches` runs removals while this process publishes nothing, `exclusive` keeps other
    processes from publishing. With a `read_pool`, `read_parts` uses its threads and belongs to its loop.
    With a `cached_reader`, which belongs to that loop too, `read_parts_now` reads small files. `removed`
    hears of the path of each file that `delete` has removed.
    """

    tree: DirectoryTree
    between_batches: RunBetweenBatches = asyncio.to_thread
    exclusive: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    read_pool: ReadPool | None = None
    cached_reader: CachedReader | None = None
    removed: Callable[[str], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self._folder_pages = FolderPages(self.tree)

    async def stat(self, path: str) -> Stat:
        """Describe a file."""
        return await asyncio.to_thread(self._stat, path)

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AsyncIterator[OpenLocalFile]:
        """Open a part of a file."""
        fd, stat = await _or_close(asyncio.get_running_loop().run_in_executor(None, self._open, path))
        async with _closing(fd):
            stat.check_etag(etag)
            end = stat.bytes if length is None else min(start + length, stat.bytes)
            yield OpenLocalFile(stat, fd, start, end)

    async def read_parts(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead:
        """Open a file and read parts of it, in one pass of one thread."""
        work = partial(self._read_parts, path, choose)
        if self.read_pool is None:
            reading = asyncio.get_running_loop().run_in_executor(None, work)
        else:
            reading = self.read_pool(work)
        fd, read = await _or_close(reading)
        return read if fd is None else replace(read, opened=_opened(read.stat, fd))

    def read_parts_now(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead | None:
        """Read parts of a small file without waiting for the disk, None where that is not possible."""
        return None if self.cached_reader is None else self.cached_reader.read(path, choose)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncGenerator[Stat, None]:
        """Iterate over files in the order of their keys. Their stats have no type and no metadata."""
        entries = walk(self.tree, prefix.removeprefix("/"), (after or "").removeprefix("/"))
        pages, loop = _Pages(entries), asyncio.get_running_loop()
        try:
            while page := await loop.run_in_executor(_LIST_EXECUTOR, pages.next):
                for entry in page:
                    yield _described("/" + entry.key, entry.status)
        finally:
            await finish_in_thread(pages.close, executor=_LIST_EXECUTOR)

    async def list_folder(
        self, folder: str, *, after: str | None = None, limit: int = MAX_FOLDER_PAGE
    ) -> FolderPage:
        """Return a page of a folder. Its stats have type and metadata."""
        work = partial(self._list_folder, folder, after or "", min(limit, MAX_FOLDER_PAGE))
        return await finish_in_thread(work, executor=_LIST_EXECUTOR)

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove a file durably."""
        await self.between_batches(lambda: self._delete(path, etag))
        if self.removed is not None:
            await self.removed(path)

    async def move(
        self, path: str, target: str, *, etag: str | None = None, on_conflict: OnConflict = "replace"
    ) -> Stat:
        """Give a file another path, see `MovingStorage.move`."""
        move = partial(move_file, self.tree, self.exclusive, path, target, etag, on_conflict)
        return await self.stat(await self.between_batches(move))

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Return None: the gateway itself serves files."""
        return None

    def _stat(self, path: str) -> Stat:
        fd, stat = self._open(path)
        os.close(fd)
        return stat

    def _list_folder(self, folder: str, after: str, limit: int) -> FolderPage:
        name = folder.strip("/")
        segments = paths.check_path(name) if name else ()
        with _as_refusals("there is no such folder"):
            entries, last = self._folder_pages.page(segments, after.removeprefix("/"), limit)
        return FolderPage([*map(_listed, entries)], None if last is None else f"/{last}", described=True)

    def _read_parts(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> tuple[int | None, SinglePassRead]:
        """Return what was read, or the descriptor where that would be too much for memory."""
        fd, stat = self._open(path)
        stays_open = False
        try:
            parts = choose(stat)
            stays_open = sum(length for _, length in parts) > MAX_SINGLE_PASS_BYTES
            if stays_open:
                return fd, SinglePassRead(stat)
            return None, SinglePassRead(
                stat, [_read_whole(stat, fd, start, length) for start, length in parts]
            )
        finally:
            if not stays_open:
                os.close(fd)

    def _open(self, path: str) -> tuple[int, Stat]:
        """Return a descriptor and what it is. Raises `Refusal`."""
        segments, started = paths.check_path(path), time.time()
        with _as_refusals():
            fd = self.tree.open_file(segments)
        try:
            status = os.fstat(fd)
            stat = _described("/" + "/".join(segments), status, read_attributes(fd, status))
            if self.cached_reader is not None:
                self.cached_reader.remember(stat, status, started)
        except BaseException:
            os.close(fd)
            raise
        return fd, stat

    def _delete(self, path: str, etag: str | None) -> None:
        with contextlib.ExitStack() as stack:
            with self.exclusive():
                self._stat(path).check_etag(etag)
                parent = stack.enter_context(self.tree.open_parent(paths.check_path(path)))
                os.unlink(parent.name, dir_fd=parent.fd)
            parent.sync()


class OpenLocalFile:
    """A part of an open file, an `OpenFile`."""

    def __init__(self, stat: Stat, fd: int, start: int, end: int) -> None:
        self.stat = stat
        self.fd: int | None = fd
        self._file, self._position, self._end = fd, start, end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises `OSError` where the file has been cut short meanwhile."""
        while self._position < self._end:
            wanted = min(PIECE_BYTES, self._end - self._position)
            piece = await finish_in_thread(os.pread, self._file, wanted, self._position)
            if not piece:
                raise OSError("the file has been cut short while it was read")
            self._position += len(piece)
            yield piece


class _Pages:
    """Takes entries from the disk in pages, in one thread at a time."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._lock = threading.Lock()

    def next(self) -> list[Entry]:
        with self._lock:
            return list(itertools.islice(self._entries, LIST_PAGE_SIZE))

    def close(self) -> None:
        with self._lock:
            self._entries.close()


def _described(path: str, status: os.stat_result, attributes: FileAttributes = NO_ATTRIBUTES) -> Stat:
    return Stat(path, status.st_size, status.st_mtime, Identity.of(status).etag, *attributes)


def _listed(entry: FolderEntry) -> Stat | str:
    path = f"/{entry.key}"
    return path if entry.status is None else _described(path, entry.status, entry.attributes)


@contextlib.contextmanager
def _as_refusals(missing: str = "there is no such file") -> Iterator[None]:
    """Turn errors of the disk into refusals."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal("not_found", missing) from None
    except PermissionError:
        raise Refusal("forbidden", "the gateway may not read this file") from None
    except Refusal as refusal:
        if refusal.code == "conflict":  # a folder, or a file on the way
            raise Refusal("not_found", missing) from None
        raise


@contextlib.asynccontextmanager
async def _closing(fd: int) -> AsyncIterator[None]:
    """Close `fd` in the end, in a thread: the last close of a removed file frees its blocks."""
    try:
        yield
    finally:
        await finish_in_thread(os.close, fd)


@contextlib.asynccontextmanager
async def _opened(stat: Stat, fd: int) -> AsyncIterator[OpenLocalFile]:
    async with _closing(fd):
        yield OpenLocalFile(stat, fd, 0, stat.bytes)


def _read_whole(stat: Stat, fd: int, start: int, length: int) -> bytes:
    piece = os.pread(fd, length, start) if length else b""
    if len(piece) < length:
        raise Superseded(f"{stat.path} has been cut short while it was read")
    return piece


async def _or_close(opening: asyncio.Future[Opened]) -> Opened:
    """Wait for a thread that opens a file. Where the caller is cancelled meanwhile, it is closed."""
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


def _close_opened(opening: asyncio.Future[Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        fd, _ = opening.result()
        if fd is not None:
            os.close(fd)
