"""`GET /-/shared`: the folder of a share link, a page at a time, and as an archive.

The URLs of a page are signed for minutes, and name the link: once that is revoked or expired they end.
The operator who made the link has decided: neither `--listing` and `--downloads` nor handlers matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.auth.links.access import LinkAccess
from gateway.auth.links.link import Link
from gateway.auth.links.scope import SHARED_PATH
from gateway.auth.request import IncomingRequest
from gateway.auth.roles import CHALLENGE
from gateway.domain import paths
from gateway.domain.api_routes import OBJECTS_PREFIX
from gateway.domain.grant import Grant
from gateway.domain.units import iso_time
from gateway.endpoints.downloads.archive import ArchiveHandler
from gateway.endpoints.listing.page import ListedPage, ListQuery, read_page
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, GatewayResponse, json_response
from gateway.limits import FairShare, client_key
from gateway.signing.urls import UrlSigner
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import FolderStorage, Stat

SHARED_URL_TTL: Final = 900
"""Seconds for which a page's URLs are signed."""

MAX_LISTINGS: Final = 32
"""Pages that one process reads at the same time."""


def _listings() -> FairShare:
    return FairShare("pages of share links", MAX_LISTINGS)


@dataclass(frozen=True, slots=True)
class SharedEndpoint:
    """Serves what share links are for. `base` is what URLs of the gateway begin with."""

    access: LinkAccess
    storage: FolderStorage
    archives: ArchiveHandler
    urls: UrlSigner
    base: Callable[[], str]
    listings: FairShare = field(default_factory=_listings)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"shared": self._get}

    async def _get(self, incoming: IncomingRequest) -> GatewayResponse:
        link = self._link(incoming)
        below = _path_below(link, incoming)
        folder = link.folder + below
        if incoming.params.get("format") == ["zip"]:
            self.access.count_download(incoming)
            return await self.archives.serve(incoming, folder)
        query = ListQuery.read(incoming.params)._replace(recursive=False, search=None)
        with self.listings.acquire(client_key(link.principal, None)):
            try:
                page = await read_page(self.storage, folder, query)
            except Refusal as refusal:
                if refusal.code != "not_found" or below or query.after is not None:
                    raise
                page = ListedPage(folder, (), None)  # nothing has been stored there yet
            response = json_response(await asyncio.to_thread(self._shown, link, page, below))
        response.headers["Cache-Control"] = "private, no-store"
        return response

    def _link(self, incoming: IncomingRequest) -> Link:
        """Return the share link of a request, by its secret or by a URL that names it."""
        caller = incoming.caller
        if caller is not None and caller.link is not None:
            return caller.link
        if caller is not None and caller.grant is not None and caller.grant.link is not None:
            return self.access.holders.in_force(caller.grant.link)
        message = "send the secret of a share link: `Authorization: Bearer ugl_...`"
        raise Refusal("unauthorized", message, CHALLENGE)

    def _shown(self, link: Link, page: ListedPage, below: str) -> dict[str, Any]:
        """Return a page as JSON; hashing signs some 50,000 URLs a second."""
        expires = int(time.time()) + SHARED_URL_TTL
        if link.expires is not None:
            expires = max(min(expires, int(link.expires)), int(time.time()) + 1)
        zip_query = (("format", "zip"), ("path", below))
        return {
            "folder": link.folder_name,
            "path": below,
            "entries": [self._entry(link, page, entry, expires) for entry in page.entries],
            "next": page.next,
            "zip": self._url(Grant("GET", SHARED_PATH, expires, link=link.id, query=zip_query)),
            "urls_expire": iso_time(expires),
        }

    def _entry(self, link: Link, page: ListedPage, entry: Stat | str, expires: int) -> dict[str, Any]:
        name = page.name_of(entry)
        if isinstance(entry, str):
            path = entry.removeprefix(link.folder)
            return {"name": name.removesuffix("/"), "kind": "folder", "path": path}
        grant = Grant("GET", OBJECTS_PREFIX + entry.path, expires, link=link.id)
        return {
            "name": name,
            "kind": "file",
            "bytes": entry.bytes,
            "modified": iso_time(entry.modified),
            "mime": entry.mime or guess_mime(entry.path),
            "url": self._url(grant),
        }

    def _url(self, grant: Grant) -> str | None:
        """Return a signed URL; None for a name that no URL of this gateway may have."""
        try:
            return self.base() + self.urls.target(grant)
        except ValueError:
            return None


def _path_below(link: Link, incoming: IncomingRequest) -> str:
    """Return the folder below that of the link, such as `sub/`, or nothing. Raises `Refusal`."""
    texts = incoming.params.get("path", [""])
    if len(texts) > 1:
        raise Refusal("bad_request", "path may be given once")
    text = texts[0].removesuffix("/")
    if not text:
        return ""
    if text.startswith("/"):
        raise Refusal("bad_path", "path is that below the folder of the link, without a leading slash")
    paths.check_path(f"{link.folder}{text}")
    return f"{text}/"
