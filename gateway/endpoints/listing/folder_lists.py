"""Reads pages of folders for clients, so many at a time, of which each client gets its share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.auth.request import RequestHead
from gateway.endpoints.listing.page import ListedPage, ListQuery, read_page
from gateway.limits import FairShare
from gateway.storage.protocols import FolderStorage

MAX_LISTINGS: Final = 64
"""Pages of folders that one process reads at the same time."""

MAX_SEARCHES: Final = 8
"""Searches that one process does at the same time: each reads up to twenty times as much as a page."""


class FolderLists:
    """Reads pages. One object per process; `client_of` names the client that a request counts for."""

    def __init__(self, storage: FolderStorage, client_of: Callable[[RequestHead], str]) -> None:
        self.storage = storage
        self.listings = FairShare("folder listings", MAX_LISTINGS)
        self.searches = FairShare("searches", MAX_SEARCHES)
        self._client_of = client_of

    async def read(self, head: RequestHead, folder: str, query: ListQuery) -> ListedPage:
        """Read a page of an authorized request. Raises `Refusal`."""
        share = self.listings if query.search is None else self.searches
        with share.acquire(self._client_of(head)):
            return await read_page(self.storage, folder, query)
