"""`GET /-/uploads`: the uploads of all processes, the newest first, a page at a time.

A new kind of uploads is one more `UploadSource`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from gateway.auth.request import IncomingRequest
from gateway.domain.units import count_up_to, unix_time
from gateway.endpoints.admin.event_stream import EventStreams, accepts_stream
from gateway.endpoints.admin.processes import ProcessClients, ProcessUnreachable, this_process_only
from gateway.endpoints.admin.removals import Removals
from gateway.endpoints.admin.upload_sources import (
    HELD,
    NEWEST,
    STATES,
    Json,
    ProcessUploads,
    SourcePage,
    UploadSelection,
    UploadSource,
    merge_pages,
)
from gateway.endpoints.admin.upload_status import UploadStatusEndpoint, shown_to
from gateway.endpoints.admin.upload_stream import stream_upload
from gateway.endpoints.admin.viewers import viewer_of
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, GatewayResponse, Response, json_response

PAGE_ROWS: Final = 100
MAX_PAGE_ROWS: Final = 1000
MAX_IDS: Final = 50
"""Uploads that are asked for by their ids at once: each is several reads of the journal."""


@dataclass(frozen=True, slots=True)
class UploadsEndpoint:
    """Serves `/-/uploads`, and one upload with what was removed of it.

    `own` are the sources of this process, `shared` those that all processes have alike.
    """

    status: UploadStatusEndpoint
    own: Sequence[UploadSource]
    processes: ProcessClients
    removals: Removals
    streams: EventStreams
    shared: Sequence[UploadSource] = field(default_factory=tuple)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"uploads": self._list, "upload": self._upload}

    async def _upload(self, incoming: IncomingRequest) -> GatewayResponse:
        read = partial(self._describe, incoming)
        status = await read()
        if incoming.method == "GET" and accepts_stream(incoming.headers):
            return stream_upload(self.streams, incoming, status, read)
        return json_response(status)

    async def _describe(self, incoming: IncomingRequest) -> Json:
        status = await self.status.describe(incoming)
        if not this_process_only(incoming):
            await self.removals.mark([status])
        return shown_to(incoming, status)

    async def _list(self, incoming: IncomingRequest) -> Response:
        params = incoming.params
        if "id" in params:
            return json_response({"uploads": await self._named(incoming, params["id"]), "next": None})
        selection, alone = _read_selection(params), this_process_only(incoming)
        if (viewer := viewer_of(incoming)) is not None:
            selection = replace(selection, principal=viewer.name, kind=viewer.kind)
        limit = _read_limit(params)
        before = params.get("cursor", [NEWEST])[0]
        sources: list[tuple[str, UploadSource]] = [("", source) for source in self.own]
        if not alone:
            sources += [("", source) for source in self.shared]
            sources += [
                (f"slot-{slot}", ProcessUploads(self.processes, slot))
                for slot in self.processes.sessions
            ]
        if selection.state in HELD:
            sources = [(name, source) for name, source in sources if source.has_held]
        pages = await asyncio.gather(
            *(source.page(selection, before, limit) for _, source in sources), return_exceptions=True
        )
        unavailable: list[str] = []
        answered: list[SourcePage] = []
        for (name, _), page in zip(sources, pages, strict=True):
            if isinstance(page, ProcessUnreachable):
                unavailable.append(name)
            elif isinstance(page, BaseException):
                raise page
            else:
                answered.append(page)
        rows, after = merge_pages(answered, limit)
        if not alone:
            await self.removals.mark(rows)
        if selection.state is not None:
            rows = [row for row in rows if row["state"] == selection.state]
        body: Json = {"uploads": rows, "next": after}
        return json_response(body | ({"unavailable": unavailable} if unavailable else {}))

    async def _named(self, incoming: IncomingRequest, ids: Sequence[str]) -> list[Json]:
        """Describe uploads by their ids, with their handlers, those that the sender may see."""
        if len(ids) > MAX_IDS:
            raise Refusal("bad_request", f"id may be there up to {MAX_IDS} times")
        wanted = dict.fromkeys(ids)
        described = await asyncio.gather(
            *(self.status.describe_by_id(incoming, upload_id) for upload_id in wanted),
            return_exceptions=True,
        )
        rows: list[Json] = []
        for status in described:
            if not isinstance(status, BaseException):
                rows.append(status)
            elif not isinstance(status, Refusal) or status.code != "not_found":
                raise status
        if not this_process_only(incoming):
            await self.removals.mark(rows)
        return rows


def _read_selection(params: dict[str, list[str]]) -> UploadSelection:
    names = ("principal", "kind", "since", "state")
    values = {name: params[name][0] for name in names if name in params}
    if values.get("state", STATES[0]) not in STATES:
        raise Refusal("bad_request", f"state is one of {', '.join(STATES)}")
    try:
        since = unix_time(values["since"]) if "since" in values else None
    except ValueError:
        message = "since is a time such as 2026-11-28T08:00:00Z, or a Unix time"
        raise Refusal("bad_request", message) from None
    return UploadSelection(values.get("principal"), since, values.get("state"), values.get("kind"))


def _read_limit(params: dict[str, list[str]]) -> int:
    limit = count_up_to(params.get("limit", [str(PAGE_ROWS)])[0], MAX_PAGE_ROWS)
    if limit is None:
        raise Refusal("bad_request", f"limit must be a number from 1 to {MAX_PAGE_ROWS}")
    return limit
