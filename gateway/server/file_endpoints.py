"""Opens the endpoints that send, list and remove what is stored."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import NamedTuple

from gateway.auth.authenticator import Auth
from gateway.auth.signed_urls import StoredUrls
from gateway.endpoints.admin.event_stream import EventStreams
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.admin.quotas import QuotasEndpoint
from gateway.endpoints.admin.removals import Removals
from gateway.endpoints.admin.upload_sources import HeldUploads, InflightUploads, StoredUploads
from gateway.endpoints.admin.upload_status import UploadStatusEndpoint
from gateway.endpoints.admin.uploads import UploadsEndpoint
from gateway.endpoints.admin.waiting_uploads import WaitingUploads
from gateway.endpoints.deletes import DeleteHandler
from gateway.endpoints.downloads.archive import ArchiveHandler
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.folders import FolderHandler
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.internal_files import InternalFilesEndpoint
from gateway.endpoints.listing.folder_lists import FolderLists
from gateway.endpoints.listing.handler import ListingHandler
from gateway.endpoints.operator_files import OperatorFilesEndpoint
from gateway.http.responses import ApiHandler
from gateway.server.resources import Resources
from gateway.telemetry.metrics import Metrics


class ExistingFiles(NamedTuple):
    """The handlers of files that are stored already, in the order in which `FileHandlers` has them."""

    downloads: DownloadHandler
    folders: FolderHandler
    deletes: DeleteHandler
    stored: InternalFilesEndpoint


def open_existing_files(
    stack: AsyncExitStack, resources: Resources, auth: Auth, metrics: Metrics, urls: StoredUrls
) -> ExistingFiles:
    """Open the handlers; `stack` closes them."""
    settings, hooks, parts = resources.settings, resources.hooks, resources.parts
    slot = resources.base.state.slot
    downloads = DownloadHandler(settings, auth, hooks, parts.storage, metrics, slot)
    stack.callback(downloads.close)
    archives = ArchiveHandler(downloads)
    stack.push_async_callback(archives.close)
    lists = FolderLists(parts.storage, auth.client_of)
    listing = ListingHandler(settings, auth, hooks, lists, urls, slot)
    folders = FolderHandler(settings.upload_template, archives, listing, settings.downloads)
    deletes = DeleteHandler(settings, auth, hooks, parts.remover, slot)
    stored = InternalFilesEndpoint(parts.storage, resources.scripts.versions, downloads)
    return ExistingFiles(downloads, folders, deletes, stored)


def operator_endpoints(
    resources: Resources,
    existing: ExistingFiles,
    urls: StoredUrls,
    status: UploadStatusEndpoint,
    inflight: Inflight,
    processes: ProcessClients,
    streams: EventStreams,
) -> dict[str, ApiHandler]:
    """Return the handlers of `API_ROUTES` below `/-/files`, `/-/uploads` and `/-/quotas`."""
    journal, slot = resources.journal, resources.base.state.slot
    files = OperatorFilesEndpoint(existing.folders.listing.lists, existing.deletes, urls, slot)
    removals = Removals(journal.deletions, processes)
    own = (
        InflightUploads(inflight),
        StoredUploads(journal.uploads),
        HeldUploads(journal.held_log),
    )
    store = resources.parts.partials
    shared = () if store is None else (WaitingUploads(store),)
    uploads = UploadsEndpoint(status, own, processes, removals, streams, shared)
    return {
        **existing.stored.handlers(),
        **files.handlers(),
        **removals.handlers(),
        **uploads.handlers(),
        **QuotasEndpoint(resources.quotas.quotas).handlers(),
    }
