"""Opens the endpoints that list, archive and remove what is stored."""

from __future__ import annotations

from contextlib import AsyncExitStack

from gateway.auth.authenticator import Auth
from gateway.auth.links import StoredUrls
from gateway.endpoints.downloads.archive import ArchiveHandler
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.folders import FolderHandler
from gateway.endpoints.listing.handler import ListingHandler
from gateway.server.resources import Resources


def open_folders(
    stack: AsyncExitStack, resources: Resources, auth: Auth, downloads: DownloadHandler, urls: StoredUrls
) -> FolderHandler:
    """Open what serves folders; `stack` closes it."""
    settings, slot = resources.settings, resources.base.state.slot
    archives = ArchiveHandler(downloads)
    stack.push_async_callback(archives.close)
    listing = ListingHandler(settings, auth, resources.hooks, resources.parts.storage, urls, slot)
    return FolderHandler(settings.upload_template, archives, listing, settings.downloads)
