"""Downloads door: `GET` and `HEAD` of a file: is there news, which part of it, and how it leaves.

One rule: nothing is opened, and nothing said of a file, before it is decided that this client may
have it. May import its own room, hooks, auth, server, storage and the foundations.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from aiohttp import web

from gateway import paths
from gateway.auth import Auth
from gateway.downloads.answer import FileAnswer, Held
from gateway.downloads.conditions import is_fresh, range_counts
from gateway.downloads.deciding import Deciding
from gateway.downloads.heads import Wish, modified_of
from gateway.downloads.ranges import Part, parts_of
from gateway.downloads.sending import Sending
from gateway.errors import Refusal, Superseded
from gateway.hooks import Hooks
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.signing import Grant
from gateway.storage.protocols import Shelf, Stat

log = logging.getLogger("gateway.downloads")

MOST_OPEN: Final = 1000
"""Files that are sent at the same time, by one process."""

_ASKING: Final = (
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Range",
)
_ATTEMPTS: Final = 5
"""How often a file is looked at anew that is replaced between the look and the opening."""


class Downloads:
    """The door. One object per process; lives on the server's loop. `slot` goes into event ids."""

    def __init__(
        self,
        settings: Settings,
        auth: Auth,
        hooks: Hooks,
        shelf: Shelf,
        metrics: Metrics,
        slot: int,
    ) -> None:
        self.on = settings.downloads
        self.deciding = Deciding(auth, hooks, slot)
        self.shelf = shelf
        self.sending = Sending(settings.idle_timeout)
        self._metrics = metrics
        self._open = 0

    def close(self) -> None:
        """End the threads."""
        self.sending.close()

    async def get(self, request: web.BaseRequest, match: paths.Match, query: str) -> web.StreamResponse:
        """Answer a GET or HEAD of an upload path. Raises `Refusal`."""
        with self.refusals_counted():
            path, wish = await self.deciding.file(request, match, query)
            return await self._serve(request, path, wish)

    async def serve(
        self, request: web.BaseRequest, path: str, grant: Grant | None = None
    ) -> web.StreamResponse:
        """Answer with the file at `path`, to somebody who may have it. Raises `Refusal`.

        A `grant` says how it is to be saved and cached. Works whether downloads are on or off.
        """
        wish = Wish() if grant is None else Wish(grant.filename, grant.cache_control)
        with self.refusals_counted():
            return await self._serve(request, path, wish)

    @contextlib.contextmanager
    def refusals_counted(self) -> Iterator[None]:
        """Count a refusal by its code."""
        try:
            yield
        except Refusal as refusal:
            self._metrics.downloads.add(refusal.code)
            raise

    async def _serve(self, request: web.BaseRequest, path: str, wish: Wish) -> web.StreamResponse:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(Superseded):
                return await self._look(request, path, wish)
        raise Refusal("overloaded", "the file is being replaced again and again")

    async def _look(self, request: web.BaseRequest, path: str, wish: Wish) -> web.StreamResponse:
        stat = await self.shelf.stat(path)
        headers = _asked(request)
        modified = modified_of(stat)
        if is_fresh(headers, stat.etag, modified):
            self._metrics.downloads.add("not_modified")
            return FileAnswer(stat, wish, 304)
        if request.method == "HEAD":
            return FileAnswer(stat, wish)
        parts = None
        if "Range" in headers and range_counts(headers, stat.etag, modified, time.time()):
            parts = parts_of(headers["Range"], stat.bytes)
        return await self._answer(stat, wish, parts)

    async def _answer(self, stat: Stat, wish: Wish, parts: list[Part] | None) -> web.StreamResponse:
        first = parts[0] if parts else Part(0, stat.bytes)
        answer = FileAnswer(stat, wish, held=await self._hold(stat, first))
        answer.sending = self.sending
        answer.ended = self.count
        if parts:
            answer.take_parts(parts)
        return answer

    async def _hold(self, stat: Stat, part: Part) -> Held:
        """Open the file, this very version of it. Raises `Superseded`, `Refusal`."""
        async with AsyncExitStack() as closing:
            self.occupy(closing)
            opening = self.shelf.open(stat.path, start=part.start, length=part.length, etag=stat.etag)
            opened = await closing.enter_async_context(opening)
            return Held(self.shelf, opened, closing.pop_all())

    def occupy(self, until: AsyncExitStack) -> None:
        """Count as one that is open until `until` is closed. Raises `Refusal("overloaded")`."""
        if self._open >= MOST_OPEN:
            raise Refusal("overloaded", "too many files are being sent; try again later")
        self._open += 1
        until.callback(partial(self._release, 1))

    def _release(self, count: int) -> None:
        self._open -= count

    def count(self, sent: int, whole: bool) -> None:
        """Count a download that has ended."""
        self._metrics.downloads.add("sent" if whole else "broken")
        self._metrics.sent_bytes.add(amount=sent)
        if not whole:
            log.info("download broken off", extra={"facts": {"bytes": sent}})


def _asked(request: web.BaseRequest) -> dict[str, str]:
    """Return what the request says of ranges and conditions, under the names of the standard."""
    headers = request.headers
    return {name: ", ".join(headers.getall(name)) for name in _ASKING if name in headers}
