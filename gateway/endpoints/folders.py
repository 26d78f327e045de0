"""Requests for a folder: `GET /upload/a/` lists it; with `?format=zip` it is sent as an archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.auth.request import IncomingRequest, RequestHead
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.endpoints.downloads.archive import ArchiveHandler
from gateway.endpoints.listing.handler import ListingHandler
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse
from gateway.telemetry.request_facts import DOWNLOADS, LISTING

MAX_SHOWN_PATH: Final = 200
"""Characters of a path that a message repeats."""

_PROBE: Final = "x"


def requested_folder(template: UploadPathTemplate, head: RequestHead) -> PathMatch | None:
    """Return the folder of upload paths that is requested; its path ends with a slash.

    None for another request. Raises `Refusal("bad_path")`.
    """
    raw_path = head.raw_path
    if not raw_path.endswith("/"):
        return None
    match = template.match(raw_path + _PROBE)
    if match is None or not match.path.endswith(f"/{_PROBE}"):
        return None
    # The name of the file comes last, in the path and in the template.
    names = {
        name: text.removesuffix(_PROBE) if position == len(match.resources) else text
        for position, (name, text) in enumerate(match.resources.items(), start=1)
    }
    return PathMatch(match.path.removesuffix(_PROBE), names)


def refuse_folder(template: UploadPathTemplate, head: RequestHead) -> None:
    """Raise `Refusal("conflict")` for a request to remove a folder."""
    if requested_folder(template, head) is not None:
        raise Refusal("conflict", "this is the path of a folder: only files are removed")


@dataclass(frozen=True, slots=True)
class FolderHandler:
    """Serves folders: as an archive with `--downloads`, as a list with `--listing`."""

    template: UploadPathTemplate
    archives: ArchiveHandler
    listing: ListingHandler
    downloads: bool

    @property
    def enabled(self) -> bool:
        """Whether folders are served at all."""
        return self.downloads or self.listing.enabled

    async def get(self, incoming: IncomingRequest) -> GatewayResponse | None:
        """Respond to a GET or HEAD of a folder; None for a request of something else.

        Raises `Refusal`.
        """
        folder = requested_folder(self.template, incoming) if self.enabled else None
        if folder is None:
            return None
        incoming.facts.route = LISTING
        if incoming.params.get("format") == ["zip"] and self.downloads:
            incoming.facts.route = DOWNLOADS
            return await self.archives.get(incoming, folder)
        if self.listing.enabled:
            return await self.listing.get(incoming, folder)
        shown = incoming.raw_path if len(incoming.raw_path) <= MAX_SHOWN_PATH else "its path"
        raise Refusal("not_found", f"folders are not listed; ask {shown}?format=zip for all of it")
