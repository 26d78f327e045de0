"""The tables in PostgreSQL, and the statements that write and read them.

Items are stored as their text (`json`, not `jsonb`, which turns 1e22 into an integer). Texts sort
by code point whatever the database's language (`COLLATE "C"`).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from gateway.records.items import MAX_TEXT, Value
from gateway.records.query import MAX_PAGE, ItemRow, Query

TABLES_EXIST: Final = "SELECT to_regclass('gateway_record_indexes') IS NOT NULL"
SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS gateway_records (
        collection text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, item json NOT NULL,
        PRIMARY KEY (collection, key))""",
    """CREATE TABLE IF NOT EXISTS gateway_record_indexes (
        collection text NOT NULL, field text NOT NULL, PRIMARY KEY (collection, field))""",
)
PUT: Final = """INSERT INTO gateway_records VALUES ($1, $2, $3)
    ON CONFLICT (collection, key) DO UPDATE SET item = excluded.item"""
INSERT: Final = (
    "INSERT INTO gateway_records VALUES ($1, $2, $3) ON CONFLICT (collection, key) DO NOTHING"
)
REPLACE: Final = """UPDATE gateway_records SET item = $3
    WHERE collection = $1 AND key = $2 AND item::text = $4"""
GET: Final = "SELECT item::text FROM gateway_records WHERE collection = $1 AND key = $2"
DELETE: Final = "DELETE FROM gateway_records WHERE collection = $1 AND key = $2"
FIELDS: Final = "SELECT field FROM gateway_record_indexes WHERE collection = $1"
ADD_FIELD: Final = "INSERT INTO gateway_record_indexes VALUES ($1, $2)"

_NUMBER: Final = "(CASE json_typeof(item->'{0}') WHEN 'number' THEN (item->>'{0}')::float8 END)"
_TEXT: Final = (
    "((CASE WHEN json_typeof(item->'{0}') = 'string' AND octet_length(item->>'{0}') <= "
    + str(MAX_TEXT)
    + """ THEN item->>'{0}' END) COLLATE "C")"""
)
_KINDS: Final[dict[type, tuple[str, str]]] = {float: (_NUMBER, "float8"), str: (_TEXT, "text")}


def indexes(collection: str, field: str) -> list[str]:
    """Return the statements that make the indexes of a field: one for numbers, one for texts.

    Both names have been checked: they hold no character that SQL gives a meaning.
    """
    values = [template.format(field) for template, _ in _KINDS.values()]
    return [
        f"CREATE INDEX IF NOT EXISTS {name} ON gateway_records ({value}, key)"
        f" WHERE collection = '{collection}' AND {value} IS NOT NULL"
        for name, value in zip(names(collection, field), values, strict=True)
    ]


def names(collection: str, field: str) -> list[str]:
    """Return the names of the indexes of a field: a hash, for PostgreSQL takes 63 bytes."""
    places = [f"{collection} {field} {cast}".encode() for _, cast in _KINDS.values()]
    digests = [hashlib.blake2b(place, digest_size=10).hexdigest() for place in places]
    return [f"gateway_records_{digest}" for digest in digests]


async def select(db: Any, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
    """See `RecordStore.select`; `db` is a connection. The indexes must exist."""
    rows: list[ItemRow] = []
    size = 0
    for kind in _kinds(query):
        left, max_bytes = query.limit - len(rows), MAX_PAGE - size
        full = left <= 0 or max_bytes <= 0
        statement, arguments = page(collection, query, kind, 1 if full else left + 1, max(max_bytes, 1))
        fetched = await db.fetch(statement, *arguments)
        if full and fetched:
            return rows, True
        rows += [ItemRow(key, item, value) for value, key, item, _ in fetched[:left]]
        size = sum(len(row.text.encode()) for row in rows)
        if fetched and fetched[0]["total"] > len(fetched[:left]):
            return rows, True
    return rows, False


def page(
    collection: str, query: Query, kind: type | None, limit: int, max_bytes: int
) -> tuple[str, list[Any]]:
    """Return the statement for a page of one kind of values, at most `limit` rows or `max_bytes` bytes.

    It returns value, key, item, and the count of rows before they were cut to `max_bytes`.
    """
    template, cast = _KINDS[kind] if kind else ("NULL", "text")
    value = template.format(query.index)
    where = _WhereClause(collection)
    where.prefix(query)
    if kind is not None:
        where.range(query, value, cast)
    where.after(query, kind, value, cast)
    direction = "DESC" if query.descending else "ASC"
    order = f"ORDER BY value {direction}, key {direction}" if kind else f"ORDER BY key {direction}"
    inner = order.replace("value", value)
    return (
        f"WITH matched AS (SELECT {value} AS value, key, item::text AS item FROM gateway_records"  # noqa: S608
        f" WHERE {' AND '.join(where.clauses)} {inner} LIMIT {where.bind(limit)}::int)"
        " SELECT value, key, item, total FROM (SELECT *, count(*) OVER () AS total,"
        f" sum(octet_length(item)) OVER ({order}) AS size FROM matched) AS cut"
        f" WHERE size - octet_length(item) < {where.bind(max_bytes)}::int {order}",
        where.arguments,
    )


def _kinds(query: Query) -> list[type | None]:
    """Return the order in which numbers and texts are selected."""
    if query.index is None:
        return [None]
    kinds: list[type | None] = [float, str] if query.kind is None else [query.kind]
    if query.descending:
        kinds.reverse()
    if query.after is not None:
        last = str if isinstance(query.after[0], str) else float
        kinds = kinds[kinds.index(last) :]
    return kinds


class _WhereClause:
    """The clauses of a WHERE, and the values they are bound to."""

    def __init__(self, collection: str) -> None:
        # A literal, not a bound value: otherwise no partial index fits.
        self.clauses = [f"collection = '{collection}'"]
        self.arguments: list[Any] = []

    def bind(self, value: Value | int) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def prefix(self, query: Query) -> None:
        if query.prefix:
            self.clauses.append(f"key >= {self.bind(query.prefix)}")
            if query.prefix_end is not None:
                self.clauses.append(f"key < {self.bind(query.prefix_end)}")

    def range(self, query: Query, value: str, cast: str) -> None:
        self.clauses.append(f"{value} IS NOT NULL")
        for bound, sign in ((query.equals, "="), (query.since, ">="), (query.until, "<")):
            if bound is not None:
                self.clauses.append(f"{value} {sign} {self.bind(bound)}::{cast}")

    def after(self, query: Query, kind: type | None, value: str, cast: str) -> None:
        if query.after is None:
            return
        sign = "<" if query.descending else ">"
        last, key = query.after
        if kind is None:
            self.clauses.append(f"key {sign} {self.bind(key)}")
        elif last is not None and isinstance(last, kind):
            self.clauses.append(f"({value}, key) {sign} ({self.bind(last)}::{cast}, {self.bind(key)})")
