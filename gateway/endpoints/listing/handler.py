"""`GET` and `HEAD` of a folder: a page of its entries, as JSON or, for a browser, as HTML."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, unquote

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.auth.signed_urls import StoredUrls
from gateway.domain.model import LISTING
from gateway.domain.path_template import PathMatch
from gateway.endpoints.file_requests import FileAuthorizer
from gateway.endpoints.listing.folder_lists import FolderLists
from gateway.endpoints.listing.html import HTML_HEADERS, PageOptions, page_html
from gateway.endpoints.listing.page import ListedPage, ListQuery, page_json
from gateway.errors import Refusal
from gateway.http.accept import prefers_html
from gateway.http.responses import GatewayResponse, Response
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings

_KEPT: Final = ("limit", "recursive", "search")
"""Fields of the query that the next page has too."""

_HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept"}


class ListingHandler:
    """Handles lists of folders. One object per process; `slot` goes into event ids."""

    def __init__(
        self,
        settings: Settings,
        auth: Auth,
        hooks: Hooks,
        lists: FolderLists,
        urls: StoredUrls,
        slot: int,
    ) -> None:
        self.enabled = settings.listing
        self._serves_files = settings.downloads
        self._requests = FileAuthorizer(auth, hooks, slot, LISTING)
        self._has_pages = settings.web
        self.lists = lists
        self._urls = urls

    async def get(self, incoming: IncomingRequest, folder: PathMatch) -> GatewayResponse:
        """Respond to a GET or HEAD of a folder. Raises `Refusal`."""
        requests = self._requests
        listing = await requests.authorize(incoming, folder, requests.hooks.admit_listing)
        query = ListQuery.read(incoming.params)
        try:
            page = await self.lists.read(incoming, listing.path, query)
        except Refusal as refusal:
            # The folder of all uploads is there before the first one.
            if refusal.code != "not_found" or not _is_top(folder) or query.after is not None:
                raise
            page = ListedPage(listing.path, (), None, searched=None if query.search is None else 0)
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
        options = PageOptions(
            files=self._serves_files,
            is_first=query.after is None,
            has_parent=not _is_top(folder),
            kept={name: incoming.params[name][0] for name in _KEPT if name in incoming.params},
            console=_console_link(incoming.raw_path) if self._has_pages else None,
        )
        body = page_html(page, options).encode(errors="replace")
        return Response(body=body, headers=_HEADERS | HTML_HEADERS)

    def _folder_url(self, incoming: IncomingRequest) -> Callable[[str], str]:
        base = self._urls.base + incoming.raw_path
        return lambda name: base + quote(name)


def _console_link(raw_path: str) -> str:
    """Return the console's page of a folder, relative to it: a proxy may serve both below a prefix."""
    above = "../" * (raw_path.count("/") - 1)
    return f"{above}-/files?path={quote(unquote(raw_path), safe='/')}"


def _is_top(folder: PathMatch) -> bool:
    """Tell whether a folder is that of all uploads of its template: no name of it is a variable's."""
    return "" in folder.resources.values()
