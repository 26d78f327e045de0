"""The journal as a ledger: deliveries are listed, counted, changed in bulk and pruned.

Nothing here holds up the journal's thread: what is long is done in chunks, each an operation of its own,
and commits go in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
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
from gateway.events.deletions import prune_deletions
from gateway.events.held_log import find_held
from gateway.events.held_operations import prune_held
from gateway.events.ledger_queries import MAX_WINDOW, LedgerQuery, MatchedRows
from gateway.events.memory_queue import MemoryQueue
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

MAX_CHUNK: Final = 500
"""Deliveries that one operation changes: some 7 ms."""

MAX_LISTED: Final = 250
"""Deliveries that one operation lists, with their events and uploads: some 7 ms."""

MAX_PRUNED: Final = 200
"""Deliveries that one operation prunes, with their runs and events: some 5 ms."""

MAX_PRUNE_WINDOW: Final = 1000
"""Uploads that one operation examines for pruning: some 5 ms where it deletes them all."""

PRUNE_INTERVAL: Final = 600.0
"""Seconds between two rounds of pruning."""

MAX_CLOCK_STEP: Final = 60.0
"""Seconds by which the clock may be set between two rounds of pruning."""

_COUNTED: Final = ("ready", "running", "dead")

_UploadPosition = tuple[float, str]
"""Where pruning of uploads goes on: behind this time of commit and id."""


class JournalLedger:
    """The journal's deliveries. Implements `Ledger`; `wakeups` wakes claims when some become due.

    `memory` has deliveries that begin soon: those of a paused handler do not.

    Methods that return a `Future` may be called from any thread, the others on a loop.
    """

    def __init__(self, database: Database, memory: MemoryQueue, wakeups: Wakeups) -> None:
        self._database = database
        self._memory = memory
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
            left = min(limit - len(rows), MAX_LISTED)
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
        """Return an upload with each handler's deliveries and runs, or None.

        `held` is what the journal has of it as a held upload; one that was never committed has only
        this and its `handlers`.
        """

        def operation(db: sqlite3.Connection) -> dict[str, Any] | None:
            uploads = select(db, "SELECT * FROM uploads WHERE id = ?", (upload_id,))
            held = find_held(db, upload_id)
            if not uploads and held is None:
                return None
            events = db.execute("SELECT id FROM events WHERE upload_id = ? ORDER BY id", (upload_id,))
            deliveries = [
                delivery.fields()
                for (event,) in events.fetchall()
                for delivery in queries.deliveries(db, event)
            ]
            return {**(uploads[0] if uploads else {}), "held": held, "handlers": deliveries}

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

        def operation(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO paused VALUES (?, ?)", (handler, time.time()))
            self._memory.pause(handler)

        await self._run(operation)
        self._memory.give_back(handler)

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

    def wait_for_thread(self) -> Future[None]:
        """Do nothing on the journal's thread, to see that it reacts."""
        return self._database.submit(lambda db: None)

    def check_writable(self) -> Future[None]:
        """Write a row, to check that the journal is writable, and that its files are still in place."""

        def operation(db: sqlite3.Connection) -> None:
            self._database.check_files()
            db.execute("REPLACE INTO facts VALUES ('checked', ?)", (str(time.time()),))

        return self._database.submit(operation)

    async def prune(self, before: float, relayed_before: float) -> int:
        """Delete what is done, and uploads without events, older than `before` (Unix time).

        What a remote engine has is deleted where it is older than `relayed_before`. Dead deliveries stay
        until an operator decides. Returns how many deliveries, uploads, rejected uploads and records of
        deletions were deleted. Raises `EventEngineUnavailable`; what was deleted by then stays so.
        """
        count = 0
        for state, edge in (("done", before), ("relayed", relayed_before)):
            while pruned := await self._run(partial(_prune_deliveries, state=state, before=edge)):
                count += pruned
        for prune in (prune_deletions, prune_held):
            while pruned := await self._run(partial(prune, before=before)):
                count += pruned
        after: _UploadPosition | None = (-math.inf, "")
        while after is not None:
            pruned, after = await self._run(partial(_prune_uploads, before=before, after=after))
            count += pruned
        return count

    async def prune_periodically(self, retention: float, relayed_retention: float) -> None:
        """Prune every `PRUNE_INTERVAL`, until cancelled.

        What is done is deleted `retention` seconds after its end, what was relayed to a remote engine
        `relayed_retention` seconds after that. A round in which the clock was set is left out, and none
        is at the start, when the clock may be about to be.
        """
        while True:
            offset = time.time() - time.monotonic()
            await asyncio.sleep(PRUNE_INTERVAL)
            now = time.time()
            if abs(now - time.monotonic() - offset) > MAX_CLOCK_STEP:
                continue
            with contextlib.suppress(EventEngineUnavailable):
                await self.prune(now - retention, now - relayed_retention)


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
        "UPDATE deliveries SET state = 'ready', attempt = 0, round = round + 1, due = 0,"
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


def _prune_deliveries(db: sqlite3.Connection, state: str, before: float) -> int:
    """Delete deliveries that ended in `state` before `before`; return how many, 0 for no more."""
    deleted = db.execute(
        "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries"  # noqa: S608 (ours)
        f" WHERE state = '{state}' AND updated < ? LIMIT ?) RETURNING seq, event_id",
        (before, MAX_PRUNED),
    ).fetchall()
    _delete_orphans(db, deleted)
    return len(deleted)


def _prune_uploads(
    db: sqlite3.Connection, before: float, after: _UploadPosition
) -> tuple[int, _UploadPosition | None]:
    """Delete uploads without events among the next ones, the oldest first.

    Returns how many, and where the next window begins. Those with events are passed over once a round:
    deliveries that are dead may keep many for a long time.
    """
    window = db.execute(
        "SELECT committed, id, EXISTS (SELECT 1 FROM events WHERE upload_id = u.id) FROM uploads u"
        " WHERE (committed, id) > (?, ?) AND committed < ? ORDER BY committed, id LIMIT ?",
        (*after, before, MAX_PRUNE_WINDOW),
    ).fetchall()
    unneeded = [(upload_id,) for _, upload_id, has_events in window if not has_events]
    db.executemany("DELETE FROM uploads WHERE id = ?", unneeded)
    return len(unneeded), window[-1][:2] if len(window) == MAX_PRUNE_WINDOW else None
