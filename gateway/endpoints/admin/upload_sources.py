"""The kinds of uploads that are listed, each a source of pages: in flight, held, committed, of another
process.

The id of an upload begins with its time, so a page is what lies below an id.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, Protocol
from urllib.parse import urlencode

from gateway.domain.model import id_prefix
from gateway.domain.units import iso_time, unix_time
from gateway.endpoints.admin.processes import ProcessClients, ProcessUnreachable
from gateway.endpoints.admin.upload_pages import held_row, shown_place
from gateway.endpoints.inflight import Inflight, named_principal
from gateway.errors import Refusal
from gateway.events.held_log import WINDOW_ROWS, HeldLog
from gateway.events.upload_log import LoggedUpload, UploadLog

MAX_WINDOWS: Final = 50
"""Windows of a journal that one page reads; a page may end before its limit."""

STATES: Final = (
    "admitting",
    "receiving",
    "waiting",
    "deciding",
    "held",
    "committing",
    "unsettled",
    "stored",
    "removed",
    "rejected",
    "failed",
)
NEWEST: Final = "~"
"""Sorts behind every id."""

_KNOWN_BEST: Final = (
    "admitting",
    "receiving",
    "deciding",
    "held",
    "committing",
    "unsettled",
    "stored",
    "removed",
    "rejected",
    "waiting",
)
"""Where two sources know an upload, the state that is listed: the row of an active one may be undone."""

_NOT_LISTED: Final = frozenset({"handlers", "result"})
"""Fields of the status page that a list leaves out: they may be long."""

HELD: Final = frozenset({"held", "rejected"})
"""States of which the sources with committed uploads have none."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UploadSelection:
    """What a list is limited to: name and kind of a principal, a time (Unix), a state."""

    principal: str | None = None
    since: float | None = None
    state: str | None = None
    kind: str | None = None

    def matches(self, principal: Mapping[str, Any] | None, created: float) -> bool:
        """Tell whether an upload belongs to the list, whatever its state."""
        named = named_principal(principal) or {}
        mine = self.principal is None or self.principal == named.get("name")
        mine = mine and (self.kind is None or self.kind == named.get("kind"))
        return mine and (self.since is None or created >= self.since)


class SourcePage(NamedTuple):
    """Some uploads, newest first, and the id down to which all are here; None: to the end."""

    rows: list[Json]
    reached: str | None = None


class UploadSource(Protocol):
    """Uploads of one kind. The rows have the fields of the status page that are listed.

    `has_held` tells whether they may be held or rejected ones.
    """

    has_held: ClassVar[bool]

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """Return up to `limit` uploads whose id is below `before`, whatever state is selected."""


@dataclass(frozen=True, slots=True)
class InflightUploads:
    """Uploads in flight, and those that failed lately: an `UploadSource`."""

    inflight: Inflight
    has_held: ClassVar[bool] = True

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`."""
        pages = self.inflight.newest(before, limit)
        rows = [
            {name: value for name, value in page.items() if name not in _NOT_LISTED} for page in pages
        ]
        shown = [row for row in rows if _matches(selection, row)]
        return SourcePage(shown, rows[-1]["upload_id"] if len(rows) == limit else None)


@dataclass(frozen=True, slots=True)
class StoredUploads:
    """Committed uploads in a journal: an `UploadSource`."""

    log: UploadLog
    has_held: ClassVar[bool] = False

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`. Raises `Refusal("journal_unavailable")`."""

        def matches(upload: LoggedUpload) -> bool:
            return selection.matches(upload.principal, upload.created)

        async def read(before: str, oldest: str) -> SourcePage:
            window = await asyncio.wrap_future(self.log.window(before, oldest, matches))
            return SourcePage([*map(_stored_row, window.uploads)], window.reached)

        return await _read_windows(selection, before, limit, read)


@dataclass(frozen=True, slots=True)
class HeldUploads:
    """Held and rejected uploads in a journal: an `UploadSource`."""

    log: HeldLog
    has_held: ClassVar[bool] = True

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`. Raises `Refusal("journal_unavailable")`."""

        async def read(before: str, oldest: str) -> SourcePage:
            window = await asyncio.wrap_future(self.log.window(before, oldest))
            rows = [row for row in map(held_row, window) if _matches(selection, row)]
            return SourcePage(rows, window[-1].id if len(window) == WINDOW_ROWS else None)

        return await _read_windows(selection, before, limit, read)


@dataclass(frozen=True, slots=True)
class ProcessUploads:
    """The uploads of another process: an `UploadSource`. Raises `ProcessUnreachable`."""

    processes: ProcessClients
    slot: int
    has_held: ClassVar[bool] = True

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`."""
        fields = {
            "principal": selection.principal,
            "kind": selection.kind,
            "since": selection.since,
            "limit": limit,
        }
        if selection.state in HELD:  # it needs not read those that are committed
            fields["state"] = selection.state
        query = {name: value for name, value in fields.items() if value is not None}
        path = f"/-/uploads?{urlencode({**query, 'cursor': before})}"
        status, body = await self.processes.get(self.slot, path)
        if status != 200:
            raise ProcessUnreachable(f"process {self.slot} answers {status}")
        page = json.loads(body)
        return SourcePage(page["uploads"], page["next"])


@contextlib.contextmanager
def journal_errors() -> Iterator[None]:
    """Turn an error of the journal into `Refusal("journal_unavailable")`."""
    try:
        yield
    except sqlite3.Error as error:
        raise Refusal("journal_unavailable", f"uploads cannot be read now: {error}") from error


async def _read_windows(
    selection: UploadSelection,
    before: str,
    limit: int,
    read: Callable[[str, str], Awaitable[SourcePage]],
) -> SourcePage:
    """Read windows of a journal, below an id and from another on, until there are enough uploads.

    Raises `Refusal("journal_unavailable")`.
    """
    oldest = "" if selection.since is None else id_prefix(selection.since)
    rows: list[Json] = []
    reached: str | None = before
    for _ in range(MAX_WINDOWS):
        with journal_errors():
            window = await read(reached or "", oldest)
        rows += window.rows
        reached = window.reached
        if reached is None or len(rows) >= limit:
            break
    return _cut(rows, reached, limit)


def _cut(rows: list[Json], reached: str | None, limit: int) -> SourcePage:
    """Return a page of at most `limit` of these rows, which were read down to the id `reached`."""
    if len(rows) > limit:
        return SourcePage(rows[:limit], rows[limit - 1]["upload_id"])
    return SourcePage(rows, reached)


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
    return selection.matches(row["principal"], unix_time(row["created"]))


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
