"""Who asks, may they, and which file they get in the end.

One rule: the default authorization decides, or the handlers of OnFileDownloading do; whatever fails
refuses. An archive needs a handler's word, where there are handlers: its files are not asked about
one by one.
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
from gateway.http.protocol import joined
from gateway.plugins.hooks import Hooks

log = logging.getLogger("gateway.downloads")


class AuthorizedDownload(NamedTuple):
    """What somebody may have: a file, or of an archive the folder (with a slash at its end)."""

    path: str
    wish: ResponseOptions


class DownloadAuthorizer:
    """Decides on downloads. `slot` goes into event ids."""

    def __init__(self, auth: Auth, hooks: Hooks, slot: int) -> None:
        self._auth = auth
        self._hooks = hooks
        self._slot = slot

    async def file(self, incoming: IncomingRequest, match: PathMatch) -> AuthorizedDownload:
        """Decide on a file. Raises `Refusal`."""
        if not self._hooks.has_handlers(DOWNLOADING):
            principal, grant = await self._authenticate(incoming)
            self._auth.authorize(principal)
            wish = (
                ResponseOptions()
                if grant is None
                else ResponseOptions(grant.filename, grant.cache_control)
            )
            return AuthorizedDownload(match.path, wish)
        return await self._decide(await self._describe(incoming, match))

    async def archive(
        self, incoming: IncomingRequest, folder: PathMatch, files: list[str] | None
    ) -> AuthorizedDownload:
        """Decide on a folder, or on `files` of it. Raises `Refusal`."""
        download = await self._describe(incoming, folder)
        download.archive, download.files = "zip", files
        return await self._decide(download)

    async def _describe(self, incoming: IncomingRequest, match: PathMatch) -> Download:
        """Say who asks for what. Raises `Refusal` for a signature that is not good for this."""
        principal, grant = await self._authenticate(incoming)
        request, headers = incoming.request, incoming.request.headers
        return Download(
            id=new_id(self._slot),
            path=match.path,
            resources=match.resources,
            params=incoming.params,
            headers=joined(headers),
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

    async def _decide(self, download: Download) -> AuthorizedDownload:
        if not self._hooks.replaces_authorization(DOWNLOADING):
            self._auth.authorize(download.principal)
        served = await self._hooks.admit_download(download)
        if served is None:
            return AuthorizedDownload(
                download.path, ResponseOptions(download.filename, download.cache_control)
            )
        if download.archive is not None and not served.allow_archive:
            raise Refusal("forbidden", "files are not handed out as an archive here")
        _check_rewritten(download, served.path)
        return AuthorizedDownload(served.path, ResponseOptions(served.filename, served.cache_control))


def _check_rewritten(download: Download, path: str) -> None:
    """A bad path that a handler wrote is the handler's failure, not the client's (503)."""
    if path == download.path:
        return
    try:
        if download.archive is not None and not path.endswith("/"):
            raise Refusal("bad_path", "a folder ends with a slash")
        paths.check_path(path.removesuffix("/") if download.archive is not None else path)
    except Refusal as refusal:
        log.error(
            "a handler rewrote the path to a bad one: %s", refusal, extra={"facts": {"path": path}}
        )
        raise Refusal(
            "hook_failed", "a handler rewrote the path to one that is not allowed"
        ) from refusal
