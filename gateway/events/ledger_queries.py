"""The statements that read the journal's tables for the ledger.

Every function reads a bounded number of rows, because no upload can commit while it runs. Large tables
are searched in windows, by `seq`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.events.protocols import (
    STATES,
    VERB_STATES,
    Attempt,
    DeliveryHistory,
    DeliveryRow,
    Depth,
    EventHistory,
    Selection,
    Verb,
)

MAX_WINDOW: Final = 8000
"""Rows that one operation reads: some 7 ms."""

MAX_RUNS: Final = 100
"""Runs of a delivery that are listed: the latest."""

_IS: Final[Mapping[str, str]] = {
    "ready": "+state = 'ready' AND due <= :now",
    "delayed": "+state = 'ready' AND due > :now",
    "running": "+state = 'running'",
    "dead": "+state = 'dead'",
    "done": "+state = 'done'",
    "relayed": "+state = 'relayed'",
}
"""The condition of each state.

The `+` keeps SQLite from reading all that is done, by the index of what has ended, for each window.
"""

_LISTED: Final = tuple(state for state in STATES if state != "relayed")
"""What a page lists without a state. The engine that has relayed deliveries lists them."""

_KEPT_AS: Final[Mapping[str, str]] = {
    "ready": "ready",
    "delayed": "ready",
    "running": "running",
    "dead": "dead",
}
"""States whose rows the index of the unfinished finds, by their name in the table."""

_SHOWN: Final = "CASE WHEN d.state = 'ready' AND d.due > :now THEN 'delayed' ELSE d.state END"
_ROW: Final = (
    "SELECT d.event_id, e.upload_id, d.handler, e.type, coalesce(u.path, e.path),"  # noqa: S608 (ours)
    f" {_SHOWN}, d.attempt, d.error, d.created, max(d.due, d.created), d.result, d.seq FROM deliveries d"
    " JOIN events e ON e.id = d.event_id LEFT JOIN uploads u ON u.id = e.upload_id"
)


@dataclass(slots=True, frozen=True)
class LedgerQuery:
    """A selection in SQL: `path` leads to candidates, `condition` filters them."""

    path: str
    condition: str
    values: Mapping[str, Any]


class MatchedRows(NamedTuple):
    """The `seq`s that match, in order, and the one to continue behind (None: nothing is left)."""

    seqs: list[int]
    next: int | None


def list_query(selection: Selection) -> LedgerQuery:
    """Return the query of what a page lists."""
    return _query(selection, (selection.state,) if selection.state else _LISTED)


def bulk_query(verb: Verb, selection: Selection) -> LedgerQuery:
    """Return the query of what `verb` may change."""
    states = [state for state in VERB_STATES[verb] if selection.state in {None, state}]
    # What a remote engine has counts as done.
    return _query(selection, [*states, "relayed"] if "done" in states else states)


def _query(selection: Selection, states: Sequence[str]) -> LedgerQuery:
    condition = "(" + (" OR ".join(_IS[state] for state in states) or "FALSE") + ")"
    if selection.handler is not None:
        condition += " AND handler = :handler"
    if selection.since is not None:
        condition += " AND created >= :since"
    kept_as = {_KEPT_AS.get(state) for state in states}
    if selection.events:
        path = "deliveries WHERE event_id IN (SELECT value FROM json_each(:events))"
    elif kept_as == {"dead"} and selection.handler is not None:
        path = "deliveries INDEXED BY deliveries_dead WHERE state = 'dead' AND handler = :handler"
    elif len(kept_as) == 1 and None not in kept_as:
        # A literal: otherwise SQLite does not see that the index has all of them.
        path = f"deliveries INDEXED BY deliveries_unfinished WHERE state = '{kept_as.pop()}'"
    else:
        path = "deliveries WHERE TRUE"
    values = {
        "handler": selection.handler,
        "since": selection.since,
        "events": json.dumps(selection.events),
        "now": time.time(),
    }
    return LedgerQuery(path, condition, values)


def select_window(
    db: sqlite3.Connection, query: LedgerQuery, after: int, limit: int, *, top: int, window: int
) -> MatchedRows:
    """Search `window` candidates with `after` < seq <= `top` for up to `limit` that match."""
    values = {**query.values, "after": after, "top": top, "window": window, "limit": limit}
    edge, candidates = db.execute(
        f"SELECT max(seq), count(*) FROM (SELECT seq FROM {query.path}"  # noqa: S608 (ours)
        " AND seq > :after AND seq <= :top ORDER BY seq LIMIT :window)",
        values,
    ).fetchone()
    if not candidates:
        return MatchedRows([], None)
    rows = db.execute(
        f"SELECT seq FROM {query.path} AND seq > :after AND seq <= :edge AND {query.condition}"  # noqa: S608
        " ORDER BY seq LIMIT :limit",
        {**values, "edge": edge},
    ).fetchall()
    seqs = [seq for (seq,) in rows]
    if len(seqs) == limit and seqs[-1] < edge:
        return MatchedRows(seqs, seqs[-1])
    return MatchedRows(seqs, edge if candidates == window else None)


def page(
    db: sqlite3.Connection, query: LedgerQuery, after: int, limit: int, window: int
) -> tuple[list[DeliveryRow], int | None]:
    """Return up to `limit` rows of the next `window` candidates, and the position to continue behind."""
    matched = select_window(db, query, after, limit, top=newest(db), window=window)
    return rows(db, matched.seqs), matched.next


def newest(db: sqlite3.Connection) -> int:
    """Return the greatest `seq`, 0 in an empty journal."""
    (seq,) = db.execute("SELECT max(seq) FROM deliveries").fetchone()
    return seq or 0


def rows(db: sqlite3.Connection, seqs: Sequence[int]) -> list[DeliveryRow]:
    """Return deliveries in the order of `seq`."""
    cursor = db.execute(
        f"{_ROW} WHERE d.seq IN (SELECT value FROM json_each(:seqs)) ORDER BY d.seq",  # noqa: S608
        {"now": time.time(), "seqs": json.dumps(seqs)},
    )
    return [DeliveryRow(*columns[:-2]) for columns in cursor]


def history(db: sqlite3.Connection, event_id: str) -> EventHistory | None:
    """Return an event with its deliveries, sorted by handler."""
    row = db.execute(
        "SELECT e.id, e.type, e.upload_id, coalesce(u.path, e.path), e.created, e.body FROM events e"
        " LEFT JOIN uploads u ON u.id = e.upload_id WHERE e.id = ?",
        (event_id,),
    ).fetchone()
    if row is None:
        return None
    id_, kind, upload_id, path, created, body = row
    return EventHistory(id_, kind, upload_id, path, created, json.loads(body), deliveries(db, event_id))


def deliveries(db: sqlite3.Connection, event_id: str) -> list[DeliveryHistory]:
    """Return the deliveries of an event with their latest runs, sorted by handler."""
    matched = db.execute(
        f"{_ROW} WHERE d.event_id = :id ORDER BY d.handler", {"now": time.time(), "id": event_id}
    ).fetchall()
    return [
        DeliveryHistory(DeliveryRow(*columns), _runs(db, seq), json.loads(result or "null"))
        for *columns, result, seq in matched
    ]


def _runs(db: sqlite3.Connection, delivery: int) -> list[Attempt]:
    latest = db.execute(
        "SELECT attempt, node, ended, duration, outcome, error FROM runs WHERE delivery = ?"
        " ORDER BY ended DESC, attempt DESC LIMIT ?",
        (delivery, MAX_RUNS),
    ).fetchall()
    return [Attempt(*columns) for columns in reversed(latest)]


def count(db: sqlite3.Connection, windows: Mapping[str, int]) -> tuple[list[Depth], dict[str, int]]:
    """Count the unfinished: of each state of the table, a window behind the given `seq`.

    Returns also the states of which there is more, with where their next window begins.
    """
    depths: list[Depth] = []
    remaining: dict[str, int] = {}
    for state, after in windows.items():
        window, position = _count_state(db, state, after)
        depths += window
        if position is not None:
            remaining[state] = position
    return depths, remaining


def _count_state(db: sqlite3.Connection, state: str, after: int) -> tuple[list[Depth], int | None]:
    groups = db.execute(
        "SELECT handler, shown, count(*), min(created), max(seq) FROM"  # noqa: S608 (the state is ours)
        f" (SELECT handler, {_SHOWN} AS shown, created, seq FROM deliveries d"
        f" INDEXED BY deliveries_unfinished WHERE state = '{state}' AND seq > :after"
        " ORDER BY seq LIMIT :window) GROUP BY handler, shown",
        {"now": time.time(), "after": after, "window": MAX_WINDOW},
    ).fetchall()
    depths = [Depth(*columns[:-1]) for columns in groups]
    full = sum(depth.count for depth in depths) == MAX_WINDOW
    return depths, max(columns[-1] for columns in groups) if full else None
