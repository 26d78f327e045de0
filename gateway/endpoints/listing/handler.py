"""`GET` and `HEAD` of a folder: a page of its entries, as JSON or, for a browser, as HTML."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.auth.signed_urls import StoredUrls
from gateway.domain.model import LISTING
from gateway.domain.path_template import PathMatch
from gateway.endpoints.file_requests import FileAuthorizer
from gateway.endpoints.listing.html import HTML_HEADERS, PageOptions, page_html
from gateway.endpoints.listing.page import ListedPage, ListQuery, page_json, read_page
from gateway.errors import Refusal
from gateway.http.accept import prefers_html
from gateway.http.responses import GatewayResponse, Response
from gateway.limits import FairShare
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.storage.protocols import FolderStorage

MAX_LISTINGS: Final = 64
"""Pages of folders that one process reads at the same time, of which each client gets its share."""

_HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept"}


class ListingHandler:
    """Handles lists of folders. One object per process; `slot` goes into event ids."""

    def __init__(
        self,
        settings: Settings,
        auth: Auth,
        hooks: Hooks,
        storage: FolderStorage,
        urls: StoredUrls,
        slot: int,
    ) -> None:
        self.enabled = settings.listing
        self._serves_files = settings.downloads
        self._requests = FileAuthorizer(auth, hooks, slot, LISTING)
        self._storage = storage
        self._urls = urls
        self._listings = FairShare("folder listings", MAX_LISTINGS)

    async def get(self, incoming: IncomingRequest, folder: PathMatch) -> GatewayResponse:
        """Respond to a GET or HEAD of a folder. Raises `Refusal`."""
        requests = self._requests
        listing = await requests.authorize(incoming, folder, requests.hooks.admit_listing)
        query = ListQuery.read(incoming.params)
        with self._listings.acquire(requests.auth.client_of(incoming)):
            try:
                page = await read_page(self._storage, listing.path, query)
            except Refusal as refusal:
                # The folder of all uploads is there before the first one.
                if refusal.code != "not_found" or not _is_top(folder) or query.after is not None:
                    raise
                page = ListedPage(listing.path, (), None)
            respond = self._html if prefers_html(incoming.headers) else self._json
            return await asyncio.to_thread(respond, incoming, folder, page, query)

    def _json(
        self, incoming: IncomingRequest, _: PathMatch, page: ListedPage, __: ListQuery
    ) -> GatewayResponse:
        body = page_json(page, self._urls.address_of, self._folder_url(incoming))
        text = json.dumps(body, ensure_ascii=False) + "\n"
        response = Response(body=text.encode(errors="replace"), headers=_HEADERS)
        response.headers["Content-Type"] = "application/json; charset=utf-8"
        return response

    def _html(
        self, incoming: IncomingRequest, folder: PathMatch, page: ListedPage, query: ListQuery
    ) -> GatewayResponse:
        limit = query.limit if "limit" in incoming.params else None
        options = PageOptions(self._serves_files, query.after is None, not _is_top(folder), limit)
        body = page_html(page, options).encode(errors="replace")
        return Response(body=body, headers=_HEADERS | HTML_HEADERS)

    def _folder_url(self, incoming: IncomingRequest) -> Callable[[str], str]:
        base = self._urls.base + incoming.raw_path
        return lambda name: base + quote(name)


def _is_top(folder: PathMatch) -> bool:
    """Tell whether a folder is that of all uploads of its template: no name of it is a variable's."""
    return "" in folder.resources.values()
