"""Groups failed deliveries by handler and error, page by page, for every kind of ledger.

Errors of one cause differ in what they quote: numbers, ids, names, addresses. `error_kind` replaces
these, so that equal faults are one group, which can be retried or dropped as a whole.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from gateway.domain.units import iso_time
from gateway.events.protocols import (
    INVALID_CURSOR,
    ChunkResult,
    DeliveryPage,
    DeliveryRow,
    Ledger,
    Selection,
    Verb,
    run_all,
)

MAX_ROWS: Final = 20_000
"""Deliveries that one answer over HTTP groups: some 0.3 s of a journal, in pages of some 6 ms."""

MAX_SECONDS: Final = 10.0
"""Seconds after which such an answer ends early: each message of NATS is a round trip."""

PAGE_ROWS: Final = 250
"""Deliveries that are read at a time: one operation of a journal."""

MAX_GROUPS: Final = 200
"""Groups that are listed, the largest ones."""

MAX_TRACKED: Final = 1000
"""Groups that are counted; with `MAX_LENGTH` and `MAX_SAMPLE` this bounds the memory."""

MAX_LENGTH: Final = 200
"""Characters of an error by which deliveries are grouped."""

MAX_SAMPLE: Final = 1000
"""Characters of the error of one delivery of a group."""

MAX_FILTERED: Final = 2000
"""Deliveries that are read for one page of a group."""

_REPLACED: Final = re.compile(
    r"[a-zA-Z][a-zA-Z0-9+.-]{0,15}://[^\s'\"<>]+"  # URLs
    r"|(?<!\w)'[^']*'(?!\w)|(?<!\w)\"[^\"]*\"(?!\w)|(?<!\w)`[^`]*`(?!\w)|‘[^’]*’|“[^”]*”|«[^»]*»"
    r"|[\w.+-]{1,64}@[\w.-]+"  # addresses of mail
    r"|(?<![\w/])/[^\s'\"<>:,;()]+"  # paths
    r"|(?<!\w)\[?[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}\]?(?!\w)"  # addresses of IPv6
    r"|\b[\w.-]{1,64}:\d{1,5}\b"  # hosts with a port
    r"|\b(?=[\w-]*\d)[\w-]{12,}\b"  # ids: long words with a digit
    r"|(?!(?<=Errno )\d|(?<=HTTPError: )\d{3}\b|(?<=status )\d{3}\b|(?<=answered )\d{3}\b"
    r"|(?<=terminated with )\d{3}\b)[-+]?\b\d[\w.,:%-]*(?<![.,:-])",  # other numbers
    re.ASCII,
)

_OMITTED: Final = "…"
_REPEATED: Final = re.compile(f"{_OMITTED}(?:[\\s,:/.-]{{0,2}}{_OMITTED})+")


def error_kind(error: str | None) -> str:
    """Return the first line of an error, what differs from case to case replaced by an ellipsis.

    The first line has the type and the message of an exception; its traceback is below it. Numbers that
    name the fault stay: `[Errno 2]`, a status.
    """
    line = next((line.strip() for line in (error or "").splitlines() if line.strip()), "")
    text = _REPLACED.sub(_OMITTED, line[: 2 * MAX_LENGTH])
    return _REPEATED.sub(_OMITTED, text)[:MAX_LENGTH].rstrip()


@dataclass(slots=True)
class ErrorGroup:
    """Deliveries of a handler that failed alike. `event_id` and `sample` are those of the newest one.

    Times are Unix times of the events.
    """

    handler: str
    error: str
    count: int
    oldest: float
    newest: float
    event_id: str
    sample: str

    def add(self, row: DeliveryRow) -> None:
        """Count one more delivery."""
        self.count += 1
        self.oldest = min(self.oldest, row.created)
        if row.created >= self.newest:
            self.newest, self.event_id = row.created, row.event_id
            self.sample = (row.error or "")[:MAX_SAMPLE]


@dataclass(slots=True)
class ErrorGroups:
    """Groups, the largest first. `complete`: all that match were `read`.

    `other` counts the deliveries of groups that are not listed. `unavailable` names processes that did
    not answer.
    """

    groups: list[ErrorGroup] = field(default_factory=list)
    read: int = 0
    other: int = 0
    complete: bool = True
    unavailable: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return them as JSON, their times in ISO 8601."""
        groups = [
            {**asdict(group), "oldest": iso_time(group.oldest), "newest": iso_time(group.newest)}
            for group in self.groups
        ]
        fields = {"groups": groups, "read": self.read, "other": self.other, "complete": self.complete}
        return fields | ({"unavailable": list(self.unavailable)} if self.unavailable else {})


