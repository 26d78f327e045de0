"""Counters of quotas for tests: in memory, and what they must be by the rows that are counted."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.domain.quotas import BoundQuota, QuotaLimits
from gateway.limits.quota_rows import STORED, QuotaReservation, flags_of
from gateway.limits.quota_statements import SCHEMA, Lock, Steps

T = TypeVar("T")

PLACE = "here"

QUOTA_TABLES = ("quota_usage", "quota_files", "quota_reservations", "quota_days")


class CountersInMemory:
    """Runs operations on a database in memory; each is one transaction."""

    def __init__(self, db: sqlite3.Connection | None = None) -> None:
        self.db = db or sqlite3.connect(":memory:", isolation_level=None)
        for statement in SCHEMA:
            self.db.execute(statement)

    def __call__(self, steps: Steps[T]) -> T:
        self.db.execute("BEGIN")
        try:
            step = next(steps)
            while True:
                rows = [] if isinstance(step, Lock) else self.db.execute(*step).fetchall()
                step = steps.send(rows)
        except StopIteration as end:
            result: T = end.value
        self.db.execute("COMMIT")
        return result

    async def run(self, operation: Callable[[], Steps[T]]) -> T:
        return self(operation())

    def exists(self) -> bool:
        return True

    def usage(self) -> dict[str, tuple[int, int]]:
        return usage_of(self.db)

    def days(self) -> int:
        (count,) = self.db.execute("SELECT count(*) FROM quota_days").fetchone()
        return int(count)

    def expected_usage(self) -> dict[str, tuple[int, int]]:
        return expected_usage(self.db)


def usage_of(db: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Return what is counted of each key."""
    return {key: (size, files) for key, size, files in db.execute("SELECT * FROM quota_usage")}


def expected_usage(db: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Return what must be counted of each key: bytes of all rows, files by their names."""
    sizes: Counter[str] = Counter()
    names: dict[str, set[str]] = {}
    rows = db.execute("SELECT path, bytes, keys FROM quota_files").fetchall()
    counted = [(path, path, size, json.loads(keys)) for path, size, keys in rows]
    for upload_id, path, shared, size, keys in db.execute(
        "SELECT upload_id, path, shared, bytes, keys FROM quota_reservations"
    ):
        stored = [key for key, flags in json.loads(keys).items() if flags & STORED]
        counted.append((path, path if shared else upload_id, size, stored))
    for _, name, size, keys in counted:
        for key in keys:
            sizes[key] += size
            names.setdefault(key, set()).add(name)
    return {key: (sizes[key], len(current)) for key, current in names.items()}


def open_counters(path: Path) -> sqlite3.Connection:
    """Open the file of a gateway to look at it."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)


def bound(key: str = "per principal acme (token)", **limits: int) -> BoundQuota:
    return BoundQuota(key, QuotaLimits.of(limits))


def reservation(
    upload_id: str, path: str, size: int, *quotas: BoundQuota, shared: bool = True, day: int = 7
) -> QuotaReservation:
    return QuotaReservation(
        upload_id=upload_id, node="", slot=0, path=path, shared=shared, bytes=size, day=day,
        owner={}, keys=flags_of(quotas),
    )  # fmt: skip
