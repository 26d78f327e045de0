"""What one process shows live to each viewer, and how the parts of all processes become one snapshot."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from gateway.domain.units import iso_time
from gateway.endpoints.admin.live_rates import merge_rates
from gateway.endpoints.admin.viewers import Viewer
from gateway.endpoints.inflight import EndedUpload, Inflight, Progress, named_principal

MAX_ACTIVE: Final = 100
"""Uploads in flight that a snapshot has, those whose request began last; all are counted."""

MAX_OWN_ROWS: Final = 1000
"""Rows in flight that all uploaders who look get together: some 5 ms of the event loop."""

MIN_OWN_ROWS: Final = 5
"""Rows in flight that each of them gets, however many look."""

MAX_LATEST: Final = 20
"""Uploads that ended lately that a snapshot has."""

_PROTOCOLS: Final[Mapping[str, str]] = {"POST": "form"}

Json = dict[str, Any]
View = Viewer | None


class _Rows:
    """The rows of one viewer."""

    def __init__(self) -> None:
        self.active: list[Json] = []
        self.active_count = 0
        self.latest: list[Json] = []

    def fields(self) -> Json:
        return {"active": self.active, "active_count": self.active_count, "latest": self.latest}


def own_views(inflight: Inflight, viewers: Collection[View]) -> list[Json]:
    """Return the rows of this process for each viewer.

    One pass over all uploads for all uploaders who look: 15 ms for 10,000 in flight.
    """
    rows: dict[View, _Rows] = {viewer: _Rows() for viewer in viewers}
    whole, own = rows.get(None), {viewer: mine for viewer, mine in rows.items() if viewer is not None}
    if whole is not None:
        whole.active_count = len(inflight)
        whole.active = [_active_row(each) for each in itertools.islice(inflight.active(), MAX_ACTIVE)]
        whole.latest = [_ended_row(each) for each in itertools.islice(inflight.ended(), MAX_LATEST)]
    if own:
        _fill_own(inflight, {(viewer.name, viewer.kind): mine for viewer, mine in own.items()})
    return [rows[viewer].fields() for viewer in viewers]


def _fill_own(inflight: Inflight, rows: Mapping[tuple[str, str], _Rows]) -> None:
    """Fill the rows of uploaders, by name and kind of their principals."""
    limit = min(MAX_ACTIVE, max(MAX_OWN_ROWS // len(rows), MIN_OWN_ROWS))
    for progress in inflight.active():
        mine = _rows_of(rows, progress.upload.principal)
        if mine is not None:
            mine.active_count += 1
            if len(mine.active) < limit:
                mine.active.append(_active_row(progress))
    for upload in inflight.ended():
        mine = _rows_of(rows, upload.principal)
        if mine is not None and len(mine.latest) < MAX_LATEST:
            mine.latest.append(_ended_row(upload))


def _rows_of(rows: Mapping[tuple[str, str], _Rows], principal: Mapping[str, Any] | None) -> _Rows | None:
    return (
        None if principal is None else rows.get((principal.get("name", ""), principal.get("kind", "")))
    )


def _active_row(progress: Progress) -> Json:
    upload = progress.upload
    return {
        "upload_id": upload.id,
        "state": progress.state,
        "path": upload.path,
        "bytes": progress.received,
        "expected": upload.content_length,
        "rate": progress.rate,
        "started": iso_time(progress.since),
        "principal": named_principal(upload.principal),
        "remote": upload.remote,
        "protocol": upload.resumable or _PROTOCOLS.get(upload.method, "put"),
    }


def _ended_row(upload: EndedUpload) -> Json:
    return {
        "upload_id": upload.id,
        "state": upload.state,
        "path": upload.path,
        "bytes": upload.bytes,
        "started": iso_time(upload.since),
        "ended": iso_time(upload.ended),
        "principal": upload.principal,
        "remote": upload.remote,
        "error": upload.error,
    }


def merge_views(parts: Iterable[Json]) -> Json:
    """Return the rows of one viewer of all processes, the newest first."""
    parts = list(parts)
    active = sorted((row for part in parts for row in part["active"]), key=_started, reverse=True)
    latest = sorted((row for part in parts for row in part["latest"]), key=_end, reverse=True)
    return {
        "active": active[:MAX_ACTIVE],
        "active_count": sum(part["active_count"] for part in parts),
        "latest": latest[:MAX_LATEST],
    }


def _started(row: Json) -> str:
    return f"{row['started']} {row['upload_id']}"


def _end(row: Json) -> str:
    return f"{row['ended']} {row['upload_id']}"


def merge_parts(
    viewers: Sequence[View], parts: Mapping[int, Json | None], head: Json, queue: Json
) -> dict[View, Json]:
    """Return the snapshot of each viewer.

    `parts` are what the processes answered to `viewers`, by slot; None: no answer. `head` is in every
    snapshot, `queue` and the rates in that of an operator only.
    """
    answers = [part for part in parts.values() if part is not None]
    silent = sorted(slot for slot, part in parts.items() if part is None)
    shared = {**head, "processes": len(parts), "silent_processes": silent}
    snapshots: dict[View, Json] = {}
    for number, viewer in enumerate(viewers):
        snapshot = {**shared, **merge_views(part["views"][number] for part in answers)}
        if viewer is None:
            snapshot |= {"rates": merge_rates([part["counts"] for part in answers]), **queue}
        snapshots[viewer] = snapshot
    return snapshots