async def group_errors(
    ledger: Ledger,
    selection: Selection,
    max_rows: int | None = None,
    max_seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ErrorGroups:
    """Group the deliveries of a selection, at most about `max_rows`, for `max_seconds`.

    Raises `EventEngineUnavailable`.
    """
    grouped, groups = ErrorGroups(), dict[tuple[str, str], ErrorGroup]()
    after: str | None = None
    until = None if max_seconds is None else clock() + max_seconds
    while True:
        page = await ledger.page(selection, after, PAGE_ROWS)
        grouped.read += len(page.rows)
        grouped.other += await asyncio.to_thread(_add_all, groups, page.rows)
        after = page.next
        if after is None:
            break
        if (max_rows is not None and grouped.read >= max_rows) or (
            until is not None and clock() >= until
        ):
            grouped.complete = False
            break
    ranked = sorted(groups.values(), key=lambda group: (-group.count, group.handler, group.error))
    grouped.groups = ranked[:MAX_GROUPS]
    grouped.other += sum(group.count for group in ranked[MAX_GROUPS:])
    grouped.unavailable = page.unavailable
    return grouped


def _add_all(groups: dict[tuple[str, str], ErrorGroup], rows: Sequence[DeliveryRow]) -> int:
    """Count deliveries; return how many were left out. Hostile texts take some 0.3 ms each."""
    return sum(not _add(groups, row) for row in rows)


def _add(groups: dict[tuple[str, str], ErrorGroup], row: DeliveryRow) -> bool:
    """Count a delivery in its group; return False where there are too many groups."""
    key = row.handler, error_kind(row.error)
    group = groups.get(key)
    if group is None:
        if len(groups) >= MAX_TRACKED:
            return False
        sample = (row.error or "")[:MAX_SAMPLE]
        group = groups[key] = ErrorGroup(*key, 0, row.created, row.created, row.event_id, sample)
    group.add(row)
    return True


async def group_page(
    ledger: Ledger, selection: Selection, error: str, after: str | None, limit: int
) -> DeliveryPage:
    """Return a page of the deliveries of a group; it may have fewer rows than `limit`, and yet a next.

    Raises as `Ledger.page`.
    """
    rows: list[DeliveryRow] = []
    read = 0
    while True:
        page = await ledger.page(selection, after, min(limit, PAGE_ROWS))
        read += len(page.rows)
        rows += (row for row in page.rows if error_kind(row.error) == error)
        after = page.next
        if after is None or rows or read >= MAX_FILTERED:
            return DeliveryPage(rows, after, page.unavailable)


async def change_group(
    ledger: Ledger, verb: Verb, selection: Selection, error: str, after: str | None
) -> ChunkResult:
    """Do one bounded chunk of `verb` on the dead deliveries of a group; as `Ledger.run_chunk`.

    What dies after the first chunk is left alone. The journal does not say when a delivery died, but
    there it keeps its place behind the cursor.
    """
    started, cursor = (time.time(), None) if after is None else _read_cursor(after)
    dead = replace(selection, state="dead")
    page = await ledger.page(dead, cursor, PAGE_ROWS)
    events: dict[str, list[str]] = {}
    for row in page.rows:
        if row.due <= started and error_kind(row.error) == error:
            events.setdefault(row.handler, []).append(row.event_id)
    count = 0
    for handler, ids in events.items():
        count += await run_all(ledger, verb, replace(dead, handler=handler, events=tuple(ids)))
    return ChunkResult(count, None if page.next is None else f"{started:.6f}/{page.next}")


def _read_cursor(after: str) -> tuple[float, str]:
    started, separator, cursor = after.partition("/")
    if not separator or not re.fullmatch(r"\d{1,12}\.\d{6}", started):
        raise ValueError(INVALID_CURSOR)
    return float(started), cursor
