"""One SQLite connection, owned by one thread, written with group commit.

The rule: nobody else ever opens the file while it lives here (`locking_mode=EXCLUSIVE`; SQLite
before 3.51.3 can corrupt a WAL that two connections check-point at once). Everything that waits
becomes one transaction, so a thousand callers pay for a few fsyncs. Knows nothing of uploads.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.errors import ConfigError

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
_Job = tuple[Operation[Any], "Future[Any]"]

MAX_BATCH = 512
"""Operations that share one transaction at the most."""

ROWS: Final = 256
"""Rows that one statement inserts at the most: SQLite takes 32,766 values."""

_OTHERWISE: Final = "free some space and check its permissions"
_ADVICE: Final[Mapping[str, str]] = {
    "SQLITE_NOTADB": "move the file away, a new journal is begun",
    "SQLITE_CORRUPT": "put back a copy, or move the file away and a new journal is begun",
    "SQLITE_BUSY": "another process holds it, stop that one",
}
"""What to do about a file that cannot be opened, by SQLite's name of the fault."""


class _Connection(sqlite3.Connection):
    """`doubtful` once a sync has failed: the transaction may stand whole in the log all the same."""

    doubtful = False


def packed(rows: Sequence[Any]) -> str:
    """Return rows as the JSON that `json_each` takes apart again: one statement for all of them.

    Each step of SQLite gives the interpreter's lock away, and a busy loop is slow to give it back.
    Text that is no Unicode is refused when it is bound, as a plain value would be.
    """
    return json.dumps(rows, ensure_ascii=False)


def insert(
    db: sqlite3.Connection, table: str, columns: str, rows: Sequence[Sequence[Any]], *, again: str = ""
) -> None:
    """Insert rows, as many as fit into one statement at a time; see `packed` for the reason.

    `again` says what becomes of rows that are there already: `ON CONFLICT DO NOTHING`.
    """
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        marks = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        statement = f"INSERT INTO {table} {columns} VALUES {marks} {again}"  # noqa: S608 (ours)
        db.execute(statement, [*itertools.chain.from_iterable(some)])


class Database:
    """Runs operations on the connection's own thread; each is durable when its future is done.

    `full` makes every transaction reach stable storage before its futures resolve
    (`synchronous=FULL`); without it they survive the process, not the power.
    """

    def __init__(self, path: Path, *, full: bool = True) -> None:
        self._path = path
        self._full = full
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._opened: Future[None] = Future()
        self._closed = False

    def open(self, prepare: Operation[None]) -> None:
        """Open or create the file and run `prepare` (the schema) on it.

        Raises `ConfigError` where the file is no journal of ours or cannot be opened.
        """
        self._prepare = prepare
        self._thread.start()
        self._opened.result()

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Queue `operation` for the next transaction; its result comes after the commit.

        The future raises what the operation raised, or `sqlite3.Error` where the transaction
        could not be made durable: then nothing of the operation is in the file.
        """
        future: Future[T] = Future()
        if self._closed:
            future.set_exception(sqlite3.ProgrammingError("the journal is closed"))
        else:
            self._jobs.put((operation, future))
        return future

    def close(self) -> None:
        """Finish what is queued, fold the WAL into the file and close it."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        try:
            connection = self._connect()
        except BaseException as fault:
            self._opened.set_exception(fault)
            return
        self._opened.set_result(None)
        running = True
        while running:
            batch, running = self._take()
            alive = [job for job in batch if job[1].set_running_or_notify_cancel()]
            if alive:
                _run_batch(connection, alive)
        connection.close()

    def _connect(self) -> _Connection:
        try:
            # SQLite would let the umask decide who may read it; its WAL gets the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self._path,
                isolation_level=None,
                timeout=0,
                cached_statements=512,
                factory=_Connection,
            )
        except (sqlite3.Error, OSError) as fault:
            raise self._unusable(fault) from fault
        try:
            self._set_up(connection)
        except BaseException as fault:
            # Held open by the traceback alone, it would keep its lock.
            connection.close()
            if isinstance(fault, sqlite3.Error | OSError):
                raise self._unusable(fault) from fault
            if isinstance(fault, ConfigError):
                raise ConfigError(str(fault), str(self._path)) from fault
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute(f"PRAGMA synchronous={'FULL' if self._full else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("BEGIN IMMEDIATE")
        self._prepare(connection)
        connection.execute("COMMIT")
        # Only now: a file that `prepare` refuses must stay as it was.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA journal_size_limit=67108864")

    def _unusable(self, fault: Exception) -> ConfigError:
        advice = _ADVICE.get(getattr(fault, "sqlite_errorname", ""), _OTHERWISE)
        return ConfigError(f"the journal cannot be opened ({fault}): {advice}", str(self._path))

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for work; return all that waits (bounded) and whether to go on afterwards."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == MAX_BATCH or self._jobs.empty():
                return batch, True
            job = self._jobs.get()
        return batch, False


def _run_batch(connection: _Connection, batch: list[_Job]) -> None:
    try:
        results = _transaction(connection, batch)
    except Exception as fault:
        if len(batch) == 1:
            batch[0][1].set_exception(fault)
            return
        # One of them is at fault, or the disk is: alone, each gets its own verdict.
        for job in batch:
            _run_batch(connection, [job])
        return
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)


def _transaction(connection: _Connection, batch: list[_Job]) -> list[Any]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        if connection.doubtful:
            _write_over(connection)
        results = [operation(connection) for operation, _ in batch]
        connection.execute("COMMIT")
    except BaseException as fault:
        connection.doubtful |= getattr(fault, "sqlite_errorname", "").startswith("SQLITE_IOERR")
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.doubtful = False
    return results


def _write_over(connection: _Connection) -> None:
    """Write to the log, even where the operations of this transaction write nothing.

    What a failed transaction left there is taken for good by the next start after a crash, whatever
    was said of it meanwhile. Any frame in its place ends that: each has the checksum of those before.
    Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")
