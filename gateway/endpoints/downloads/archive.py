"""A folder, or some files of it, as one zip.

One rule: an archive is decided upon once, as a whole (`deciding`); what is in it is what its folder
held while it was sent. A fault in the middle breaks the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from gateway.auth.request import IncomingRequest
from gateway.domain import paths
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.downloads.headers import ResponseOptions, head_of_any
from gateway.endpoints.downloads.response import StreamedResponse
from gateway.endpoints.downloads.transfer import FileSender
from gateway.endpoints.downloads.zip_stream import Member, ZipStream
from gateway.errors import Refusal
from gateway.storage.protocols import Stat, Storage

THREADS: Final = 4
"""Archives that are worked on at the same moment; more take turns, a piece each."""

MOST_ARCHIVES: Final = 64
"""Archives that are sent at the same time, by one process: each holds some MB of names and bytes."""

MOST_NAMED: Final = 500
"""Files that one request may name."""

LOOKED_AT_ONCE: Final = 16
_PROBE: Final = "x"


def folder_of(template: UploadPathTemplate, incoming: IncomingRequest) -> PathMatch | None:
    """Return the folder that is asked for as an archive: `GET /upload/reports/?format=zip`.

    Its path ends with a slash. None where it is no such request. Raises `Refusal("bad_path")`.
    """
    raw_path = incoming.raw_path
    if not raw_path.endswith("/") or "format=zip" not in incoming.raw_query:
        return None
    if incoming.params.get("format") != ["zip"]:
        return None
    match = template.match(raw_path + _PROBE)
    if match is None or not match.path.endswith(f"/{_PROBE}"):
        return None
    names = {name: text.removesuffix(_PROBE) for name, text in match.resources.items()}
    return PathMatch(match.path.removesuffix(_PROBE), names)


class ArchiveHandler:
    """Answers with archives. One object per process; lives on the server's loop."""

    def __init__(self, downloads: DownloadHandler) -> None:
        self._downloads = downloads
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="zip")
        self._sent_now = 0

    async def close(self) -> None:
        """End the threads. The loop goes on meanwhile: they ask it to close their files."""
        await asyncio.to_thread(self._pool.shutdown)

    async def get(self, incoming: IncomingRequest, folder: PathMatch) -> web.StreamResponse:
        """Answer a GET or HEAD of a folder. Raises `Refusal`."""
        downloads = self._downloads
        with downloads.refusals_counted():
            wanted = _named(folder.path, incoming.params)
            path, wish = await downloads.deciding.archive(incoming, folder, wanted)
            async with AsyncExitStack() as closing:
                self._occupy(closing)
                downloads.occupy(closing)
                if wanted is None:
                    members = await _all_below(downloads.shelf, path, closing)
                else:
                    members = await _these(downloads.shelf, path, wanted)
                return _Archive(_name(path, wish), wish, members, self, closing.pop_all())

    def _occupy(self, until: AsyncExitStack) -> None:
        if self._sent_now >= MOST_ARCHIVES:
            raise Refusal("overloaded", "too many archives are being sent; try again later")
        self._sent_now += 1
        until.callback(self._release)

    def _release(self) -> None:
        self._sent_now -= 1

    def zipping(self, members: AsyncIterator[Member]) -> ZipStream:
        """Return the archive of `members`."""
        return ZipStream(members, self._pool)

    async def sent(self, request: web.BaseRequest, members: AsyncIterator[Member]) -> None:
        """Send an archive; count it. Raises `ConnectionError`, `OSError`, `GatewayError`."""
        sender, whole = FileSender(self._downloads.sending, request), False
        try:
            async with contextlib.aclosing(self.zipping(members).pieces()) as pieces:
                async for piece in pieces:
                    await sender.send_chunk(piece)
            whole = True
        finally:
            self._downloads.count(sender.sent, whole)


class _Archive(StreamedResponse):
    """The answer. Its length is not known before its end."""

    def __init__(
        self,
        name: str,
        wish: ResponseOptions,
        members: AsyncIterator[Member],
        archives: ArchiveHandler,
        closing: AsyncExitStack,
    ) -> None:
        super().__init__(headers={**head_of_any(name, wish), "Content-Type": "application/zip"})
        self._members = members
        self._archives = archives
        self._closing = closing

    async def send(self, request: web.BaseRequest) -> None:
        """Send the archive."""
        await self._archives.sent(request, self._members)

    async def close(self) -> None:
        """Let another one in."""
        await self._closing.aclose()


def _named(folder: str, query: dict[str, list[str]]) -> list[str] | None:
    """Return the names below the folder that are asked for, None for all. Raises `Refusal`."""
    names = query.get("file")
    if names is None:
        return None
    if len(names) > MOST_NAMED:
        raise Refusal("bad_request", f"at most {MOST_NAMED} files can be named")
    if len(set(names)) < len(names):
        raise Refusal("bad_request", "a file is named twice")
    for name in names:
        paths.check_path(folder + name)
    return names


def _name(path: str, wish: ResponseOptions) -> str:
    return wish.filename or f"{path.rstrip('/').rpartition('/')[2] or 'files'}.zip"


async def _these(shelf: Storage, folder: str, names: list[str]) -> AsyncIterator[Member]:
    """Return named files of a folder, all of which are there. Raises `Refusal`."""
    for start in range(0, len(names), LOOKED_AT_ONCE):
        some = names[start : start + LOOKED_AT_ONCE]
        await asyncio.gather(*(shelf.stat(folder + name) for name in some))

    async def members() -> AsyncIterator[Member]:
        for name in names:
            yield Member(name, shelf.open(folder + name))

    return members()


async def _all_below(shelf: Storage, folder: str, until: AsyncExitStack) -> AsyncIterator[Member]:
    """Return all files below a folder. Raises `Refusal("not_found")` where there is none.

    The list, which holds folders open, ends with `until`.
    """
    listed = shelf.list(folder)
    until.push_async_callback(_ended, listed)
    first = await anext(listed, None)
    if first is None:
        raise Refusal("not_found", "there are no files below this folder")

    async def members() -> AsyncIterator[Member]:
        stat: Stat | None = first
        while stat is not None:
            name = stat.path.removeprefix(folder)
            yield Member(name, shelf.open(stat.path), may_be_gone=True)
            stat = await anext(listed, None)

    return members()


async def _ended(listed: AsyncIterator[Stat]) -> None:
    """End a list, however far it was read; one that is just being ended by its reader is let be."""
    if isinstance(listed, AsyncGenerator):
        with contextlib.suppress(RuntimeError):
            await listed.aclose()
