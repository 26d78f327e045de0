"""A folder, or some files of it, as one zip archive.

An archive is authorized once, as a whole. It has what its folder had while it was sent. What fails
in the middle breaks the connection.
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
from gateway.domain.path_template import PathMatch
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.downloads.response import (
    DEFAULT_OPTIONS,
    ResponseOptions,
    StreamedResponse,
    download_headers,
)
from gateway.endpoints.downloads.transfer import FileSender
from gateway.endpoints.downloads.zip_stream import Member, ZipStream
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse
from gateway.limits import FairShare
from gateway.storage.protocols import Stat, Storage

THREADS: Final = 4
"""Archives that are written at the same moment; more take turns, a chunk each."""

MAX_ARCHIVES: Final = 64
"""Archives that one process sends at the same time, of which each client gets its share.

Each holds some MB of names and bytes.
"""

MAX_NAMED_FILES: Final = 500
"""Files that one request may name."""

CONCURRENT_STATS: Final = 16


class ArchiveHandler:
    """Handles requests for archives. One object per process, on the server's loop."""

    def __init__(self, downloads: DownloadHandler) -> None:
        self._downloads = downloads
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="zip")
        self._open_archives = FairShare("archives", MAX_ARCHIVES)

    async def close(self) -> None:
        """End the threads. The loop keeps running meanwhile: they need it to close their files."""
        await asyncio.to_thread(self._threads.shutdown)

    async def get(self, incoming: IncomingRequest, folder: PathMatch) -> GatewayResponse:
        """Respond to a GET or HEAD of a folder. Raises `Refusal`."""
        downloads = self._downloads
        with downloads.count_refusals():
            names = _named_files(folder.path, incoming.params)
            path, options = await downloads.authorizer.authorize_archive(incoming, folder, names)
            return await self._respond(incoming, path, options, names)

    async def serve(self, incoming: IncomingRequest, path: str) -> GatewayResponse:
        """Respond with the archive of a folder, whose request is authorized. Raises `Refusal`."""
        with self._downloads.count_refusals():
            return await self._respond(incoming, path, DEFAULT_OPTIONS, None)

    async def _respond(
        self, incoming: IncomingRequest, path: str, options: ResponseOptions, names: list[str] | None
    ) -> GatewayResponse:
        downloads = self._downloads
        async with AsyncExitStack() as stack:
            client = downloads.client_of(incoming)
            stack.enter_context(self._open_archives.acquire(client))
            stack.enter_context(downloads.open_files.acquire(client))
            if names is None:
                members = await _members_below(downloads.storage, path, stack)
            else:
                members = await _named_members(downloads.storage, path, names)
            return _ArchiveResponse(path, options, members, self, stack.pop_all())

    async def send_archive(self, request: web.BaseRequest, members: AsyncIterator[Member]) -> None:
        """Send an archive and count it. Raises `ConnectionError`, `OSError`, `GatewayError`."""
        sender, complete = FileSender(self._downloads.pool, request), False
        try:
            async with contextlib.aclosing(ZipStream(members, self._threads).chunks()) as chunks:
                async for chunk in chunks:
                    await sender.send_chunk(chunk)
            complete = True
        finally:
            self._downloads.count_download(sender.sent, complete)


class _ArchiveResponse(StreamedResponse):
    """The archive of a folder. Its length is not known before its end."""

    def __init__(
        self,
        folder: str,
        options: ResponseOptions,
        members: AsyncIterator[Member],
        archives: ArchiveHandler,
        exit_stack: AsyncExitStack,
    ) -> None:
        name = options.filename or f"{folder.rstrip('/').rpartition('/')[2] or 'files'}.zip"
        super().__init__(headers={**download_headers(name, options), "Content-Type": "application/zip"})
        self._members = members
        self._archives = archives
        self._exit_stack = exit_stack

    async def send_body(self, request: web.BaseRequest) -> None:
        """Send the archive."""
        await self._archives.send_archive(request, self._members)

    async def close(self) -> None:
        """Release the slots and the listing."""
        await self._exit_stack.aclose()


def _named_files(folder: str, query: dict[str, list[str]]) -> list[str] | None:
    """Return the names below the folder that are requested, None for all. Raises `Refusal`."""
    names = query.get("file")
    if names is None:
        return None
    if len(names) > MAX_NAMED_FILES:
        raise Refusal("bad_request", f"at most {MAX_NAMED_FILES} files can be named")
    if len(set(names)) < len(names):
        raise Refusal("bad_request", "a file is named twice")
    for name in names:
        paths.check_path(folder + name)
    return names


async def _named_members(storage: Storage, folder: str, names: list[str]) -> AsyncIterator[Member]:
    """Return named files of a folder, all of which exist. Raises `Refusal`."""
    for start in range(0, len(names), CONCURRENT_STATS):
        batch = names[start : start + CONCURRENT_STATS]
        await asyncio.gather(*(storage.stat(folder + name) for name in batch))

    async def members() -> AsyncIterator[Member]:
        for name in names:
            yield Member(name, storage.open(folder + name))

    return members()


async def _members_below(storage: Storage, folder: str, stack: AsyncExitStack) -> AsyncIterator[Member]:
    """Return the files below a folder; `stack` closes their listing. Raises `Refusal("not_found")`."""
    listing = storage.list(folder)
    stack.push_async_callback(_close_listing, listing)
    first = await anext(listing, None)
    if first is None:
        raise Refusal("not_found", "there are no files below this folder")

    async def members() -> AsyncIterator[Member]:
        stat: Stat | None = first
        while stat is not None:
            name = stat.path.removeprefix(folder)
            yield Member(name, storage.open(stat.path), may_be_missing=True)
            stat = await anext(listing, None)

    return members()


async def _close_listing(listing: AsyncIterator[Stat]) -> None:
    """Close a listing, however far it was read; leave one alone that its reader is closing now."""
    if isinstance(listing, AsyncGenerator):
        with contextlib.suppress(RuntimeError):
            await listing.aclose()
