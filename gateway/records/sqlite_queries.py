"""The file `records.db`: its tables, and the statements that write and read them.

It has no WAL: several processes have the file open, and SQLite before 3.51.3 can corrupt a WAL that two
connections checkpoint at once.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from gateway.records.items import EncodedItem, Value, values
from gateway.records.query import MAX_PAGE, ItemRow, Query
from gateway.records.store import MAX_INDEXES

APPLICATION: Final = 0x67775263
VERSION: Final = 1
SCHEMA: Final = (
    """CREATE TABLE items (
        collection TEXT NOT NULL, key TEXT NOT NULL, item TEXT NOT NULL,
        PRIMARY KEY (collection, key))""",
    """CREATE TABLE indexes (
        collection TEXT NOT NULL, field TEXT NOT NULL,
        PRIMARY KEY (collection, field)) WITHOUT ROWID""",
    # `value` has no type: numbers stay doubles and come before texts.
    """CREATE TABLE entries (
        collection TEXT NOT NULL, field TEXT NOT NULL, value NOT NULL, key TEXT NOT NULL,
        PRIMARY KEY (collection, field, value, key)) WITHOUT ROWID""",
    f"PRAGMA application_id={APPLICATION}",
    f"PRAGMA user_version={VERSION}",
)


# -- writing, each within a transaction


def put(
    db: sqlite3.Connection, collection: str, item: EncodedItem, only_new: bool, replaces: str | None
) -> bool:
    """See `RecordStore.put`."""
    before = get(db, collection, item.key)
    if (only_new and before is not None) or (replaces is not None and before != replaces):
        return False
    _remove_entries(db, collection, item.key, before)
    db.execute(
        "INSERT INTO items VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET item = excluded.item",
        (collection, item.key, item.text),
    )
    entries = _entries(db, collection, item.key, item.values)
    db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", entries)
    return True


def delete(db: sqlite3.Connection, collection: str, key: str) -> bool:
    """See `RecordStore.delete`."""
    before = get(db, collection, key)
    _remove_entries(db, collection, key, before)
    db.execute("DELETE FROM items WHERE collection = ? AND key = ?", (collection, key))
    return before is not None


def make_index(db: sqlite3.Connection, collection: str, field: str) -> None:
    """Index a field of all items, unless it is indexed. Raises `ValueError` for one too many."""
    fields = indexes(db, collection)
    if field in fields:
        return
    if len(fields) >= MAX_INDEXES:
        raise ValueError(f"index={field!r}: {MAX_INDEXES} fields are indexed already: {sorted(fields)}")
    db.execute("INSERT INTO indexes VALUES (?, ?)", (collection, field))
    items = db.execute("SELECT key, item FROM items WHERE collection = ?", (collection,))
    entries = ((key, values(json.loads(text)).get(field)) for key, text in items)
    db.executemany(
        "INSERT INTO entries VALUES (?, ?, ?, ?)",
        ((collection, field, value, key) for key, value in entries if value is not None),
    )


def _remove_entries(db: sqlite3.Connection, collection: str, key: str, text: str | None) -> None:
    """Remove an item that is about to be deleted or replaced from its indexes."""
    if text is not None:
        db.executemany(
            "DELETE FROM entries WHERE collection = ? AND field = ? AND value = ? AND key = ?",
            _entries(db, collection, key, values(json.loads(text))),
        )


def _entries(
    db: sqlite3.Connection, collection: str, key: str, fields: dict[str, Value]
) -> list[tuple[str, str, Value, str]]:
    indexed = indexes(db, collection) & fields.keys()
    return [(collection, field, fields[field], key) for field in indexed]


# -- reading


def get(db: sqlite3.Connection, collection: str, key: str) -> str | None:
    """See `RecordStore.get`."""
    cursor = db.execute("SELECT item FROM items WHERE collection = ? AND key = ?", (collection, key))
    return next((item for (item,) in cursor), None)


def indexes(db: sqlite3.Connection, collection: str) -> set[str]:
    """Return the fields that are indexed."""
    rows = db.execute("SELECT field FROM indexes WHERE collection = ?", (collection,))
    return {field for (field,) in rows}


def select(db: sqlite3.Connection, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
    """See `RecordStore.select`; the index must exist."""
    by = _by_key if query.index is None else _by_index
    cursor = db.execute(*by(collection, query))
    rows: list[ItemRow] = []
    size = 0
    with contextlib.closing(cursor):
        for key, text, value in cursor:
            if len(rows) == query.limit or size >= MAX_PAGE:
                return rows, True
            rows.append(ItemRow(key, text, value))
            size += len(text.encode())
    return rows, False


def _by_key(collection: str, query: Query) -> tuple[str, list[Any]]:
    clauses = [("collection = ?", collection), *_prefix("key", query)]
    if query.after is not None:
        clauses.append((f"key {_beyond(query)} ?", query.after[1]))
    return (
        f"SELECT key, item, NULL FROM items WHERE {_and(clauses)}"  # noqa: S608 (all values are bound)
        f" ORDER BY key {_direction(query)} LIMIT ?",
        [*(value for _, value in clauses), query.limit + 1],
    )


def _by_index(collection: str, query: Query) -> tuple[str, list[Any]]:
    clauses = [("e.collection = ?", collection), ("e.field = ?", query.index)]
    clauses += [*_range(query), *_prefix("e.key", query)]
    arguments: list[Any] = [value for _, value in clauses]
    where = _and(clauses)
    if query.after is not None:
        where += f" AND (e.value, e.key) {_beyond(query)} (?, ?)"
        arguments += query.after
    direction = _direction(query)
    # CROSS JOIN keeps SQLite from turning the two around.
    return (
        "SELECT e.key, i.item, e.value FROM entries e CROSS JOIN items i"  # noqa: S608
        " ON i.collection = e.collection AND i.key = e.key"
        f" WHERE {where} ORDER BY e.value {direction}, e.key {direction} LIMIT ?",
        [*arguments, query.limit + 1],
    )


def _range(query: Query) -> Iterator[tuple[str, Any]]:
    if query.equals is not None:
        yield "e.value = ?", query.equals
        return
    if query.since is not None:
        yield "e.value >= ?", query.since
    elif query.kind is str:
        yield "e.value >= ?", ""
    if query.until is not None:
        yield "e.value < ?", query.until
    elif query.kind is float:
        yield "e.value < ?", ""


def _prefix(column: str, query: Query) -> Iterator[tuple[str, Any]]:
    if query.prefix:
        yield f"{column} >= ?", query.prefix
        if query.prefix_end is not None:
            yield f"{column} < ?", query.prefix_end


def _and(clauses: list[tuple[str, Any]]) -> str:
    return " AND ".join(clause for clause, _ in clauses)


def _beyond(query: Query) -> str:
    return "<" if query.descending else ">"


def _direction(query: Query) -> str:
    return "DESC" if query.descending else "ASC"
