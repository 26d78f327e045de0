"""Events room, ledger: what the journal tells those who watch, and what it lets go of.

Each method queues one small operation and returns its future. Every answer is bounded. May
import `database` only.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from gateway.events.database import Database

Row = dict[str, Any]

_STATE = (
    "CASE WHEN d.state = 'held' THEN 'ready'"
    " WHEN d.state = 'ready' AND d.due > :now THEN 'delayed' ELSE d.state END AS state"
)
"""A delivery's state as watchers know it: what is not yet released is as good as ready."""

_FEW: Final[Mapping[str, str]] = {
    "ready": " AND d.state IN ('held', 'ready')",
    "delayed": " AND d.state = 'ready'",
    "running": " AND d.state = 'running'",
    "dead": " AND d.state = 'dead'",
}
"""How to find those in a state without reading the history of all that is done."""


class Ledger:
    """Uploads, events and deliveries, from the watcher's point of view."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def story(self, upload_id: str) -> Future[Row | None]:
        """Return an upload with each handler's deliveries and runs, or None."""

        def operation(db: sqlite3.Connection) -> Row | None:
            rows = _rows(db, "SELECT * FROM uploads WHERE id = :id", id=upload_id)
            if not rows:
                return None
            events = _rows(db, "SELECT id FROM events WHERE upload_id = :id", id=upload_id)
            deliveries = [row for event in events for row in _history(db, event["id"])]
            return {**rows[0], "handlers": deliveries}

        return self._database.submit(operation)

    def history(self, event_id: str) -> Future[Row | None]:
        """Return an event with its body, deliveries and runs, or None."""

        def operation(db: sqlite3.Connection) -> Row | None:
            rows = _rows(
                db,
                "SELECT e.*, u.path FROM events e LEFT JOIN uploads u ON u.id = e.upload_id"
                " WHERE e.id = :id",
                id=event_id,
            )
            if not rows:
                return None
            body = json.loads(rows[0].pop("body"))
            return {**rows[0], "body": body, "handlers": _history(db, event_id)}

        return self._database.submit(operation)

    def page(self, state: str | None, handler: str | None, after: int, limit: int) -> Future[list[Row]]:
        """Return up to `limit` deliveries with `seq` above `after`, oldest first.

        `state` may also be `delayed`: ready, but due later.
        """

        def operation(db: sqlite3.Connection) -> list[Row]:
            rows = _rows(
                db,
                "SELECT * FROM (SELECT d.seq, d.event_id, e.upload_id, d.handler,"  # noqa: S608 (the part is ours)
                " e.type AS event,"
                f" u.path, {_STATE}, d.attempt, d.error, d.created, d.due"
                " FROM deliveries d JOIN events e ON e.id = d.event_id"
                " LEFT JOIN uploads u ON u.id = e.upload_id"
                f" WHERE d.seq > :after{_FEW.get(state or '', '')}"
                " AND (:handler IS NULL OR d.handler = :handler))"
                " WHERE :state IS NULL OR state = :state ORDER BY seq LIMIT :limit",
                now=time.time(),
                after=after,
                handler=handler,
                state=state,
                limit=limit,
            )
            return rows

        return self._database.submit(operation)

    def depth(self) -> Future[list[Row]]:
        """Return `handler, state, count, oldest` of all that is not done."""

        def operation(db: sqlite3.Connection) -> list[Row]:
            return _rows(
                db,
                "SELECT handler, state, count(*) AS count, min(created) AS oldest"
                # Each state by name: `<> 'done'` would read the whole history, at every scrape.
                " FROM deliveries WHERE state IN ('held', 'ready', 'running', 'dead')"
                " GROUP BY handler, state",
            )

        return self._database.submit(operation)

    def check(self) -> Future[None]:
        """Write something, to know that the journal can."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute("REPLACE INTO facts VALUES ('checked', ?)", (str(time.time()),))

        return self._database.submit(operation)

    def prune(self, before: float, limit: int = 1000) -> Future[int]:
        """Delete finished deliveries (done) and quiet uploads older than `before` (Unix time).

        Dead ones stay until somebody decides. Returns how many deliveries and uploads went:
        `limit` of each at the most.
        """

        def operation(db: sqlite3.Connection) -> int:
            return _prune(db, before, limit)

        return self._database.submit(operation)


def _history(db: sqlite3.Connection, event_id: str) -> list[Row]:
    deliveries = _rows(
        db,
        f"SELECT d.seq, d.event_id, d.handler, {_STATE}, d.attempt, d.due, d.error,"  # noqa: S608 (as above)
        " d.created,"
        " d.updated FROM deliveries d WHERE d.event_id = :id ORDER BY d.handler",
        now=time.time(),
        id=event_id,
    )
    for delivery in deliveries:
        delivery["runs"] = _rows(
            db,
            "SELECT attempt, ended, duration, outcome, error FROM runs"
            " WHERE delivery = :delivery ORDER BY seq DESC LIMIT 100",
            delivery=delivery.pop("seq"),
        )[::-1]
    return deliveries


def _prune(db: sqlite3.Connection, before: float, limit: int) -> int:
    gone = db.execute(
        "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries"
        " WHERE state = 'done' AND updated < ? LIMIT ?) RETURNING seq, event_id",
        (before, limit),
    ).fetchall()
    db.executemany("DELETE FROM runs WHERE delivery = ?", [(seq,) for seq, _ in gone])
    db.executemany(
        "DELETE FROM events WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = ?1)",
        [(event_id,) for _, event_id in gone],
    )
    quiet = db.execute(
        "DELETE FROM uploads WHERE id IN (SELECT id FROM uploads u WHERE committed < ?"
        " AND NOT EXISTS (SELECT 1 FROM events WHERE upload_id = u.id) LIMIT ?)",
        (before, limit),
    ).rowcount
    return len(gone) + quiet


def _rows(db: sqlite3.Connection, statement: str, **values: Any) -> list[Row]:
    cursor = db.execute(statement, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
