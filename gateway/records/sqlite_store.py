"""Records in a SQLite file beside the journal, for the processes of one machine.

One thread writes with group commit; `put` returns when its transaction is on stable storage.
Readers have threads and connections of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gateway.domain.sqlite_writer import Operation, SqliteWriter, T, WriterConnection
from gateway.errors import RecordsUnavailable
from gateway.records import sqlite_queries as sqlite
from gateway.records.items import EncodedItem
from gateway.records.query import ItemRow, Query
from gateway.records.store import MAX_WAITING

READERS: Final = 2
"""Threads that read."""

MAX_BATCH: Final = 256
"""Writes that share one transaction."""

RETRY_TIMEOUT: Final = 10.0
"""Seconds that a busy file is tried again."""

RETRY_INTERVAL: Final = 0.001
YIELD_DELAY: Final = 0.003
"""Seconds that a writer pauses: long enough for a retry to fall into it."""


class SqliteStore:
    """The records in the file `path`, which the first call creates."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = SqliteWriter(lambda: _open_shared(path), name="records", max_batch=MAX_BATCH)
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="records-read")
        self._connections: list[SharedConnection] = []
        self._waiting = 0
        self._lock = threading.Lock()

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """See `RecordStore`."""
        return await self._write(lambda db: sqlite.put(db, collection, item, only_new, replaces))

    async def get(self, collection: str, key: str) -> str | None:
        """See `RecordStore`."""
        return await self._read(lambda db: sqlite.get(db, collection, key))

    async def delete(self, collection: str, key: str) -> bool:
        """See `RecordStore`."""
        return await self._write(lambda db: sqlite.delete(db, collection, key))

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """See `RecordStore`. The first query of a field makes its index, in one transaction."""
        field = query.index
        if field is not None:
            indexed = await self._read(lambda db: sqlite.indexes(db, collection))
            if field not in indexed:
                await self._write(lambda db: sqlite.make_index(db, collection, field))
        return await self._read(lambda db: sqlite.select(db, collection, query))

    async def check(self) -> str:
        """See `RecordStore`."""
        await self._read(lambda db: db.execute("SELECT 1 FROM items LIMIT 1").fetchone())
        return f"in {self._path}"

    def close(self) -> None:
        """See `RecordStore`."""
        self._writer.close()
        self._readers.shutdown(cancel_futures=True)
        for reader in self._connections:
            reader.close()

    async def _write(self, operation: Operation[T]) -> T:
        return await self._call(lambda: self._writer.submit(operation))

    async def _read(self, operation: Operation[T]) -> T:
        return await self._call(lambda: self._readers.submit(self._run_read, operation))

    async def _call(self, submit: Callable[[], Future[T]]) -> T:
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise RecordsUnavailable(f"{MAX_WAITING} calls wait for the records already")
            self._waiting += 1
        try:
            return await asyncio.wrap_future(submit())
        except (sqlite3.Error, OSError) as error:
            raise RecordsUnavailable(
                f"the records in {self._path} cannot be reached: {error}"
            ) from error
        finally:
            with self._lock:
                self._waiting -= 1

    def _run_read(self, operation: Operation[T]) -> T:
        """Run in a reader's thread, on its own connection."""
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = _open_shared(self._path)
            self._connections.append(reader)
        return reader.turns.retry_busy(lambda: operation(reader.db))


class SharedConnection(WriterConnection):
    """A connection to the file `path`, which other processes write too: `turns` let them in."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        super().__init__(db)
        self.turns = WriteTurns(path)

    def begin(self) -> None:
        """See `WriterConnection`."""
        self.turns.yield_turn()
        self.turns.retry_busy(super().begin)

    def commit(self) -> None:
        """See `WriterConnection`."""
        self.turns.retry_busy(super().commit)

    def close(self) -> None:
        """See `WriterConnection`."""
        super().close()
        self.turns.close()


class WriteTurns:
    """The turns of one connection: several processes write one file.

    A connection that finds the file busy holds a shared lock on `records.turns` and tries again every
    millisecond; a writer pauses between two transactions while such a lock is held. SQLite's own waiting
    sleeps longer each time, and starves.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_suffix(".turns")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def retry_busy(self, operation: Callable[[], T]) -> T:
        """Return the result of `operation`; repeat it while the file is busy, up to `RETRY_TIMEOUT`."""
        started = time.monotonic()
        try:
            while True:
                try:
                    return operation()
                except sqlite3.OperationalError as error:
                    if not _is_busy(error) or time.monotonic() - started > RETRY_TIMEOUT:
                        raise
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                time.sleep(RETRY_INTERVAL)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def yield_turn(self) -> None:
        """Let waiting connections in, before the next transaction."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(YIELD_DELAY)
        else:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file of the locks."""
        os.close(self._fd)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Return whether it is SQLITE_BUSY, in any of its extended forms."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _open_shared(path: Path) -> SharedConnection:
    return SharedConnection(path, _connect(path))


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file. Raises `sqlite3.Error`, `OSError`, `RecordsUnavailable` for a foreign one."""
    # Only where it is new: closing a descriptor drops all locks of this process on the file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=RETRY_TIMEOUT, check_same_thread=False)
    try:
        _set_up(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    if _pragma(db, "user_version") != sqlite.VERSION:
        db.execute("BEGIN IMMEDIATE")
        version, exists = _pragma(db, "user_version"), _pragma(db, "schema_version") > 0
        if version not in {0, sqlite.VERSION} or (exists and version == 0):
            raise RecordsUnavailable(f"{path} is no file of records of this version: move it away")
        for statement in () if version else sqlite.SCHEMA:
            db.execute(statement)
        db.execute("COMMIT")
    if _pragma(db, "application_id") != sqlite.APPLICATION:
        raise RecordsUnavailable(f"{path} is no file of records: move it away")
    # FULL syncs the journal's end too: a commit that returned survives the power.
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA journal_mode=TRUNCATE")
    db.execute("PRAGMA busy_timeout=0")  # from here on `WriteTurns` waits


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
