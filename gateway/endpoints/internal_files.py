"""Stored files for other nodes of the installation: by upload id, and removal by path.

Reading by path is `GET /-/objects/<path>`, a download with `If-Match`.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from aiohttp import web

from gateway.auth.request import IncomingRequest
from gateway.errors import Refusal, Superseded
from gateway.files.versions import UploadVersions
from gateway.http.responses import ApiHandler, GatewayResponse, Response
from gateway.storage.protocols import Storage

_STRONG_ETAG: Final = re.compile(r'"([\x21\x23-\x7e]*)"')


class VersionSender(Protocol):
    """Downloads, as far as this endpoint needs them."""

    async def serve(self, incoming: IncomingRequest, path: str, *, etag: str | None) -> GatewayResponse:
        """Respond with this version of the file at `path`. Raises `Refusal`."""


class InternalFilesEndpoint:
    """Serves `/-/files/<upload_id>`, and DELETE of `/-/objects/<path>`."""

    def __init__(self, storage: Storage, versions: UploadVersions, downloads: VersionSender) -> None:
        self._storage = storage
        self._versions = versions
        self._downloads = downloads

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"file": self._upload}

    async def _upload(self, incoming: IncomingRequest) -> GatewayResponse:
        """Send or remove the version of a file that an upload became. Raises `Refusal`."""
        request, upload_id = incoming.request, incoming.variables["upload_id"]
        if incoming.operator is None:  # `--auth none` lets everyone upload, and not read others' files
            raise Refusal("forbidden", "this endpoint needs a token or the internal credential")
        version = (await self._versions.find([upload_id])).get(upload_id)
        if version is None:
            raise Refusal("not_found", "no upload with this id is known (any more)")
        try:
            if request.method == "DELETE":
                await version.delete(self._storage)
                return Response(status=204)
            if version.upload_id is not None:
                version.check_upload(await self._storage.stat(version.path))
            return await self._downloads.serve(incoming, version.path, etag=version.etag)
        except Superseded as error:
            raise Refusal("superseded", str(error)) from None
        except Refusal as refusal:
            if refusal.code not in {"not_found", "bad_path"}:
                raise
            raise Refusal("superseded", f"{version.path} has been removed since") from None

    async def delete_object(self, request: web.BaseRequest, path: str) -> Response:
        """Remove what is stored at a path, with `If-Match` one version of it. Raises `Refusal`."""
        try:
            await self._storage.delete(path, _if_match(request.headers.get("If-Match", "*")))
        except Superseded as error:
            raise Refusal("precondition_failed", f"If-Match: {error}") from None
        return Response(status=204)


def _if_match(header: str) -> str | None:
    """Return the one entity tag of `If-Match`, None for any."""
    if header.strip() == "*":
        return None
    tag = _STRONG_ETAG.fullmatch(header.strip())
    if tag is None:
        raise Refusal("bad_request", "If-Match: DELETE takes one strong entity tag, or *")
    return tag[1]
