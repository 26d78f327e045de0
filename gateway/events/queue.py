"""Events room, queue: deliveries are claimed, tried, and end done or dead.

    held --release--> ready --claim--> running --settle--> done
                        ^                 |------settle--> ready (retry, due later)
                        |                 |------settle--> dead
                        +----hand_back----+

Each method queues one small operation and returns its future, durable when done. An attempt is
counted when it is claimed, so a handler that kills the process cannot loop for ever. May import
`model`, `errors` and `database`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal, NamedTuple

from gateway.events.database import Database
from gateway.model import Delivery

Outcome = Literal["done", "retry", "dead"]


class Claim(NamedTuple):
    """What a claim brought: deliveries now running, and when (Unix time) the next one is due."""

    deliveries: list[Delivery]
    next_due: float | None


class Queue:
    """Deliveries, from the runner's point of view."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, handler: str, limit: int) -> Future[Claim]:
        """Take up to `limit` due deliveries of `handler`; each attempt is counted here."""

        def operation(db: sqlite3.Connection) -> Claim:
            now = time.time()
            rows = db.execute(
                "UPDATE deliveries SET state = 'running', attempt = attempt + 1, updated = ?"
                " WHERE seq IN (SELECT seq FROM deliveries WHERE handler = ? AND state = 'ready'"
                " AND due <= ? ORDER BY due, seq LIMIT ?) RETURNING seq, event_id, attempt",
                (now, handler, now, limit),
            ).fetchall()
            deliveries = [_delivery(db, handler, *row) for row in rows]
            (due,) = db.execute(
                "SELECT min(due) FROM deliveries WHERE handler = ? AND state = 'ready'", (handler,)
            ).fetchone()
            return Claim(deliveries, due)

        return self._database.submit(operation)

    def settle(
        self,
        delivery: Delivery,
        outcome: Outcome,
        duration: float,
        error: str | None = None,
        delay: float = 0.0,
    ) -> Future[None]:
        """End an attempt: `done`, `dead`, or `retry` not before `delay` seconds from now.

        `duration` is in seconds. An attempt that is no longer the running one changes nothing.
        """

        def operation(db: sqlite3.Connection) -> None:
            now = time.time()
            state = "ready" if outcome == "retry" else outcome
            changed = db.execute(
                "UPDATE deliveries SET state = ?, due = ?, error = ?, updated = ?"
                " WHERE seq = ? AND state = 'running' AND attempt = ?",
                (state, now + delay, error, now, delivery.token, delivery.attempt),
            ).rowcount
            if changed:
                db.execute(
                    "INSERT INTO runs (delivery, attempt, ended, duration, outcome, error)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (delivery.token, delivery.attempt, now, duration, outcome, error),
                )

        return self._database.submit(operation)

    def hand_back(self, deliveries: Sequence[Delivery]) -> Future[None]:
        """Give running deliveries back unharmed: a graceful stop uses no attempt."""
        rows = [(delivery.token, delivery.attempt) for delivery in deliveries]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany(
                "UPDATE deliveries SET state = 'ready', attempt = attempt - 1"
                " WHERE seq = ? AND attempt = ? AND state = 'running'",
                rows,
            )

        return self._database.submit(operation)

    def resume(self) -> Future[tuple[int, int]]:
        """After a start: held and running deliveries are ready again; return how many of each."""

        def operation(db: sqlite3.Connection) -> tuple[int, int]:
            held = db.execute("UPDATE deliveries SET state = 'ready' WHERE state = 'held'").rowcount
            running = db.execute(
                "UPDATE deliveries SET state = 'ready', due = ?,"
                " error = 'the gateway stopped while the handler ran' WHERE state = 'running'",
                (time.time(),),
            ).rowcount
            return held, running

        return self._database.submit(operation)

    def bury_orphans(self, handlers: Sequence[str]) -> Future[int]:
        """Make waiting deliveries of handlers that are not in `handlers` dead; return how many."""

        def operation(db: sqlite3.Connection) -> int:
            return db.execute(
                "UPDATE deliveries SET state = 'dead', updated = ?,"
                " error = 'no plugin has a handler of this name'"
                " WHERE state = 'ready' AND handler NOT IN (SELECT value FROM json_each(?))",
                (time.time(), json.dumps(list(handlers))),
            ).rowcount

        return self._database.submit(operation)


def _delivery(db: sqlite3.Connection, handler: str, seq: int, event_id: str, attempt: int) -> Delivery:
    kind, upload_id, body, path = db.execute(
        "SELECT e.type, e.upload_id, e.body, u.path FROM events e"
        " LEFT JOIN uploads u ON u.id = e.upload_id WHERE e.id = ?",
        (event_id,),
    ).fetchone()
    event = json.loads(body)
    if path is not None:
        event["path"] = path
    return Delivery(seq, event_id, upload_id, kind, handler, attempt, event)
