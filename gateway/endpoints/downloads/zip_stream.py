"""Many files as one zip, made while it is sent, in constant memory.

One rule: the library that writes the format is synchronous, so it runs in threads, a piece at a
time, and no thread is held while the client is slow; what has to be asked of the storage is asked
on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from gateway.endpoints.downloads.headers import type_of
from gateway.errors import GatewayError, Refusal
from gateway.storage.protocols import OpenFile, Stat

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
MOST_FILES: Final = 100_000
"""Files in one archive: of each the format keeps some 300 bytes for its end."""

_Described = tuple[str, datetime, int, Any, Iterator[bytes]]
"""A file as the library wants it: name, date, permission bits, method, bytes."""

_MODE: Final = 0o100644
_EARLIEST: Final = datetime(1980, 1, 1, tzinfo=UTC).timestamp()
_LATEST: Final = datetime(2038, 1, 1, tzinfo=UTC).timestamp()
"""What the format can say of dates."""

_WORTH_IT: Final = ("text/", "application/json", "application/xml", "image/svg")
"""What is compressed, lightly: most else has been already, or costs more time than it saves."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: its name there, and how to open it.

    One that `may_be_gone` is left out where it has been removed since it was listed.
    """

    name: str
    opening: AbstractAsyncContextManager[OpenFile]
    may_be_gone: bool = False


class ZipStream:
    """One archive on its way. `members` may be endless for all we know; it is asked one by one."""

    def __init__(self, members: AsyncIterator[Member], pool: ThreadPoolExecutor) -> None:
        self._members = members
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._asked: Future[Any] | None = None
        self._over = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the archive; one piece is made while the one before is sent. Raises what goes wrong."""
        files = self._files()
        # Four megabytes of code that most gateways never need.
        library = await asyncio.to_thread(importlib.import_module, "stream_zip")
        made = iter(library.stream_zip(files, chunk_size=PIECE_BYTES))
        making = self._loop.run_in_executor(self._pool, next, made, None)
        try:
            while (piece := await asyncio.shield(making)) is not None:
                making = self._loop.run_in_executor(self._pool, next, made, None)
                yield piece
        finally:
            self._stop()
            await self._ended(making)
            del made
            await self._ended(self._loop.run_in_executor(self._pool, files.close))

    def _stop(self) -> None:
        self._over = True
        if self._asked is not None:
            self._asked.cancel()

    @staticmethod
    async def _ended(making: asyncio.Future[Any]) -> None:
        """Wait for the thread: a generator that runs cannot be closed."""
        while not making.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({making})
        if not making.cancelled():
            making.exception()

    # -- in a thread

    def _files(self) -> Generator[_Described, None, None]:
        count = 0
        while (member := self._ask(self._next())) is not None:
            count += 1
            if count > MOST_FILES:
                raise GatewayError(f"an archive holds at most {MOST_FILES} files")
            closing = AsyncExitStack()
            try:
                opened = self._opened(member, closing)
                if opened is not None:
                    yield self._described(member.name, opened)
            finally:
                self._ask(closing.aclose(), always=True)

    def _opened(self, member: Member, closing: AsyncExitStack) -> OpenFile | None:
        try:
            return self._ask(closing.enter_async_context(member.opening))
        except Refusal as refusal:
            if member.may_be_gone and refusal.code == "not_found":
                return None
            raise

    def _described(self, name: str, opened: OpenFile) -> _Described:
        from stream_zip import ZIP_AUTO

        stat = opened.stat
        method = ZIP_AUTO(stat.bytes, level=_level(stat))
        return name, _date(stat), _MODE, method, self._bytes(opened)

    def _bytes(self, opened: OpenFile) -> Iterator[bytes]:
        if opened.fd is None:
            pieces = aiter(opened)
            while (piece := self._ask(_next_of(pieces))) is not None:
                yield piece
            return
        at, end = 0, opened.stat.bytes
        while at < end:
            piece = os.pread(opened.fd, min(PIECE_BYTES, end - at), at)
            if not piece:
                raise OSError("a file has been cut short while it was sent")
            at += len(piece)
            yield piece

    async def _next(self) -> Member | None:
        return await anext(self._members, None)

    def _ask(self, work: Coroutine[Any, Any, T], *, always: bool = False) -> T:
        """Have something done on the loop and wait for it."""
        if self._over and not always:
            work.close()
            raise GatewayError("nobody waits for the archive any more")
        asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        if not always:
            self._asked = asked
        return asked.result()


async def _next_of(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


def _level(stat: Stat) -> int:
    return 1 if type_of(stat).startswith(_WORTH_IT) else 0


def _date(stat: Stat) -> datetime:
    return datetime.fromtimestamp(min(max(stat.modified, _EARLIEST), _LATEST), UTC)
