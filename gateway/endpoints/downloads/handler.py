"""`GET` and `HEAD` of a stored file, authorized by default or by handlers of OnFileDownloading.

No file is opened, and nothing of it disclosed, before the request is authorized. Whatever fails
refuses. Where there are handlers, one of them must allow an archive: its files are not authorized one
by one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, NamedTuple

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest, RequestHead
from gateway.domain.grant import Grant
from gateway.domain.model import DOWNLOADING, Download
from gateway.domain.path_template import PathMatch
from gateway.endpoints.downloads.negotiation import ByteRange, ConditionalRequest
from gateway.endpoints.downloads.response import (
    DEFAULT_OPTIONS,
    FileResponse,
    OpenResponseFile,
    ResponseBody,
    ResponseOptions,
    file_headers,
)
from gateway.endpoints.downloads.transfer import TransferPool
from gateway.endpoints.file_requests import FileAuthorizer, check_rewritten_path
from gateway.endpoints.short_path import ShortExchange
from gateway.errors import Refusal, Superseded
from gateway.http.responses import GatewayResponse, SmallResponse
from gateway.limits import FairShare, MinRate
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.storage.protocols import OpenFile, SinglePassReader, Stat, Storage
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway.downloads")

MAX_OPEN_FILES: Final = 1000
"""Files that one process sends at the same time, of which each client gets its share."""

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
        self.pool = TransferPool(settings.idle_timeout, MinRate(settings.min_rate))
        self._single_pass = storage if isinstance(storage, SinglePassReader) else None
        self._metrics = metrics
        self.open_files = FairShare("downloads", MAX_OPEN_FILES)
        self.client_of = auth.client_of

    def close(self) -> None:
        """End the threads."""
        self.pool.close()

    async def get(self, incoming: IncomingRequest, match: PathMatch) -> GatewayResponse:
        """Respond to a GET or HEAD of an upload path. Raises `Refusal`."""
        with self.count_refusals():
            path, options = await self.authorizer.authorize_file(incoming, match)
            return await self._respond(incoming, path, options)

    def take_short(self, exchange: ShortExchange, match: PathMatch) -> bool:
        """Serve a GET of a small file that is in memory at once, or leave it to the ordinary path.

        Raises `Refusal` for what that refuses.
        """
        request, reader = exchange.request, self._single_pass
        if not self.enabled or reader is None or exchange.head.raw_query or request.body_exists:
            return False
        if "Range" in request.headers:
            return False
        authorized = self.authorizer.authorize_now(exchange.head, match)
        if authorized is None:
            return False
        conditional = ConditionalRequest(request.method, request.headers)
        read = reader.read_parts_now(authorized.path, conditional.choose_ranges)
        if read is None:
            return False
        exchange.begin()
        status, content = conditional.status, b"".join(read.pieces)
        headers = file_headers(read.stat, authorized.options, status)
        exchange.respond(SmallResponse(status, headers, content))
        if status == 304:
            self._metrics.downloads.add("not_modified")
        else:
            self.count_download(len(content), complete=True)
        return True

    async def serve(
        self,
        incoming: IncomingRequest,
        path: str,
        grant: Grant | None = None,
        *,
        etag: str | None = None,
    ) -> GatewayResponse:
        """Respond with the file at `path`, if need be only with version `etag`. Raises `Refusal`."""
        with self.count_refusals():
            return await self._respond(incoming, path, granted_options(grant), etag)

    @contextlib.contextmanager
    def count_refusals(self) -> Iterator[None]:
        """Count a refusal by its code."""
        try:
            yield
        except Refusal as refusal:
            self._metrics.downloads.add(refusal.code)
            raise

    async def _respond(
        self, incoming: IncomingRequest, path: str, options: ResponseOptions, etag: str | None = None
    ) -> GatewayResponse:
        request, client = incoming.request, self.client_of(incoming)
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(Superseded):
                conditional = ConditionalRequest(request.method, request.headers, etag)
                stat, body = await self._open_body(path, conditional, client)
                status = conditional.status
                if status == 304:
                    self._metrics.downloads.add("not_modified")
                response = FileResponse(stat, options, status, body, self.pool, self.count_download)
                if status == 206:
                    response.set_ranges(conditional.ranges)
                return response
        raise Refusal("overloaded", "the file is being replaced again and again")

    async def _open_body(
        self, path: str, conditional: ConditionalRequest, client: str
    ) -> tuple[Stat, ResponseBody]:
        if self._single_pass is not None:
            read = await self._single_pass.read_parts(path, conditional.choose_ranges)
            file = None if read.opened is None else await self._keep_open(read.opened, client)
            return read.stat, ResponseBody(file, read.pieces)
        stat = await self.storage.stat(path)
        ranges = conditional.choose_ranges(stat)
        return stat, ResponseBody(await self._open_version(stat, ranges[0], client) if ranges else None)

    async def _keep_open(
        self, opening: AbstractAsyncContextManager[OpenFile], client: str
    ) -> OpenResponseFile:
        async with AsyncExitStack() as stack:
            file = await stack.enter_async_context(opening)
            stack.enter_context(self.open_files.acquire(client))
            return OpenResponseFile(self.storage, file, stack.pop_all())

    async def _open_version(self, stat: Stat, first: ByteRange, client: str) -> OpenResponseFile:
        """Open this version of a file at its `first` range. Raises `Superseded`, `Refusal`."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self.open_files.acquire(client))
            opening = self.storage.open(
                stat.path, start=first.start, length=first.length, etag=stat.etag
            )
            file = await stack.enter_async_context(opening)
            return OpenResponseFile(self.storage, file, stack.pop_all())

    def count_download(self, sent: int, complete: bool) -> None:
        """Count a download that has ended, and its bytes."""
        self._metrics.downloads.add("sent" if complete else "broken")
        self._metrics.sent_bytes.add(amount=sent)
        if not complete:
            log.info("download aborted", extra=event("download.aborted", bytes=sent))


