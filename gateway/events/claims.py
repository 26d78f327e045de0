"""What a claim reads and writes, as one small operation.

The rule: its cost does not depend on how much waits: an index leads to the first that is due, and
all rows of a claim come as one (each step of SQLite gives the interpreter's lock away, and a busy
loop is slow to give it back).
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any, Final, NamedTuple

from gateway.domain.model import Delivery
from gateway.events.database import packed

_DUE: Final = (
    "SELECT d.seq, d.attempt + 1 AS attempt, d.round, d.handler, e.id, e.type, e.upload_id,"
    " COALESCE(u.path, e.path) AS path, e.holder, e.created, e.body"
    " FROM deliveries d INDEXED BY {index} JOIN events e ON e.id = d.event_id"
    " LEFT JOIN uploads u ON u.id = e.upload_id"
    " WHERE d.state = 'ready' AND d.due <= :now{whose}"
    " AND d.event_id NOT IN (SELECT value FROM json_each(:held)) ORDER BY {order} LIMIT :limit"
)
_OF_HANDLER: Final = (
    " AND d.handler = :handler AND NOT EXISTS (SELECT 1 FROM paused WHERE handler = :handler)"
)
_DUE_OF_HANDLER: Final = _DUE.format(
    index="deliveries_ready", whose=_OF_HANDLER, order="d.due, d.created, d.seq"
)
_DUE_OF_ANY: Final = _DUE.format(index="deliveries_unfinished", whose="", order="d.seq")

_AS_ONE: Final = (
    "SELECT json_group_array(json_array(seq, attempt, round, handler, id, type, upload_id, path,"
    " holder, created, body)) FROM ({due})"
)
_CLAIM: Final = _AS_ONE.format(due=_DUE_OF_HANDLER)
_CLAIM_ANY: Final = _AS_ONE.format(due=_DUE_OF_ANY)

_NEXT_DUE: Final = (
    "SELECT min(due) FROM deliveries WHERE state = 'ready' AND due > :now AND handler = :handler"
)
_NEXT_DUE_OF_ANY: Final = (
    "SELECT min(due) FROM deliveries INDEXED BY deliveries_ready WHERE state = 'ready' AND due > :now"
)


class ClaimResult(NamedTuple):
    """What a claim brought: deliveries now running, and when (Unix time) the next one is due."""

    deliveries: list[Delivery]
    next_due: float | None


def take(db: sqlite3.Connection, handler: str | None, limit: int, held: list[str]) -> ClaimResult:
    """Make up to `limit` due deliveries of `handler` (None: of all) running, without those of `held`."""
    now = time.time()
    one = handler is not None
    asked = {"handler": handler, "now": now, "limit": limit, "held": packed(held)}
    (text,) = db.execute(_CLAIM if one else _CLAIM_ANY, asked).fetchone()
    rows: list[list[Any]] = json.loads(text)
    if rows:
        db.execute(
            "UPDATE deliveries SET state = 'running', attempt = attempt + 1, updated = ?"
            " WHERE seq IN (SELECT value FROM json_each(?))",
            (now, packed([row[0] for row in rows])),
        )
        return ClaimResult([_delivery(row) for row in rows], None)
    (due,) = db.execute(_NEXT_DUE if one else _NEXT_DUE_OF_ANY, asked).fetchone()
    return ClaimResult([], due)


def _delivery(row: list[Any]) -> Delivery:
    seq, attempt, round_, handler, event_id, kind, upload_id, path, holder, created, body = row
    event = json.loads(body)
    if path is not None:
        event["path"] = path
    return Delivery(seq, event_id, upload_id, kind, handler, attempt, event, holder, round_, created)
