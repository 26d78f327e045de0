"""`GET` and `HEAD` of a stored file.

No file is opened, and nothing of it disclosed, before the request is authorized.
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
from gateway.endpoints.downloads.authorization import DownloadAuthorizer, granted_options
from gateway.endpoints.downloads.headers import ResponseOptions
from gateway.endpoints.downloads.negotiation import ByteRange, ConditionalRequest
from gateway.endpoints.downloads.response import FileResponse, OpenResponseFile, ResponseBody
from gateway.endpoints.downloads.transfer import TransferPool
from gateway.errors import Refusal, Superseded
from gateway.http.responses import GatewayResponse
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.storage.protocols import OpenFile, SinglePassReader, Stat, Storage
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.downloads")

MAX_OPEN_FILES: Final = 1000
"""Files that one process sends at the same time."""

_ATTEMPTS: Final = 5
"""How often a file is tried that is replaced between its stat and its opening."""


class DownloadHandler:
    """Handles downloads. One object per process, on the server's loop; `slot` goes into event ids."""

    def __init__(
        self, settings: Settings, auth: Auth, hooks: Hooks, storage: Storage, metrics: Metrics, slot: int
    ) -> None:
        self.enabled = settings.downloads
        self.authorizer = DownloadAuthorizer(auth, hooks, slot)
        self.storage = storage
        self.pool = TransferPool(settings.idle_timeout)
        self._single_pass = storage if isinstance(storage, SinglePassReader) else None
        self._metrics = metrics
        self._open_files = 0

    def close(self) -> None:
        """End the threads."""
        self.pool.close()

    async def get(self, incoming: IncomingRequest, match: PathMatch) -> GatewayResponse:
        """Respond to a GET or HEAD of an upload path. Raises `Refusal`."""
        with self.count_refusals():
            path, options = await self.authorizer.authorize_file(incoming, match)
            return await self._respond(incoming.request, path, options)

    async def serve(
        self, request: web.BaseRequest, path: str, grant: Grant | None = None, *, etag: str | None = None
    ) -> GatewayResponse:
        """Respond with the file at `path` to an authorized request. Raises `Refusal`.

        With `etag` only that version is sent (`superseded`). Works whether downloads are enabled
        or not.
        """
        with self.count_refusals():
            return await self._respond(request, path, granted_options(grant), etag)

    @contextlib.contextmanager
    def count_refusals(self) -> Iterator[None]:
        """Count a refusal by its code."""
        try:
            yield
        except Refusal as refusal:
            self._metrics.downloads.add(refusal.code)
            raise

    async def _respond(
        self, request: web.BaseRequest, path: str, options: ResponseOptions, etag: str | None = None
    ) -> GatewayResponse:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(Superseded):
                conditional = ConditionalRequest(request.method, request.headers, etag)
                stat, body = await self._open_body(path, conditional)
                return self._response(stat, options, conditional, body)
        raise Refusal("overloaded", "the file is being replaced again and again")

    async def _open_body(self, path: str, conditional: ConditionalRequest) -> tuple[Stat, ResponseBody]:
        if self._single_pass is not None:
            read = await self._single_pass.read_parts(path, conditional.choose_ranges)
            file = None if read.opened is None else await self._keep_open(read.opened)
            return read.stat, ResponseBody(file, read.pieces)
        stat = await self.storage.stat(path)
        ranges = conditional.choose_ranges(stat)
        return stat, ResponseBody(await self._open_version(stat, ranges[0]) if ranges else None)

    def _response(
        self, stat: Stat, options: ResponseOptions, conditional: ConditionalRequest, body: ResponseBody
    ) -> GatewayResponse:
        if conditional.status == 304:
            self._metrics.downloads.add("not_modified")
        response = FileResponse(stat, options, conditional.status, body, self.pool, self.count_download)
        if conditional.status == 206:
            response.set_ranges(conditional.ranges)
        return response

    async def _keep_open(self, opening: AbstractAsyncContextManager[OpenFile]) -> OpenResponseFile:
        async with AsyncExitStack() as stack:
            file = await stack.enter_async_context(opening)
            self.acquire_slot(stack)
            return OpenResponseFile(self.storage, file, stack.pop_all())

    async def _open_version(self, stat: Stat, first: ByteRange) -> OpenResponseFile:
        """Open this version of a file at its `first` range. Raises `Superseded`, `Refusal`."""
        async with AsyncExitStack() as stack:
            self.acquire_slot(stack)
            opening = self.storage.open(
                stat.path, start=first.start, length=first.length, etag=stat.etag
            )
            file = await stack.enter_async_context(opening)
            return OpenResponseFile(self.storage, file, stack.pop_all())

    def acquire_slot(self, until: AsyncExitStack) -> None:
        """Count as an open file until `until` is closed. Raises `Refusal("overloaded")`."""
        if self._open_files >= MAX_OPEN_FILES:
            raise Refusal("overloaded", "too many files are being sent; try again later")
        self._open_files += 1
        until.callback(self._release_slot)

    def _release_slot(self) -> None:
        self._open_files -= 1

    def count_download(self, sent: int, complete: bool) -> None:
        """Count a download that has ended, and its bytes."""
        self._metrics.downloads.add("sent" if complete else "broken")
        self._metrics.sent_bytes.add(amount=sent)
        if not complete:
            log.info("download aborted", extra=event("download.aborted", bytes=sent))
