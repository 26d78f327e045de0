"""Claims in the journal: the statements, and the wake-ups of claims that wait."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from gateway.domain.model import Delivery
from gateway.events.database import packed
from gateway.events.queue_statements import NOT_OF_HELD

ANY_HANDLER: Final = "*"
"""The name under which a claim waits for every handler; no handler can have it."""

_DUE: Final = (
    "SELECT seq, {turn} AS turn FROM deliveries INDEXED BY deliveries_ready WHERE state = 'ready'"
    " AND handler = :handler AND {due}"
    " AND event_id NOT IN (SELECT value FROM json_each(:held)) AND {kind}"
    " ORDER BY {order} LIMIT :limit"
)
_NEW: Final = _DUE.format(turn="created", due="due = 0", order="created, seq", kind="TRUE")
_DELAYED: Final = _DUE.format(
    turn="due", due="due > 0 AND due <= :now", order="due, created, seq", kind="TRUE"
)
_BOTH: Final = f"(SELECT * FROM ({_NEW}) UNION ALL SELECT * FROM ({_DELAYED}))"  # noqa: S608 (ours)
"""What is new has `due` 0, whatever the clock says; it and what was delayed take turns by age."""

_BOTH_FOR_RELAY: Final = _BOTH.replace("TRUE", NOT_OF_HELD)
_CLAIM: Final = (
    "SELECT json_group_array(json_array(seq, attempt, round, handler, id, type, upload_id, path,"
    " holder, created, body)) FROM (SELECT d.seq, d.attempt + 1 AS attempt, d.round, d.handler, e.id,"
    " e.type, e.upload_id, COALESCE(u.path, e.path) AS path, e.holder, e.created, e.body"
    " FROM (SELECT seq FROM {due} ORDER BY turn, seq LIMIT :limit) picked"
    " CROSS JOIN deliveries d ON d.seq = picked.seq"
    " JOIN events e ON e.id = d.event_id LEFT JOIN uploads u ON u.id = e.upload_id)"
)
_CLAIM_OF_HANDLER: Final = _CLAIM.format(due=_BOTH)
_CLAIM_FOR_RELAY: Final = _CLAIM.format(due=_BOTH_FOR_RELAY)
_OLDEST: Final = f"SELECT min(turn) FROM {_BOTH_FOR_RELAY}"  # noqa: S608
_IS_PAUSED: Final = "SELECT EXISTS (SELECT 1 FROM paused WHERE handler = ?)"
_NEXT_DUE: Final = (
    "SELECT min(due) FROM deliveries WHERE state = 'ready' AND due > :now AND handler = :handler"
)
WAITING_HANDLERS: Final = (
    "WITH RECURSIVE handlers(name) AS ("
    "SELECT min(handler) FROM deliveries INDEXED BY deliveries_ready WHERE state = 'ready'"
    " UNION ALL SELECT (SELECT min(handler) FROM deliveries INDEXED BY deliveries_ready"
    " WHERE state = 'ready' AND handler > name) FROM handlers WHERE name IS NOT NULL"
    ") SELECT name FROM handlers WHERE name IS NOT NULL"
)
"""The handlers that have deliveries, from one to the next by the index: not by reading what waits."""


class ClaimResult(NamedTuple):
    """Claimed deliveries, which are running now, and when (Unix time) the next one is due."""

    deliveries: list[Delivery]
    next_due: float | None
    paused: bool = False


def claim_due(db: sqlite3.Connection, handler: str, limit: int, held: list[str]) -> ClaimResult:
    """Claim up to `limit` due deliveries of `handler`, except those of the events `held`.

    The cost does not depend on how much waits: an index leads to the first that is due, and all rows
    of a claim come as one (each step of SQLite releases the interpreter's lock, and a busy loop is
    slow to give it back).
    """
    values = {"handler": handler, "now": time.time(), "held": packed(held)}
    (paused,) = db.execute(_IS_PAUSED, (handler,)).fetchone()
    if not paused and (deliveries := _claim(db, _CLAIM_OF_HANDLER, {**values, "limit": limit})):
        return ClaimResult(deliveries, None)
    (due,) = db.execute(_NEXT_DUE, values).fetchone()
    return ClaimResult([], due, bool(paused))


def claim_any_due(
    db: sqlite3.Connection, limit: int, held: list[str], without: Collection[str]
) -> ClaimResult:
    """Claim due deliveries of all handlers but those in `without`, as `claim_due`; paused ones too.

    The oldest come first. None is of a held upload.
    """
    now, text = time.time(), packed(held)
    deliveries: list[Delivery] = []
    upcoming: list[float] = []
    waiting: list[tuple[float, str]] = []
    for (handler,) in db.execute(WAITING_HANDLERS).fetchall():
        if handler in without:
            continue
        values = {"handler": handler, "now": now, "held": text, "limit": 1}
        (oldest,) = db.execute(_OLDEST, values).fetchone()
        if oldest is not None:
            waiting.append((oldest, handler))
        elif (due := db.execute(_NEXT_DUE, values).fetchone()[0]) is not None:
            upcoming.append(due)
    for _, handler in sorted(waiting):
        values = {"handler": handler, "now": now, "held": text, "limit": limit - len(deliveries)}
        deliveries += _claim(db, _CLAIM_FOR_RELAY, values)
        if len(deliveries) == limit:
            break
    return ClaimResult(deliveries, None if deliveries else min(upcoming, default=None))


def _claim(db: sqlite3.Connection, statement: str, values: dict[str, Any]) -> list[Delivery]:
    (text,) = db.execute(statement, values).fetchone()
    rows: list[list[Any]] = json.loads(text)
    if rows:
        db.execute(
            "UPDATE deliveries SET state = 'running', attempt = attempt + 1, updated = ?"
            " WHERE seq IN (SELECT value FROM json_each(?))",
            (values["now"], packed([row[0] for row in rows])),
        )
    return [_delivery(row) for row in rows]


def _delivery(row: list[Any]) -> Delivery:
    seq, attempt, round_, handler, event_id, kind, upload_id, path, holder, created, body = row
    event = json.loads(body)
    if path is not None:
        event["path"] = path
    return Delivery(seq, event_id, upload_id, kind, handler, attempt, event, holder, round_, created)


class Wakeups:
    """Wakes claims that wait. `notify` may be called from any thread; all else belongs to one loop.

    Nothing is polled and no notification is missed: a claim reads `generation` before it reads the
    journal and passes it to `wait`, which returns at once if there was a notification in between.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generations: dict[str, int] = {}
        self._all = 0
        self._notified: set[str] = set()
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def notify(self, handlers: Iterable[str]) -> None:
        """Wake the claims of these handlers, and those of `ANY_HANDLER`."""
        with self._lock:
            for handler in (*handlers, ANY_HANDLER):
                self._generations[handler] = self._generations.get(handler, 0) + 1
                self._notified.add(handler)
            loop = self._loop
            if loop is None or self._scheduled:
                return
            self._scheduled = True
        try:
            loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # that loop has ended
            self._scheduled = False

    def notify_all(self) -> None:
        """Wake every claim."""
        with self._lock:
            self._all += 1
            names = list(self._waiters)
        self.notify(names)

    def generation(self, handler: str) -> int:
        """Return the number of notifications for a handler."""
        return self._generations.get(handler, 0) + self._all

    async def wait(self, handler: str, generation: int, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until the handler's generation is no longer `generation`, up to `timeout` seconds."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._lock:
            if self.generation(handler) != generation:
                return
            if self._loop is not loop:
                self._loop, self._scheduled = loop, False
            self._waiters.setdefault(handler, set()).add(waiter)
        timer = loop.call_later(timeout, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            with self._lock:
                self._waiters[handler].discard(waiter)

    def _wake(self) -> None:
        with self._lock:
            self._scheduled = False
            notified, self._notified = self._notified, set()
            woken = [waiter for name in notified for waiter in self._waiters.get(name, ())]
        for waiter in woken:
            _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
