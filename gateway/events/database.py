"""The journal's SQLite file: one connection, one thread at a time, group commit.

No other connection opens the file meanwhile (`locking_mode=EXCLUSIVE`): SQLite before 3.51.3 can corrupt
a WAL that two connections checkpoint at once.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from gateway.domain.sqlite_writer import Operation, SqliteWriter, WriterConnection
from gateway.errors import ConfigError

MAX_BATCH: Final = 512
"""Operations that share one transaction."""

MAX_ROWS: Final = 256
"""Rows that one statement inserts: SQLite takes 32,766 values."""

Row = dict[str, Any]
StatementValues = Sequence[Any] | Mapping[str, Any]
_DEFAULT_ADVICE: Final = "free some space and check its permissions"
_ADVICE: Final[Mapping[str, str]] = {
    "SQLITE_NOTADB": "move the file away, a new journal is begun",
    # SQLite says this of a read that fails too.
    "SQLITE_CORRUPT": "first see whether the disk can be read (the kernel's log has I/O errors then): a"
    " disk that can be read again loses nothing; if it can, put back a copy of the file, or move it away"
    " and a new journal is begun",
    "SQLITE_IOERR": "the disk cannot be read or written, see the kernel's log",
    "SQLITE_BUSY": "another process holds it, stop that one",
}
"""What to do about a file that cannot be opened, by the beginning of SQLite's name of the error."""


def packed(rows: Sequence[Any]) -> str:
    """Return rows as the JSON that `json_each` takes apart again: one statement for all of them.

    Each step of SQLite releases the interpreter's lock, and a busy loop is slow to give it back. Text
    that is no Unicode is refused when it is bound, as a plain value would be.
    """
    return json.dumps(rows, ensure_ascii=False)


def select(db: sqlite3.Connection, statement: str, values: StatementValues) -> list[Row]:
    """Return the rows of a query, each by the names of its columns."""
    cursor = db.execute(statement, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def rows_by_id(
    db: sqlite3.Connection, statement: str, upload_ids: Sequence[str]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the rows that `statement` finds for each id; there is none for an unknown one."""
    for upload_id in upload_ids:
        if (row := db.execute(statement, (upload_id,)).fetchone()) is not None:
            yield upload_id, row


def insert(
    db: sqlite3.Connection,
    table: str,
    columns: str,
    rows: Sequence[Sequence[Any]],
    *,
    on_conflict: str = "",
) -> int:
    """Insert rows, as many as fit into one statement at a time; see `packed` for the reason.

    Returns the number of the last row, 0 without rows. In a table with `AUTOINCREMENT` and without a
    conflict they have successive numbers. Source: https://www.sqlite.org/autoinc.html
    """
    last = 0
    for start in range(0, len(rows), MAX_ROWS):
        chunk = rows[start : start + MAX_ROWS]
        statement = _insert_statement(table, columns, len(chunk), len(chunk[0]), on_conflict)
        last = db.execute(statement, [*itertools.chain.from_iterable(chunk)]).lastrowid or 0
    return last


@functools.lru_cache(maxsize=512)
def _insert_statement(table: str, columns: str, rows: int, values: int, on_conflict: str) -> str:
    marks = ", ".join([f"({', '.join('?' * values)})"] * rows)
    return f"INSERT INTO {table} {columns} VALUES {marks} {on_conflict}"  # noqa: S608 (ours)


class Database(SqliteWriter):
    """Runs operations on the one connection; each is durable when its future is done.

    `full` makes every transaction reach stable storage before its futures resolve
    (`synchronous=FULL`); without it they survive the process, not the power.
    """

    def __init__(self, path: Path, *, full: bool = True) -> None:
        super().__init__(self._open_journal, name="journal", max_batch=MAX_BATCH)
        self._path = path
        self._full = full
        self._files: dict[str, tuple[int, int]] = {}

    def open(self, prepare: Operation[None]) -> None:
        """Open or create the file and run `prepare` (the schema) on it.

        Raises `ConfigError` where the file is no journal of ours or cannot be opened.
        """
        self._prepare = prepare
        try:
            self.submit(lambda db: None).result()
        except BaseException:
            self.close()
            raise

    def write(self, statement: str, values: StatementValues) -> Future[None]:
        """Queue one statement; the future is done when it is durable."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute(statement, values)

        return self.submit(operation)

    def check_files(self) -> None:
        """Raise `sqlite3.OperationalError` where the journal's files were removed or replaced meanwhile.

        What is written would be gone after the next start: nothing new may be promised. What waits in
        the open file can still be delivered. Call it in an operation that records.
        """
        for name in (str(self._path), f"{self._path}-wal"):
            present, opened = _identity(name), self._files.get(name)
            if opened is None and present is not None:
                self._files[name] = present  # SQLite creates its log with the first transaction
            elif present != opened:
                raise sqlite3.OperationalError(
                    f"{os.path.basename(name)} was removed or replaced while the gateway runs: put it"
                    " back, or restart the gateway to begin a new journal"
                )

    def _open_journal(self) -> WriterConnection:
        try:
            # SQLite would let the umask decide who may read it; its WAL gets the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(
                self._path,
                isolation_level=None,
                timeout=0,
                cached_statements=512,
                check_same_thread=False,  # threads take turns with it
            )
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error
        try:
            self._set_up(db)
            self._files = {}
            self.check_files()
        except BaseException as error:
            # Kept open by the traceback alone, it would keep its lock.
            db.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise self._unusable(error) from error
            if isinstance(error, ConfigError):
                raise ConfigError(str(error), str(self._path)) from error
            raise
        return _WalConnection(db)

    def _set_up(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute(f"PRAGMA synchronous={'FULL' if self._full else 'NORMAL'}")
        db.execute("PRAGMA foreign_keys=OFF")
        db.execute("BEGIN IMMEDIATE")
        self._prepare(db)
        db.execute("COMMIT")
        # Only now: a file that `prepare` refuses must stay as it was.
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA journal_size_limit=67108864")

    def _unusable(self, error: Exception) -> ConfigError:
        name = getattr(error, "sqlite_errorname", "")
        fitting = (advice for prefix, advice in _ADVICE.items() if name.startswith(prefix))
        advice = next(fitting, _DEFAULT_ADVICE)
        return ConfigError(f"the journal cannot be opened ({error}): {advice}", str(self._path))


def _identity(name: str) -> tuple[int, int] | None:
    """Return device and inode of a file, None where there is none."""
    try:
        status = os.stat(name)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class _WalConnection(WriterConnection):
    """A connection that overwrites in its log what a transaction with a failed sync has left there."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__(db)
        self._doubtful = False

    def begin(self) -> None:
        super().begin()
        if self._doubtful:
            _write_over(self.db)

    def commit(self) -> None:
        super().commit()
        self._doubtful = False

    def rollback(self, error: BaseException) -> None:
        self._doubtful |= getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR")
        super().rollback(error)


def _write_over(db: sqlite3.Connection) -> None:
    """Write to the log, even where the operations of this transaction write nothing.

    The next start after a crash takes for good what a failed transaction left there, although its
    callers got an error. Any frame in its place ends that: each has the checksum of those before.
    Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {version}")
