"""`/-/files?path=...`: what is stored, for operators: lists a folder, describes or removes a file.

Handlers that decide about requests of clients are not asked; `OnFileDeleted` is told of what is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.auth.request import IncomingRequest
from gateway.auth.signed_urls import StoredUrls
from gateway.domain.model import FileRequest, new_id
from gateway.domain.paths import UPLOAD_PREFIX
from gateway.endpoints.deletes import DeleteHandler, expected_etags
from gateway.endpoints.listing.folder_lists import FolderLists
from gateway.endpoints.listing.page import ListQuery, file_json, page_json
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, GatewayResponse, json_response
from gateway.storage.s3.encoding import user_metadata
from gateway.telemetry import tracing


@dataclass(slots=True, frozen=True)
class OperatorFilesEndpoint:
    """Serves `/-/files`. `slot` goes into event ids."""

    lists: FolderLists
    deletes: DeleteHandler
    urls: StoredUrls
    slot: int

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"files": self._files}

    async def _files(self, incoming: IncomingRequest) -> GatewayResponse:
        if not incoming.owner and incoming.operator is None:
            # `--auth none` lets everyone upload, and not read others' files.
            raise Refusal("forbidden", "this endpoint needs a token")
        path = incoming.params.get("path", [UPLOAD_PREFIX])[0]
        if incoming.method == "DELETE":
            return await self._remove(incoming, path)
        if path.endswith("/"):
            query = ListQuery.read(incoming.params)
            page = await self.lists.read(incoming, path, query)
            urls = self.urls.address_of, self._folder_url(path)
            return json_response(await asyncio.to_thread(page_json, page, *urls))
        stat = await self.lists.storage.stat(path)
        metadata = user_metadata(stat.metadata)
        return json_response({**file_json(stat, self.urls.address_of), "metadata": metadata})

    async def _remove(self, incoming: IncomingRequest, path: str) -> GatewayResponse:
        """Remove a file. The principal of the owner's socket is the operator."""
        if path.endswith("/"):
            raise Refusal("conflict", "this is the path of a folder: only files are removed")
        principal: Mapping[str, Any] | None = incoming.operator
        if incoming.owner:
            principal = {"name": "operator", "kind": "owner"}
        deletion = FileRequest(
            new_id(self.slot),
            path,
            params={},
            method="DELETE",
            remote=incoming.remote or None,
            principal=None if principal is None else dict(principal),
            traceparent=tracing.current().traceparent,
        )
        return await self.deletes.remove(incoming, deletion, expected_etags(incoming))

    def _folder_url(self, folder: str) -> Any:
        def url_of(name: str) -> str:
            return self.urls.address_of(f"{folder}{name}x").removesuffix("x")

        return url_of
