"""`GET /-/uploads`: the uploads of all processes, the newest first, a page at a time.

The id of an upload begins with its time, so a page is what lies below an id. A new kind of uploads is
one more `UploadSource`.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode

from gateway.auth.request import IncomingRequest
from gateway.domain.model import id_prefix
from gateway.domain.units import iso_time, unix_time
from gateway.endpoints.admin.processes import ProcessClients, ProcessUnreachable
from gateway.endpoints.admin.removals import Removals
from gateway.endpoints.admin.status import UploadStatusEndpoint, shown_place
from gateway.endpoints.inflight import Inflight, named_principal
from gateway.errors import Refusal
from gateway.events.upload_log import LoggedUpload, UploadLog
from gateway.http.responses import ApiHandler, Response, json_response

PAGE_ROWS: Final = 100
MAX_PAGE_ROWS: Final = 1000
MAX_WINDOWS: Final = 50
"""Windows of a journal that one page reads; a page may end before its limit."""

STATES: Final = (
    "admitting",
    "receiving",
    "waiting",
    "committing",
    "unsettled",
    "stored",
    "removed",
    "failed",
)
NEWEST: Final = "~"
"""Sorts behind every id."""

_KNOWN_BEST: Final = (
    "admitting",
    "receiving",
    "committing",
    "unsettled",
    "stored",
    "removed",
    "waiting",
)
"""Where two sources know an upload, the state that is listed: the row of an active one may be undone."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UploadSelection:
    """What a list is limited to: the name of a principal, a time (Unix), a state."""

    principal: str | None = None
    since: float | None = None
    state: str | None = None

    def matches(self, principal: str | None, created: float) -> bool:
        """Tell whether an upload belongs to the list, whatever its state."""
        mine = self.principal is None or self.principal == principal
        return mine and (self.since is None or created >= self.since)


class SourcePage(NamedTuple):
    """Some uploads, newest first, and the id down to which all are here; None: to the end."""

    rows: list[Json]
    reached: str | None = None


class UploadSource(Protocol):
    """Uploads of one kind. The rows have the fields of the status page, without `handlers`."""

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """Return up to `limit` uploads whose id is below `before`, whatever state is selected."""


@dataclass(frozen=True, slots=True)
class InflightUploads:
    """Uploads in flight, and those that failed lately: an `UploadSource`."""

    inflight: Inflight

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`."""
        pages = self.inflight.newest(before, limit)
        rows = [{name: value for name, value in page.items() if name != "handlers"} for page in pages]
        shown = [row for row in rows if _matches(selection, row)]
        return SourcePage(shown, rows[-1]["upload_id"] if len(rows) == limit else None)


@dataclass(frozen=True, slots=True)
class StoredUploads:
    """Uploads in a journal: an `UploadSource`."""

    log: UploadLog

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`. Raises `Refusal("journal_unavailable")`."""

        def matches(upload: LoggedUpload) -> bool:
            name = None if upload.principal is None else str(upload.principal.get("name", ""))
            return selection.matches(name, upload.created)

        oldest = "" if selection.since is None else id_prefix(selection.since)
        rows: list[Json] = []
        reached: str | None = before
        for _ in range(MAX_WINDOWS):
            try:
                window = await asyncio.wrap_future(self.log.window(reached or "", oldest, matches))
            except sqlite3.Error as error:
                raise Refusal("journal_unavailable", f"uploads cannot be read now: {error}") from error
            rows += map(_stored_row, window.uploads)
            reached = window.reached
            if reached is None or len(rows) >= limit:
                break
        if len(rows) > limit:
            rows, reached = rows[:limit], rows[limit - 1]["upload_id"]
        return SourcePage(rows, reached)


@dataclass(frozen=True, slots=True)
class ProcessUploads:
    """The uploads of another process: an `UploadSource`. Raises `ProcessUnreachable`."""

    processes: ProcessClients
    slot: int

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`."""
        fields = {"principal": selection.principal, "since": selection.since, "limit": limit}
        query = {name: value for name, value in fields.items() if value is not None}
        path = f"/-/uploads?{urlencode({**query, 'cursor': before})}"
        status, body = await self.processes.get(self.slot, path)
        if status != 200:
            raise ProcessUnreachable(f"process {self.slot} answers {status}")
        page = json.loads(body)
        return SourcePage(page["uploads"], page["next"])


