"""Quotas in PostgreSQL, where several nodes count together: the database of `--records`.

A transaction takes its locks in one order: those of paths, then those of keys, each sorted. So no two
wait for each other; where the database says that two do, the operation is repeated.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg

from gateway.errors import RecordsUnavailable
from gateway.limits.quota_operations import Exceeded
from gateway.limits.quota_statements import SCHEMA, Lock, Operation, Step, Steps
from gateway.records.postgres_store import PostgresStore

T = TypeVar("T")

MAX_TRIES: Final = 5
"""Times that a transaction is begun which the database ends for the sake of others."""

_CONFLICTS: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)

_LOCK: Final = 0x67775155
"""The advisory lock under which the tables are made."""

_EXIST: Final = "SELECT to_regclass('quota_facts') IS NOT NULL"


class _Refused(Exception):
    """The transaction is rolled back: nothing was changed."""


class PostgresQuotaStore:
    """The counters in the database at `url`; the first operation connects, and makes the file `mark`."""

    def __init__(self, url: str, mark: Path) -> None:
        self._database = PostgresStore(url)
        self._mark = mark
        self._has_tables = False

    async def run(self, operation: Operation[T]) -> T:
        """See `QuotaStore`."""
        if not self._has_tables:
            self._mark.touch()
        try:
            return await self._database.call(functools.partial(self._transaction, operation))
        except ValueError as error:  # text that PostgreSQL cannot hold
            raise RecordsUnavailable(f"the quotas cannot be written: {error}") from error

    def exists(self) -> bool:
        """See `QuotaStore`."""
        return self._mark.exists()

    def close(self) -> None:
        """See `QuotaStore`."""
        self._database.close()

    async def _transaction(self, operation: Operation[T], connection: Any) -> T:
        if not self._has_tables:
            await _make_tables(connection)
            self._has_tables = True
        for _ in range(MAX_TRIES - 1):
            try:
                return await _run(connection, operation)
            except _CONFLICTS:
                continue
        return await _run(connection, operation)


async def _run(connection: Any, operation: Operation[T]) -> T:
    with contextlib.suppress(_Refused):
        async with connection.transaction():
            result = await _result_of(connection, operation())
            if isinstance(result, Exceeded):
                raise _Refused
    return result


async def _result_of(connection: Any, steps: Steps[T]) -> T:
    try:
        step = next(steps)
        while True:
            step = steps.send(await _take(connection, step))
    except StopIteration as end:
        result: T = end.value
        return result


async def _take(connection: Any, step: Step) -> list[tuple[Any, ...]]:
    if isinstance(step, Lock):
        for number in sorted({_lock_number(name) for name in step.names}):
            await connection.execute("SELECT pg_advisory_xact_lock($1)", number)
        return []
    return [tuple(row) for row in await connection.fetch(_numbered(step.text), *step.values)]


def _lock_number(name: str) -> int:
    digest = hashlib.blake2b(f"gateway quota {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@functools.lru_cache(maxsize=256)
def _numbered(text: str) -> str:
    """Return a statement with `$1`, `$2`... instead of `?`."""
    first, *rest = text.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


async def _make_tables(connection: Any) -> None:
    if await connection.fetchval(_EXIST):
        return
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        for statement in SCHEMA:
            # Keys are compared by code point, as in SQLite, whatever the database's language.
            await connection.execute(statement.replace(" TEXT ", ' TEXT COLLATE "C" '))
