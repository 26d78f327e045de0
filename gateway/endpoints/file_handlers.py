"""The handlers of upload paths and of stored paths, and the methods that they serve."""

from __future__ import annotations

from typing import NamedTuple

from gateway.endpoints.deletes import DeleteHandler
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.folders import FolderHandler
from gateway.endpoints.internal_files import InternalFilesEndpoint
from gateway.endpoints.uploads.form import FormHandler
from gateway.endpoints.uploads.handler import UploadHandler
from gateway.endpoints.uploads.resumable.endpoint import ResumableEndpoint


class FileHandlers(NamedTuple):
    """The handlers of upload paths and of stored paths below `/-/objects`."""

    uploads: UploadHandler
    forms: FormHandler
    downloads: DownloadHandler
    folders: FolderHandler
    deletes: DeleteHandler
    stored: InternalFilesEndpoint
    resumable: ResumableEndpoint | None = None

    @property
    def allowed_methods(self) -> str:
        """The methods of upload paths, for `Allow` (RFC 9110 section 10.2.1)."""
        read = "GET, HEAD, " if self.downloads.enabled else ""
        return f"{read}PUT, POST{', DELETE' if self.deletes.enabled else ''}"
