"""All rows of one journal copied into another, as often as need be.

The rule: a row that is there already stays as it is, so a copy that broke off is simply repeated.
Only the numbers of deliveries change: they belong to the file. Blocking.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from gateway.events.database import Database

_CHUNK: Final = 500

_NAMED: Final = (("uploads", "id"), ("events", "id"), ("paused", "handler"))
"""Tables whose rows keep their keys, each with that key. Deliveries and runs come after them."""

_Row = dict[str, Any]


def copy(source: Database, target: Database) -> int:
    """Copy everything; durable when it returns. Returns how many deliveries `source` holds."""
    for table, key in _NAMED:
        for rows in _chunks(source, table, key, ""):
            target.submit(partial(_insert, table=table, rows=rows)).result()
    deliveries = 0
    for rows in _chunks(source, "deliveries", "seq", 0):
        runs = source.submit(partial(_runs, deliveries=rows)).result()
        target.submit(partial(_deliver, deliveries=rows, runs=runs)).result()
        deliveries += len(rows)
    return deliveries


def copy_paused(source: Database, target: Database) -> int:
    """Copy which handlers are paused, durably; return how many are."""
    paused = list(_chunks(source, "paused", "handler", ""))
    for rows in paused:
        target.submit(partial(_insert, table="paused", rows=rows)).result()
    return sum(map(len, paused))


def _chunks(source: Database, table: str, key: str, after: Any) -> Iterator[list[_Row]]:
    statement = f"SELECT * FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {_CHUNK}"  # noqa: S608 (names are ours)
    while rows := source.submit(partial(_rows, statement=statement, values=(after,))).result():
        yield rows
        after = rows[-1][key]


def _runs(db: sqlite3.Connection, deliveries: Sequence[_Row]) -> list[_Row]:
    return [
        {**run, "event_id": delivery["event_id"], "handler": delivery["handler"]}
        for delivery in deliveries
        for run in _rows(db, "SELECT * FROM runs WHERE delivery = ?", (delivery["seq"],))
    ]


def _deliver(db: sqlite3.Connection, deliveries: Sequence[_Row], runs: Sequence[_Row]) -> None:
    _insert(db, "deliveries", [{k: v for k, v in row.items() if k != "seq"} for row in deliveries])
    for run in runs:
        event_id, handler = run.pop("event_id"), run.pop("handler")
        (run["delivery"],) = db.execute(
            "SELECT seq FROM deliveries WHERE event_id = ? AND handler = ?", (event_id, handler)
        ).fetchone()
    _insert(db, "runs", runs)


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[_Row]) -> None:
    if rows:
        names = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        db.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({values})", rows)  # noqa: S608 (names are ours)


def _rows(db: sqlite3.Connection, statement: str, values: Sequence[Any]) -> list[_Row]:
    cursor = db.execute(statement, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
