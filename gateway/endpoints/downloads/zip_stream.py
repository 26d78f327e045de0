"""Many files as one zip archive, written while it is sent, in constant memory.

The library that writes the format is synchronous: it runs in threads, a chunk at a time, so that a
slow client holds no thread. The storage is called on the event loop.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from gateway.endpoints.downloads.response import media_type_of
from gateway.errors import GatewayError, Refusal
from gateway.storage.protocols import OpenFile
from gateway.storage.waiting import wait_ended

T = TypeVar("T")

CHUNK_BYTES: Final = 1 << 20
MAX_FILES: Final = 100_000
"""Files in one archive: of each the format keeps some 300 bytes for its end."""

_ZipEntry = tuple[str, datetime, int, Any, Iterator[bytes]]
"""A file as the library takes it: name, date, permission bits, method, bytes."""

_FILE_MODE: Final = 0o100644
_MIN_DATE: Final = datetime(1980, 1, 1, tzinfo=UTC).timestamp()
_MAX_DATE: Final = datetime(2038, 1, 1, tzinfo=UTC).timestamp()
"""The range of dates in the format."""

_COMPRESSIBLE: Final = ("text/", "application/json", "application/xml", "image/svg")
"""Types that are compressed, lightly: most others are already, or cost more time than they save."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive. If it `may_be_missing`, it is left out when removed meanwhile."""

    name: str
    opening: AbstractAsyncContextManager[OpenFile]
    may_be_missing: bool = False


class ZipStream:
    """Writes one archive. `members` are read one by one, and may be any number."""

    def __init__(self, members: AsyncIterator[Member], threads: ThreadPoolExecutor) -> None:
        self._members = members
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._pending: Future[Any] | None = None
        self._stopped = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the archive; a chunk is written while the one before is sent."""
        entries = self._entries()
        # Four megabytes of code that most gateways never need.
        library = await asyncio.to_thread(importlib.import_module, "stream_zip")
        written = iter(library.stream_zip(entries, chunk_size=CHUNK_BYTES))
        writing = self._loop.run_in_executor(self._threads, next, written, None)
        try:
            while (chunk := await asyncio.shield(writing)) is not None:
                writing = self._loop.run_in_executor(self._threads, next, written, None)
                yield chunk
        finally:
            self._stopped = True
            if self._pending is not None:
                self._pending.cancel()
            await wait_ended(writing)  # a generator that runs cannot be closed
            del written
            await wait_ended(self._loop.run_in_executor(self._threads, entries.close))

    # -- in a thread

    def _entries(self) -> Generator[_ZipEntry, None, None]:
        count = 0
        while (member := self._run_on_loop(_next(self._members))) is not None:
            count += 1
            if count > MAX_FILES:
                raise GatewayError(f"an archive holds at most {MAX_FILES} files")
            stack = AsyncExitStack()
            try:
                file = self._open(member, stack)
                if file is not None:
                    yield self._entry(member.name, file)
            finally:
                self._run_on_loop(stack.aclose(), always=True)

    def _open(self, member: Member, stack: AsyncExitStack) -> OpenFile | None:
        try:
            return self._run_on_loop(stack.enter_async_context(member.opening))
        except Refusal as refusal:
            if member.may_be_missing and refusal.code == "not_found":
                return None
            raise

    def _entry(self, name: str, file: OpenFile) -> _ZipEntry:
        from stream_zip import ZIP_AUTO

        stat = file.stat
        date = datetime.fromtimestamp(min(max(stat.modified, _MIN_DATE), _MAX_DATE), UTC)
        level = 1 if media_type_of(stat).startswith(_COMPRESSIBLE) else 0
        return name, date, _FILE_MODE, ZIP_AUTO(stat.bytes, level=level), self._file_chunks(file)

    def _file_chunks(self, file: OpenFile) -> Iterator[bytes]:
        if file.fd is None:
            chunks = aiter(file)
            while (chunk := self._run_on_loop(_next(chunks))) is not None:
                yield chunk
            return
        position, end = 0, file.stat.bytes
        while position < end:
            chunk = os.pread(file.fd, min(CHUNK_BYTES, end - position), position)
            if not chunk:
                raise OSError("a file was truncated while it was sent")
            position += len(chunk)
            yield chunk

    def _run_on_loop(self, work: Coroutine[Any, Any, T], *, always: bool = False) -> T:
        """Run `work` on the event loop and wait for it; once stopped, only what must `always` run."""
        if self._stopped and not always:
            work.close()
            raise GatewayError("the archive is no longer sent")
        pending = asyncio.run_coroutine_threadsafe(work, self._loop)
        if not always:
            self._pending = pending
        return pending.result()


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)
