"""Authorizes downloads, by the default authorization or by handlers of OnFileDownloading.

Whatever fails refuses. Where there are handlers, one of them must allow an archive: its files are
not authorized one by one.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from gateway.auth.authenticator import JWT, Auth
from gateway.auth.request import IncomingRequest
from gateway.domain import paths
from gateway.domain.grant import Grant
from gateway.domain.model import DOWNLOADING, Download, new_id
from gateway.domain.path_template import PathMatch
from gateway.endpoints.downloads.headers import ResponseOptions
from gateway.errors import Refusal
from gateway.http.protocol import headers_as_dict
from gateway.plugins.hooks import Hooks
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.downloads")


class AuthorizedDownload(NamedTuple):
    """The path of a file, or of an archive's folder (with a slash at its end), and how to send it."""

    path: str
    options: ResponseOptions


class DownloadAuthorizer:
    """Authorizes downloads. `slot` goes into event ids."""

    def __init__(self, auth: Auth, hooks: Hooks, slot: int) -> None:
        self._auth = auth
        self._hooks = hooks
        self._slot = slot

    async def authorize_file(self, incoming: IncomingRequest, match: PathMatch) -> AuthorizedDownload:
        """Authorize the download of a file. Raises `Refusal`."""
        if self._hooks.has_handlers(DOWNLOADING):
            return await self._authorize(await self._download(incoming, match))
        principal, grant = await self._authenticate(incoming)
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
        principal, grant = await self._authenticate(incoming)
        request, headers = incoming.request, incoming.request.headers
        return Download(
            id=new_id(self._slot),
            path=match.path,
            resources=match.resources,
            params=incoming.params,
            headers=headers_as_dict(headers),
            method=request.method,
            remote=self._auth.client_address(request.remote, headers),
            principal=principal,
            filename=None if grant is None else grant.filename,
            cache_control=None if grant is None else grant.cache_control,
        )

    async def _authenticate(
        self, incoming: IncomingRequest
    ) -> tuple[dict[str, Any] | None, Grant | None]:
        replaced = self._hooks.replaces_authorization(DOWNLOADING)
        caller = await self._auth.authenticate(incoming, jwt=self._auth.mode == JWT and not replaced)
        return caller.principal, caller.grant

    async def _authorize(self, download: Download) -> AuthorizedDownload:
        if not self._hooks.replaces_authorization(DOWNLOADING):
            self._auth.authorize(download.principal)
        served = await self._hooks.admit_download(download)
        if served is None:
            options = ResponseOptions(download.filename, download.cache_control)
            return AuthorizedDownload(download.path, options)
        if download.archive is not None and not served.allow_archive:
            raise Refusal("forbidden", "archives are not allowed here")
        _check_rewritten_path(download, served.path)
        return AuthorizedDownload(served.path, ResponseOptions(served.filename, served.cache_control))


def granted_options(grant: Grant | None) -> ResponseOptions:
    """Return the options that a signed URL has; the default without one."""
    return ResponseOptions() if grant is None else ResponseOptions(grant.filename, grant.cache_control)


def _check_rewritten_path(download: Download, path: str) -> None:
    """Raise `Refusal("hook_failed")`: a bad path that a handler wrote is no client's mistake."""
    if path == download.path:
        return
    try:
        if download.archive is not None and not path.endswith("/"):
            raise Refusal("bad_path", "a folder ends with a slash")
        paths.check_path(path.removesuffix("/") if download.archive is not None else path)
    except Refusal as refusal:
        message = "a handler rewrote the path to one that is not allowed"
        log.error("%s: %s", message, refusal, extra=event("hook.failed", path=path))
        raise Refusal("hook_failed", message) from refusal
