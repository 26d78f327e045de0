"""What the journal tells those who watch, and how they steer it.

The rule: nothing here holds up the journal's thread: whatever is long is done in pieces, each an
operation of its own, and commits go in between. `looking` knows the statements that read. May
import `protocols`, `steps`, `looking`, `database`, `errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Final

from gateway.domain.sqlite_writer import Operation, T
from gateway.errors import EventEngineUnavailable
from gateway.events import ledger_queries as looking
from gateway.events.database import Database
from gateway.events.ledger_queries import WINDOW, LedgerQuery, MatchedRows
from gateway.events.protocols import (
    ChunkResult,
    DeliveryPage,
    DeliveryRow,
    Depth,
    EventHistory,
    Selection,
    Verb,
)

CHUNK: Final = 2000
"""Deliveries that one operation changes, at the most: some 20 ms."""

PRUNE_EVERY: Final = 600.0
"""Seconds between two rounds of pruning."""

_COUNTED: Final = ("ready", "running", "dead")


class JournalLedger:
    """The journal's deliveries, from the watcher's point of view. Implements `Ledger`.

    `woken()` is called, in any thread, when there may be something to claim that was not there.
    Methods that return a `Future` may be called from any thread, the others on a loop.
    """

    def __init__(self, database: Database, woken: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._woken = woken

    # -- seeing

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state. Raises `EventEngineUnavailable`."""
        told: list[Depth] = []
        windows: Mapping[str, int] = dict.fromkeys(_COUNTED, 0)
        while windows:  # the first look is at all states at once: what changes its own is in one of them
            some, windows = await self._ask(_counting(windows))
            told += some
        return merged(told)

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`, oldest first.

        Raises `EventEngineUnavailable`, `ValueError` for a cursor that is none.
        """
        search = looking.listed(selection)
        rows: list[DeliveryRow] = []
        behind: int | None = _number(after or "0")
        window = limit + 1
        while behind is not None and len(rows) < limit:
            some, behind = await self._ask(_paging(search, behind, limit - len(rows), window))
            rows += some
            window = min(window * 4, WINDOW)
        return DeliveryPage(rows, None if behind is None else str(behind))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its stories, or None. Raises `EventEngineUnavailable`."""
        return await self._ask(lambda db: looking.history(db, event_id))

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused. Raises `EventEngineUnavailable`."""
        rows = await self._ask(lambda db: db.execute("SELECT handler FROM paused").fetchall())
        return frozenset(handler for (handler,) in rows)

    def story(self, upload_id: str) -> Future[dict[str, Any] | None]:
        """Return an upload with each handler's deliveries and runs, or None."""

        def operation(db: sqlite3.Connection) -> dict[str, Any] | None:
            cursor = db.execute("SELECT * FROM uploads WHERE id = ?", (upload_id,))
            row = cursor.fetchone()
            if row is None:
                return None
            events = db.execute("SELECT id FROM events WHERE upload_id = ? ORDER BY id", (upload_id,))
            stories = [story for (event,) in events.fetchall() for story in looking.stories(db, event)]
            names = [column[0] for column in cursor.description]
            told = [{**asdict(story.row), "runs": list(map(asdict, story.runs))} for story in stories]
            return {**dict(zip(names, row, strict=True)), "handlers": told}

        return self._database.submit(operation)

    # -- steering

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`."""
        behind, top = (0, await self._ask(looking.newest)) if after is None else _numbers(after)
        operation = _changing(verb, looking.touched(verb, selection), behind, top)
        found = await self._ask(operation)
        if found.seqs and verb != "drop":
            self._woken()
        return ChunkResult(len(found.seqs), None if found.next is None else f"{found.next}.{top}")

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler until `resume`; survives restarts. Raises
        `EventEngineUnavailable`."""
        row = (handler, time.time())
        await self._ask(
            lambda db: db.execute("INSERT OR IGNORE INTO paused VALUES (?, ?)", row).rowcount
        )

    async def resume(self, handler: str) -> None:
        """Claim again. Raises `EventEngineUnavailable`."""
        await self._ask(
            lambda db: db.execute("DELETE FROM paused WHERE handler = ?", (handler,)).rowcount
        )
        self._woken()

    async def _ask(self, operation: Operation[T]) -> T:
        try:
            return await asyncio.wrap_future(self._database.submit(operation))
        except sqlite3.Error as fault:
            raise EventEngineUnavailable(f"the journal: {fault}") from fault

    # -- keeping house

    def check(self) -> Future[None]:
        """Write something, to know that the journal can."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute("REPLACE INTO facts VALUES ('checked', ?)", (str(time.time()),))

        return self._database.submit(operation)

    def prune(self, before: float, relayed_before: float, limit: int = 1000) -> Future[int]:
        """Delete what is done, and quiet uploads, older than `before` (Unix time).

        What a remote engine was given goes where it is older than `relayed_before`. Dead ones stay
        until somebody decides. Returns how many deliveries and uploads went: `limit` of each at the
        most.
        """
        edges = {"done": before, "relayed": relayed_before}
        return self._database.submit(lambda db: _prune(db, edges, limit))

    async def keep_house(self, retention: float, relayed_retention: float) -> None:
        """Prune now and every ten minutes, until cancelled.

        What is done goes `retention` seconds after its end, what was handed over to a remote engine
        `relayed_retention` seconds after that.
        """
        while True:
            with contextlib.suppress(sqlite3.Error):
                now = time.time()
                while await asyncio.wrap_future(self.prune(now - retention, now - relayed_retention)):
                    pass
            await asyncio.sleep(PRUNE_EVERY)


def merged(depths: Iterable[Depth]) -> list[Depth]:
    """Add up what several windows or ledgers counted, sorted by handler and state."""
    sums: dict[tuple[str, str], Depth] = {}
    for depth in depths:
        key = depth.handler, depth.state
        known = sums.get(key, Depth(*key, 0, depth.oldest))
        sums[key] = Depth(*key, known.count + depth.count, min(known.oldest, depth.oldest))
    return [sums[key] for key in sorted(sums)]


def _counting(windows: Mapping[str, int]) -> Operation[tuple[list[Depth], dict[str, int]]]:
    return lambda db: looking.count(db, windows)


def _paging(
    search: LedgerQuery, after: int, limit: int, window: int
) -> Operation[tuple[list[DeliveryRow], int | None]]:
    def operation(db: sqlite3.Connection) -> tuple[list[DeliveryRow], int | None]:
        top = looking.newest(db)
        found = looking.find(db, search, after, limit, top=top, window=window)
        return looking.rows(db, found.seqs), found.next

    return operation


def _changing(verb: Verb, search: LedgerQuery, after: int, top: int) -> Operation[MatchedRows]:
    def operation(db: sqlite3.Connection) -> MatchedRows:
        found = looking.find(db, search, after, CHUNK, top=top, window=WINDOW)
        if verb == "drop":
            _delete(db, found.seqs)
        else:
            _begin_again(db, found.seqs)
        return found

    return operation


def _begin_again(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """A new round of attempts: nothing that is still said of an earlier one settles it."""
    db.execute(
        "UPDATE deliveries SET state = 'ready', attempt = 0, round = round + 1, due = :now,"
        " error = NULL, updated = :now WHERE seq IN (SELECT value FROM json_each(:seqs))",
        {"now": time.time(), "seqs": json.dumps(seqs)},
    )


def _delete(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    gone = db.execute(
        "DELETE FROM deliveries WHERE seq IN (SELECT value FROM json_each(?)) RETURNING seq, event_id",
        (json.dumps(seqs),),
    ).fetchall()
    _forget(db, gone)


def _forget(db: sqlite3.Connection, gone: Sequence[tuple[int, str]]) -> None:
    """Delete what hung on deliveries (seq, event id) that are gone."""
    db.executemany("DELETE FROM runs WHERE delivery = ?", [(seq,) for seq, _ in gone])
    db.executemany(
        "DELETE FROM events WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = ?1)",
        [(event_id,) for _, event_id in gone],
    )


def _prune(db: sqlite3.Connection, edges: Mapping[str, float], limit: int) -> int:
    gone: list[tuple[int, str]] = []
    for state, before in edges.items():
        gone += db.execute(
            "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries"  # noqa: S608 (ours)
            f" WHERE state = '{state}' AND updated < ? LIMIT ?) RETURNING seq, event_id",
            (before, limit - len(gone)),
        ).fetchall()
    _forget(db, gone)
    quiet = db.execute(
        "DELETE FROM uploads WHERE id IN (SELECT id FROM uploads u WHERE committed < ?"
        " AND NOT EXISTS (SELECT 1 FROM events WHERE upload_id = u.id) LIMIT ?)",
        (edges["done"], limit),
    ).rowcount
    return len(gone) + quiet


def _number(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise ValueError("this is no cursor of ours")
    return int(cursor)


def _numbers(cursor: str) -> tuple[int, int]:
    behind, _, top = cursor.partition(".")
    return _number(behind), _number(top)
