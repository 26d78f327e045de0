"""The tables of quotas, and operations on them that are written once for SQLite and PostgreSQL.

An operation is a generator: it yields statements, gets their rows, and returns its result. All of it
is one transaction. `Lock` comes before what it protects is read; where transactions that write exclude
each other anyway, as in SQLite, it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

Rows = list[tuple[Any, ...]]

SCHEMA: Final = (
    # What is counted of each key: what is stored, and what uploads on their way have reserved.
    """CREATE TABLE IF NOT EXISTS quota_usage (
        key TEXT PRIMARY KEY, bytes BIGINT NOT NULL, files BIGINT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS quota_usage_by_bytes ON quota_usage (bytes)",
    "CREATE INDEX IF NOT EXISTS quota_usage_by_files ON quota_usage (files)",
    # Every stored file that counts: which version of it, who it counts for (JSON), and the keys (JSON).
    """CREATE TABLE IF NOT EXISTS quota_files (
        place TEXT NOT NULL, path TEXT NOT NULL, upload_id TEXT NOT NULL, version TEXT NOT NULL,
        bytes BIGINT NOT NULL, owner TEXT NOT NULL, keys TEXT NOT NULL, seen BIGINT NOT NULL,
        PRIMARY KEY (place, path)
    )""",
    # Every upload on its way that counts. shared: it will replace what its path holds. stale: what its
    # path holds may have changed since somebody looked. day: that of its bytes a day.
    """CREATE TABLE IF NOT EXISTS quota_reservations (
        upload_id TEXT PRIMARY KEY, place TEXT NOT NULL, node TEXT NOT NULL, slot BIGINT NOT NULL,
        path TEXT NOT NULL, shared BIGINT NOT NULL, stale BIGINT NOT NULL, bytes BIGINT NOT NULL,
        day BIGINT NOT NULL, owner TEXT NOT NULL, keys TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS quota_reservations_of_path ON quota_reservations (place, path)",
    "CREATE INDEX IF NOT EXISTS quota_reservations_of_slot ON quota_reservations (node, slot)",
    # What was uploaded on a day of UTC, uploads on their way included.
    """CREATE TABLE IF NOT EXISTS quota_days (
        key TEXT NOT NULL, day BIGINT NOT NULL, bytes BIGINT NOT NULL, PRIMARY KEY (key, day)
    )""",
    "CREATE INDEX IF NOT EXISTS quota_days_by_day ON quota_days (day, bytes)",
    # Requests of uploads, where several nodes count together. Times are those of the database.
    """CREATE TABLE IF NOT EXISTS quota_requests (
        key TEXT PRIMARY KEY, requests BIGINT NOT NULL, ends DOUBLE PRECISION NOT NULL
    )""",
    # Small facts: what was counted at the latest start, how far a scan has come.
    "CREATE TABLE IF NOT EXISTS quota_facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)


class Statement(NamedTuple):
    """One statement with its values, whose marks are `?`."""

    text: str
    values: tuple[Any, ...] = ()


class Lock(NamedTuple):
    """Names that no other transaction may have locked from here to the end of this one."""

    names: Sequence[str]


Step = Statement | Lock
Steps = Generator[Step, Rows, T]
Operation = Callable[[], Steps[T]]
"""Begins an operation anew: a transaction may have to be repeated."""


def add_usage(changes: dict[str, tuple[int, int]]) -> Steps[None]:
    """Add bytes and files to what is counted of keys; a key with nothing has no row."""
    for key, (size, files) in sorted(changes.items()):
        if not size and not files:
            continue
        yield Statement(
            "INSERT INTO quota_usage (key, bytes, files) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE"
            " SET bytes = quota_usage.bytes + excluded.bytes,"
            " files = quota_usage.files + excluded.files",
            (key, size, files),
        )
        yield Statement("DELETE FROM quota_usage WHERE key = ? AND bytes = 0 AND files = 0", (key,))


def add_to_day(keys: Sequence[str], day: int, size: int) -> Steps[None]:
    """Add bytes to what was uploaded on a day."""
    if not size:
        return
    for key in sorted(keys):
        yield Statement(
            "INSERT INTO quota_days (key, day, bytes) VALUES (?, ?, ?) ON CONFLICT (key, day) DO UPDATE"
            " SET bytes = quota_days.bytes + excluded.bytes",
            (key, day, size),
        )
        yield Statement("DELETE FROM quota_days WHERE key = ? AND day = ? AND bytes <= 0", (key, day))


def read_usage(key: str) -> Steps[tuple[int, int]]:
    """Return the bytes and the files that are counted of a key."""
    rows = yield Statement("SELECT bytes, files FROM quota_usage WHERE key = ?", (key,))
    return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)


def read_day(key: str, day: int) -> Steps[int]:
    """Return the bytes that were uploaded on a day."""
    rows = yield Statement("SELECT bytes FROM quota_days WHERE key = ? AND day = ?", (key, day))
    return int(rows[0][0]) if rows else 0