# -- authorization


class AuthorizedDownload(NamedTuple):
    """The path of a file, or of an archive's folder (with a slash at its end), and how to send it."""

    path: str
    options: ResponseOptions


class DownloadAuthorizer:
    """Authorizes downloads. `slot` goes into event ids."""

    def __init__(self, auth: Auth, hooks: Hooks, slot: int) -> None:
        self._auth = auth
        self._hooks = hooks
        self._requests = FileAuthorizer(auth, hooks, slot, DOWNLOADING)

    async def authorize_file(self, incoming: IncomingRequest, match: PathMatch) -> AuthorizedDownload:
        """Authorize the download of a file. Raises `Refusal`."""
        if self._has_handlers():
            return await self._authorize(await self._download(incoming, match))
        principal, grant = await self._requests.authenticate(incoming)
        return self._authorized(principal, grant, match)

    def authorize_now(self, head: RequestHead, match: PathMatch) -> AuthorizedDownload | None:
        """Do the same at once, None where a handler or the keys of an issuer would be waited for."""
        if self._has_handlers():
            return None
        caller = self._auth.authenticate_now(head)
        return None if caller is None else self._authorized(caller.principal, caller.grant, match)

    def _has_handlers(self) -> bool:
        return self._hooks.has_handlers(DOWNLOADING) or self._hooks.shadows.exist(DOWNLOADING)

    def _authorized(
        self, principal: dict[str, Any] | None, grant: Grant | None, match: PathMatch
    ) -> AuthorizedDownload:
        self._auth.authorize(principal)
        return AuthorizedDownload(match.path, granted_options(grant))

    async def authorize_archive(
        self, incoming: IncomingRequest, folder: PathMatch, files: list[str] | None
    ) -> AuthorizedDownload:
        """Authorize the download of a folder, or of `files` in it. Raises `Refusal`."""
        download = await self._download(incoming, folder)
        download.archive, download.files = "zip", files
        return await self._authorize(download)

    async def _download(self, incoming: IncomingRequest, match: PathMatch) -> Download:
        """Return what handlers see. Raises `Refusal` for a signed URL of another request."""
        principal, grant = await self._requests.authenticate(incoming)
        return Download(
            **self._requests.fields(incoming, match, principal),
            filename=None if grant is None else grant.filename,
            cache_control=None if grant is None else grant.cache_control,
        )

    async def _authorize(self, download: Download) -> AuthorizedDownload:
        self._requests.authorize_default(download)
        served = await self._hooks.admit_download(download)
        if served is None:
            options = ResponseOptions(download.filename, download.cache_control)
            return AuthorizedDownload(download.path, options)
        if download.archive is not None and not served.allow_archive:
            raise Refusal("forbidden", "archives are not allowed here")
        check_rewritten_path(download.path, served.path)
        return AuthorizedDownload(served.path, ResponseOptions(served.filename, served.cache_control))


def granted_options(grant: Grant | None) -> ResponseOptions:
    """Return the options that a signed URL has; the default without one."""
    return DEFAULT_OPTIONS if grant is None else ResponseOptions(grant.filename, grant.cache_control)