@dataclass(frozen=True, slots=True)
class UploadsEndpoint:
    """Serves `/-/uploads`, and one upload with what was removed of it.

    `own` are the sources of this process, `shared` those that all processes have alike.
    """

    status: UploadStatusEndpoint
    own: Sequence[UploadSource]
    processes: ProcessClients
    removals: Removals
    shared: Sequence[UploadSource] = field(default_factory=tuple)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"uploads": self._list, "upload": self._upload}

    async def _upload(self, incoming: IncomingRequest) -> Response:
        status = await self.status.describe(incoming)
        if incoming.params.get("scope") != ["slot"]:
            await self.removals.mark([status])
        return json_response(status)

    async def _list(self, incoming: IncomingRequest) -> Response:
        params = incoming.params
        selection, alone = _read_selection(params), params.get("scope") == ["slot"]
        limit = _read_limit(params)
        before = params.get("cursor", [NEWEST])[0]
        sources: list[tuple[str, UploadSource]] = [("", source) for source in self.own]
        if not alone:
            sources += [("", source) for source in self.shared]
            sources += [
                (f"slot-{slot}", ProcessUploads(self.processes, slot))
                for slot in self.processes.sessions
            ]
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


def merge_pages(pages: Sequence[SourcePage], limit: int) -> tuple[list[Json], str | None]:
    """Return the newest uploads of all pages, each once, and the id below which the next page begins."""
    floor = max((page.reached for page in pages if page.reached is not None), default=None)
    best: dict[str, Json] = {}
    for row in (row for page in pages for row in page.rows):
        key = row["upload_id"]
        if (floor is None or key >= floor) and (key not in best or _rank(row) < _rank(best[key])):
            best[key] = row
    newest = heapq.nlargest(limit, best)
    after = newest[-1] if len(newest) < len(best) else floor
    return [best[key] for key in newest], after


def _rank(row: Json) -> int:
    state = row["state"]
    return _KNOWN_BEST.index(state) if state in _KNOWN_BEST else len(_KNOWN_BEST)


def _matches(selection: UploadSelection, row: Json) -> bool:
    principal = row["principal"]
    name = None if principal is None else principal["name"]
    return selection.matches(name, unix_time(row["created"]))


def _stored_row(upload: LoggedUpload) -> Json:
    return {
        "upload_id": upload.id,
        "state": "unsettled" if upload.pending else "stored",
        "path": upload.path,
        "bytes": upload.bytes,
        "mime": upload.mime,
        "etag": upload.etag,
        "created": iso_time(upload.created),
        "committed": iso_time(upload.committed),
        "principal": named_principal(upload.principal),
        "remote": upload.remote,
        **({"digests": upload.digests} if upload.digests else {}),
        **({"place": shown_place(upload.place)} if upload.place else {}),
    }


def _read_selection(params: dict[str, list[str]]) -> UploadSelection:
    values = {name: params[name][0] for name in ("principal", "since", "state") if name in params}
    if values.get("state", STATES[0]) not in STATES:
        raise Refusal("bad_request", f"state is one of {', '.join(STATES)}")
    try:
        since = unix_time(values["since"]) if "since" in values else None
    except ValueError:
        message = "since is a time such as 2026-11-28T08:00:00Z, or a Unix time"
        raise Refusal("bad_request", message) from None
    return UploadSelection(values.get("principal"), since, values.get("state"))


def _read_limit(params: dict[str, list[str]]) -> int:
    text = params.get("limit", [str(PAGE_ROWS)])[0]
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_PAGE_ROWS:
        raise Refusal("bad_request", f"limit must be a number from 1 to {MAX_PAGE_ROWS}")
    return int(text)
