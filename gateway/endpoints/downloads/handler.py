"""`GET` and `HEAD` of a file: is there news, which part of it, and how it leaves.

One rule: nothing is opened, and nothing said of a file, before it is decided that this client may
have it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

from aiohttp import web

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.domain.grant import Grant
from gateway.domain.path_template import PathMatch
from gateway.endpoints.downloads.authorization import DownloadAuthorizer
from gateway.endpoints.downloads.headers import ResponseOptions
from gateway.endpoints.downloads.negotiation import ConditionalRequest
from gateway.endpoints.downloads.ranges import ByteRange
from gateway.endpoints.downloads.response import FileResponse, OpenResponseFile, ResponseBody
from gateway.endpoints.downloads.transfer import TransferPool
from gateway.errors import Refusal, Superseded
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.storage.protocols import OpenFile, SinglePassReader, Stat, Storage
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.downloads")

MOST_OPEN: Final = 1000
"""Files that are sent at the same time, by one process."""

_ATTEMPTS: Final = 5
"""How often a file is looked at anew that is replaced between the look and the opening."""


class DownloadHandler:
    """The door. One object per process; lives on the server's loop. `slot` goes into event ids."""

    def __init__(
        self,
        settings: Settings,
        auth: Auth,
        hooks: Hooks,
        shelf: Storage,
        metrics: Metrics,
        slot: int,
    ) -> None:
        self.on = settings.downloads
        self.deciding = DownloadAuthorizer(auth, hooks, slot)
        self.shelf = shelf
        self._visited = shelf if isinstance(shelf, SinglePassReader) else None
        self.sending = TransferPool(settings.idle_timeout)
        self._metrics = metrics
        self._open = 0

    def close(self) -> None:
        """End the threads."""
        self.sending.close()

    async def get(self, incoming: IncomingRequest, match: PathMatch) -> web.StreamResponse:
        """Answer a GET or HEAD of an upload path. Raises `Refusal`."""
        with self.refusals_counted():
            path, wish = await self.deciding.file(incoming, match)
            return await self._serve(incoming.request, path, wish)

    async def serve(
        self,
        request: web.BaseRequest,
        path: str,
        grant: Grant | None = None,
        *,
        etag: str | None = None,
    ) -> web.StreamResponse:
        """Answer with the file at `path`, to somebody who may have it. Raises `Refusal`.

        A `grant` says how it is to be saved and cached. With `etag` only that version is sent
        (`superseded`). Works whether downloads are on or off.
        """
        wish = (
            ResponseOptions() if grant is None else ResponseOptions(grant.filename, grant.cache_control)
        )
        with self.refusals_counted():
            return await self._serve(request, path, wish, etag)

    @contextlib.contextmanager
    def refusals_counted(self) -> Iterator[None]:
        """Count a refusal by its code."""
        try:
            yield
        except Refusal as refusal:
            self._metrics.downloads.add(refusal.code)
            raise

    async def _serve(
        self, request: web.BaseRequest, path: str, wish: ResponseOptions, etag: str | None = None
    ) -> web.StreamResponse:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(Superseded):
                return await self._look(path, wish, ConditionalRequest(request, etag))
        raise Refusal("overloaded", "the file is being replaced again and again")

    async def _look(
        self, path: str, wish: ResponseOptions, asked: ConditionalRequest
    ) -> web.StreamResponse:
        if self._visited is not None:
            visit = await self._visited.read_parts(path, asked.choose)
            held = None if visit.opened is None else await self._take(visit.opened)
            return self._answer(visit.stat, wish, asked, ResponseBody(held, visit.pieces))
        stat = await self.shelf.stat(path)
        parts = asked.choose(stat)
        return self._answer(
            stat, wish, asked, ResponseBody(await self._hold(stat, parts[0]) if parts else None)
        )

    def _answer(
        self, stat: Stat, wish: ResponseOptions, asked: ConditionalRequest, brought: ResponseBody
    ) -> web.StreamResponse:
        if asked.status == 304:
            self._metrics.downloads.add("not_modified")
        answer = FileResponse(stat, wish, asked.status, brought)
        answer.sending = self.sending
        answer.ended = self.count
        if asked.status == 206:
            answer.take_parts(asked.parts)
        return answer

    async def _take(self, opening: AbstractAsyncContextManager[OpenFile]) -> OpenResponseFile:
        """Keep a file that is open already. Raises `Refusal`."""
        async with AsyncExitStack() as closing:
            opened = await closing.enter_async_context(opening)
            self.occupy(closing)
            return OpenResponseFile(self.shelf, opened, closing.pop_all())

    async def _hold(self, stat: Stat, part: ByteRange) -> OpenResponseFile:
        """Open the file, this very version of it. Raises `Superseded`, `Refusal`."""
        async with AsyncExitStack() as closing:
            self.occupy(closing)
            opening = self.shelf.open(stat.path, start=part.start, length=part.length, etag=stat.etag)
            opened = await closing.enter_async_context(opening)
            return OpenResponseFile(self.shelf, opened, closing.pop_all())

    def occupy(self, until: AsyncExitStack) -> None:
        """Count as one that is open until `until` is closed. Raises `Refusal("overloaded")`."""
        if self._open >= MOST_OPEN:
            raise Refusal("overloaded", "too many files are being sent; try again later")
        self._open += 1
        until.callback(self._release)

    def _release(self) -> None:
        self._open -= 1

    def count(self, sent: int, whole: bool) -> None:
        """Count a download that has ended."""
        self._metrics.downloads.add("sent" if whole else "broken")
        self._metrics.sent_bytes.add(amount=sent)
        if not whole:
            log.info("download broken off", extra={"facts": {"bytes": sent}})
