"""The journal as a ledger: deliveries are listed, counted, changed in bulk and pruned.

Nothing here holds up the journal's thread: what is long is done in chunks, each an operation of its own,
and commits go in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from gateway.domain.sqlite_writer import Operation, T
from gateway.errors import EventEngineUnavailable
from gateway.events import ledger_queries as queries
from gateway.events.claims import Wakeups
from gateway.events.database import Database, select
from gateway.events.ledger_queries import MAX_WINDOW, LedgerQuery, MatchedRows
from gateway.events.protocols import (
    ChunkResult,
    DeliveryPage,
    DeliveryRow,
    Depth,
    EventHistory,
    Selection,
    Verb,
    read_positions,
)

MAX_CHUNK: Final = 2000
"""Deliveries that one operation changes: some 20 ms."""

PRUNE_INTERVAL: Final = 600.0
"""Seconds between two rounds of pruning."""

_COUNTED: Final = ("ready", "running", "dead")


class JournalLedger:
    """The journal's deliveries. Implements `Ledger`; `wakeups` wakes claims when some become due.

    Methods that return a `Future` may be called from any thread, the others on a loop.
    """

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups

    # -- reading

    async def depth(self) -> list[Depth]:
        """See `Ledger`."""
        depths: list[Depth] = []
        windows: Mapping[str, int] = dict.fromkeys(_COUNTED, 0)
        while windows:  # the first one counts all states at once: a row that changes its state is in one
            window, windows = await self._run(partial(queries.count, windows=windows))
            depths += window
        return merge_depths(depths)

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """See `Ledger`."""
        query = queries.list_query(selection)
        rows: list[DeliveryRow] = []
        position: int | None = read_positions(after or "0", 1)[0]
        window = limit + 1
        while position is not None and len(rows) < limit:
            left = limit - len(rows)
            page = partial(queries.page, query=query, after=position, limit=left, window=window)
            more, position = await self._run(page)
            rows += more
            window = min(window * 4, MAX_WINDOW)
        return DeliveryPage(rows, None if position is None else str(position))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its deliveries, or None. Raises `EventEngineUnavailable`."""
        return await self._run(lambda db: queries.history(db, event_id))

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused. Raises `EventEngineUnavailable`."""
        rows = await self._run(lambda db: db.execute("SELECT handler FROM paused").fetchall())
        return frozenset(handler for (handler,) in rows)

    def upload_history(self, upload_id: str) -> Future[dict[str, Any] | None]:
        """Return an upload with each handler's deliveries and runs, or None."""

        def operation(db: sqlite3.Connection) -> dict[str, Any] | None:
            uploads = select(db, "SELECT * FROM uploads WHERE id = ?", (upload_id,))
            if not uploads:
                return None
            events = db.execute("SELECT id FROM events WHERE upload_id = ? ORDER BY id", (upload_id,))
            deliveries = [
                delivery.fields()
                for (event,) in events.fetchall()
                for delivery in queries.deliveries(db, event)
            ]
            return {**uploads[0], "handlers": deliveries}

        return self._database.submit(operation)

    # -- changing

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`."""
        start, top = (0, await self._run(queries.newest)) if after is None else read_positions(after, 2)
        query = queries.bulk_query(verb, selection)
        matched = await self._run(lambda db: _change(db, verb, query, start, top))
        if matched.seqs and verb != "drop":
            self._wakeups.notify_all()
        return ChunkResult(len(matched.seqs), None if matched.next is None else f"{matched.next}.{top}")

    async def pause(self, handler: str) -> None:
        """See `Ledger`."""
        insert, row = "INSERT OR IGNORE INTO paused VALUES (?, ?)", (handler, time.time())
        await self._run(lambda db: db.execute(insert, row).rowcount)

    async def resume(self, handler: str) -> None:
        """See `Ledger`."""
        delete = "DELETE FROM paused WHERE handler = ?"
        await self._run(lambda db: db.execute(delete, (handler,)).rowcount)
        self._wakeups.notify_all()

    async def _run(self, operation: Operation[T]) -> T:
        try:
            return await asyncio.wrap_future(self._database.submit(operation))
        except sqlite3.Error as error:
            raise EventEngineUnavailable(f"the journal: {error}") from error

    # -- maintenance

    def check_writable(self) -> Future[None]:
        """Write a row, to check that the journal is writable."""
        return self._database.write("REPLACE INTO facts VALUES ('checked', ?)", (str(time.time()),))

    def prune(self, before: float, relayed_before: float, limit: int = 1000) -> Future[int]:
        """Delete what is done, and uploads without events, older than `before` (Unix time).

        What a remote engine has is deleted where it is older than `relayed_before`. Dead deliveries stay
        until an operator decides. Returns how many deliveries and uploads were deleted: up to `limit` of
        each.
        """
        edges = {"done": before, "relayed": relayed_before}
        return self._database.submit(lambda db: _prune(db, edges, limit))

    async def prune_periodically(self, retention: float, relayed_retention: float) -> None:
        """Prune now and every `PRUNE_INTERVAL`, until cancelled.

        What is done is deleted `retention` seconds after its end, what was relayed to a remote engine
        `relayed_retention` seconds after that.
        """
        while True:
            with contextlib.suppress(sqlite3.Error):
                now = time.time()
                while await asyncio.wrap_future(self.prune(now - retention, now - relayed_retention)):
                    pass
            await asyncio.sleep(PRUNE_INTERVAL)


def merge_depths(depths: Iterable[Depth]) -> list[Depth]:
    """Add up what several windows or ledgers counted, sorted by handler and state."""
    sums: dict[tuple[str, str], Depth] = {}
    for depth in depths:
        key = depth.handler, depth.state
        total = sums.get(key, Depth(*key, 0, depth.oldest))
        sums[key] = Depth(*key, total.count + depth.count, min(total.oldest, depth.oldest))
    return [sums[key] for key in sorted(sums)]


def _change(db: sqlite3.Connection, verb: Verb, query: LedgerQuery, after: int, top: int) -> MatchedRows:
    matched = queries.select_window(db, query, after, MAX_CHUNK, top=top, window=MAX_WINDOW)
    if verb == "drop":
        _delete(db, matched.seqs)
    else:
        _begin_round(db, matched.seqs)
    return matched


def _begin_round(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Begin a new round of attempts: no late settlement of an earlier one changes it."""
    db.execute(
        "UPDATE deliveries SET state = 'ready', attempt = 0, round = round + 1, due = :now,"
        " error = NULL, updated = :now WHERE seq IN (SELECT value FROM json_each(:seqs))",
        {"now": time.time(), "seqs": json.dumps(seqs)},
    )


def _delete(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    deleted = db.execute(
        "DELETE FROM deliveries WHERE seq IN (SELECT value FROM json_each(?)) RETURNING seq, event_id",
        (json.dumps(seqs),),
    ).fetchall()
    _delete_orphans(db, deleted)


def _delete_orphans(db: sqlite3.Connection, deleted: Sequence[tuple[int, str]]) -> None:
    """Delete the runs of deleted deliveries (seq, event id), and events without deliveries."""
    db.executemany("DELETE FROM runs WHERE delivery = ?", [(seq,) for seq, _ in deleted])
    db.executemany(
        "DELETE FROM events WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = ?1)",
        [(event_id,) for _, event_id in deleted],
    )


def _prune(db: sqlite3.Connection, edges: Mapping[str, float], limit: int) -> int:
    deleted: list[tuple[int, str]] = []
    for state, before in edges.items():
        deleted += db.execute(
            "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries"  # noqa: S608 (ours)
            f" WHERE state = '{state}' AND updated < ? LIMIT ?) RETURNING seq, event_id",
            (before, limit - len(deleted)),
        ).fetchall()
    _delete_orphans(db, deleted)
    uploads = db.execute(
        "DELETE FROM uploads WHERE id IN (SELECT id FROM uploads u WHERE committed < ?"
        " AND NOT EXISTS (SELECT 1 FROM events WHERE upload_id = u.id) LIMIT ?)",
        (edges["done"], limit),
    ).rowcount
    return len(deleted) + uploads
