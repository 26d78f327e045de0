"""The shelf of a local directory: what is stored, read, listed and removed.

One rule: a file is opened once, by descriptors and without following a link, and everything said of
it (size, date, etag, bytes) is said of that open file, whatever its name comes to mean. All disk
work is done in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from gateway.domain import paths
from gateway.domain.grant import Grant
from gateway.domain.model import Identity
from gateway.errors import Refusal, Superseded
from gateway.storage.local.listing import Entry, Found, walk
from gateway.storage.local.read_pool import ReadPool
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import read_xattr
from gateway.storage.protocols import MAX_SINGLE_PASS_BYTES, PresignedRequest, SinglePassRead, Stat

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
LIST_PAGE_SIZE: Final = 500
"""Files that one visit to a thread finds for a list."""

_LISTING: Final = ThreadPoolExecutor(2, thread_name_prefix="list")
"""Threads of their own: sorting a folder of many names takes long, and whoever opens a file shall not
stand in line behind it."""


class Between(Protocol):
    """Runs a function while nothing is being published."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return what `function` returns."""
        ...


class LocalStorage:
    """DIRECTORY as a `Shelf`. Callable from any event loop.

    `between` runs removals while nothing is published, `alone` keeps other processes from publishing.
    `visitors` are the threads of `visit`, which then belongs to their loop.
    """

    def __init__(
        self,
        tree: DirectoryTree,
        between: Between = asyncio.to_thread,
        alone: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
        visitors: ReadPool | None = None,
    ) -> None:
        self._tree = tree
        self._between = between
        self._alone = alone
        self._visitors = visitors

    async def stat(self, path: str) -> Stat:
        """Describe a file. Raises `Refusal`."""
        return await asyncio.to_thread(self._stat, path)

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AsyncIterator[OpenLocalFile]:
        """Open a part of a file, see `Shelf.open`."""
        loop = asyncio.get_running_loop()
        fd, stat = await _caught(loop.run_in_executor(None, self._open, path), _close_opened)
        async with _kept(fd):
            _same(stat, etag)
            end = stat.bytes if length is None else min(start + length, stat.bytes)
            yield OpenLocalFile(stat, fd, start, end)

    async def visit(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead:
        """Look at a file and take parts of it, in one visit to a thread, see `Visited.visit`."""
        work = partial(self._visit, path, choose)
        if self._visitors is None:
            visiting = asyncio.get_running_loop().run_in_executor(None, work)
        else:
            visiting = self._visitors(work)
        fd, visit = await _caught(visiting, _close_visited)
        return visit if fd is None else replace(visit, opened=_lent(visit.stat, fd))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncGenerator[Stat, None]:
        """Iterate over files in the order of their keys, see `Shelf.list`. They tell no type."""
        found = walk(self._tree, prefix.removeprefix("/"), (after or "").removeprefix("/"))
        pages, loop = _FolderPages(found), asyncio.get_running_loop()
        try:
            while page := await loop.run_in_executor(_LISTING, pages.next):
                for entry in page:
                    yield _described("/" + entry.key, entry.status)
        finally:
            await loop.run_in_executor(_LISTING, pages.close)

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove a file durably. Raises `Refusal`, `Superseded`."""
        await self._between(lambda: self._delete(path, etag))

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Return None: the gateway itself serves what is here."""
        return None

    async def expire(self, prefix: str, seconds: float) -> None:
        """Return None: a directory removes nothing by itself."""

    def _stat(self, path: str) -> Stat:
        fd, stat = self._open(path)
        os.close(fd)
        return stat

    def _visit(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> tuple[int | None, SinglePassRead]:
        """Return what was read, or the descriptor where that would have been too much."""
        fd, stat = self._open(path)
        kept = False
        try:
            parts = choose(stat)
            kept = sum(length for _, length in parts) > MAX_SINGLE_PASS_BYTES
            if kept:
                return fd, SinglePassRead(stat)
            return None, SinglePassRead(
                stat, [_whole(stat, fd, start, length) for start, length in parts]
            )
        finally:
            if not kept:
                os.close(fd)

    def _open(self, path: str) -> tuple[int, Stat]:
        """Return a descriptor and what it is. Raises `Refusal`."""
        segments = paths.check(path)
        with _refusing(path):
            fd = self._tree.open_file(segments)
        try:
            told = read_xattr(fd)
            stat = _described("/" + "/".join(segments), os.fstat(fd), told.mime, told.metadata)
        except BaseException:
            os.close(fd)
            raise
        return fd, stat

    def _delete(self, path: str, etag: str | None) -> None:
        with contextlib.ExitStack() as held:
            with self._alone():
                stat = self._stat(path)
                _same(stat, etag)
                parent = held.enter_context(self._tree.open_parent(paths.check(path)))
                os.unlink(parent.name, dir_fd=parent.fd)
            parent.sync()


class OpenLocalFile:
    """A part of an open file, as `Opened`."""

    def __init__(self, stat: Stat, fd: int, start: int, end: int) -> None:
        self.stat = stat
        self.fd: int | None = fd
        self._file, self._at, self._end = fd, start, end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises `OSError` where the file has been cut short meanwhile."""
        while self._at < self._end:
            wanted = min(PIECE_BYTES, self._end - self._at)
            piece = await asyncio.to_thread(os.pread, self._file, wanted, self._at)
            if not piece:
                raise OSError("the file has been cut short while it was read")
            self._at += len(piece)
            yield piece


class _FolderPages:
    """Takes an iterator of the disk's in pages, in one thread at a time."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._busy = threading.Lock()

    def next(self) -> list[Entry]:
        with self._busy:
            return list(itertools.islice(self._found, LIST_PAGE_SIZE))

    def close(self) -> None:
        with self._busy:
            self._found.close()


def _described(
    path: str, status: os.stat_result, mime: str | None = None, metadata: dict[str, str] | None = None
) -> Stat:
    return Stat(path, status.st_size, status.st_mtime, Identity.of(status).etag, mime, metadata or {})


def _same(stat: Stat, etag: str | None) -> None:
    if etag is not None and stat.etag != etag:
        raise Superseded(f"{stat.path} has been replaced or changed meanwhile")


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    """Turn what the disk says into what a client is told."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal("not_found", "there is no such file") from None
    except PermissionError:
        raise Refusal("forbidden", "the gateway may not read this file") from None
    except Refusal as refusal:
        if refusal.code == "conflict":  # a folder, or a file on the way
            raise Refusal("not_found", "there is no such file") from None
        raise


@contextlib.asynccontextmanager
async def _kept(fd: int) -> AsyncIterator[None]:
    """Close `fd` in the end, in a thread: the last one to close a removed file frees its blocks."""
    try:
        yield
    finally:
        await asyncio.shield(asyncio.to_thread(os.close, fd))


@contextlib.asynccontextmanager
async def _lent(stat: Stat, fd: int) -> AsyncIterator[OpenLocalFile]:
    async with _kept(fd):
        yield OpenLocalFile(stat, fd, 0, stat.bytes)


def _whole(stat: Stat, fd: int, start: int, length: int) -> bytes:
    piece = os.pread(fd, length, start) if length else b""
    if len(piece) < length:
        raise Superseded(f"{stat.path} has been cut short while it was read")
    return piece


async def _caught(working: asyncio.Future[T], drop: Callable[[T], None]) -> T:
    """Wait for a thread; what nobody waits for any more is dropped."""
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        working.add_done_callback(partial(_drop, drop))
        raise


def _drop(drop: Callable[[T], None], working: asyncio.Future[T]) -> None:
    if not working.cancelled() and working.exception() is None:
        drop(working.result())


def _close_opened(opened: tuple[int, Stat]) -> None:
    os.close(opened[0])


def _close_visited(visited: tuple[int | None, SinglePassRead]) -> None:
    if visited[0] is not None:
        os.close(visited[0])
