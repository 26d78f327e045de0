"""The journal's SQLite file: one connection, one thread, group commit; its tables and their migrations.

No other connection opens the file meanwhile (`locking_mode=EXCLUSIVE`): SQLite before 3.51.3 can corrupt
a WAL that two connections checkpoint at once.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
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
    "SQLITE_CORRUPT": "put back a copy, or move the file away and a new journal is begun",
    "SQLITE_BUSY": "another process holds it, stop that one",
}
"""What to do about a file that cannot be opened, by SQLite's name of the error."""

_VERSION_1: Final = (
    # Every committed upload, and the identity of its file.
    """CREATE TABLE uploads (
        id TEXT PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER NOT NULL, mime TEXT NOT NULL,
        digests TEXT NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, principal TEXT, remote TEXT,
        created REAL NOT NULL, committed REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX uploads_by_age ON uploads (committed)",
    # The body of each event, once however many handlers it has.
    """CREATE TABLE events (
        id TEXT PRIMARY KEY, type TEXT NOT NULL, upload_id TEXT, created REAL NOT NULL,
        body TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX events_of_upload ON events (upload_id)",
    # One row per event and handler. held: its upload is not yet published and answered.
    """CREATE TABLE deliveries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, handler TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('held', 'ready', 'running', 'done', 'dead')),
        attempt INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, error TEXT,
        created REAL NOT NULL, updated REAL NOT NULL,
        UNIQUE (event_id, handler)
    )""",
    """CREATE INDEX deliveries_to_claim ON deliveries (handler, due)
        WHERE state = 'ready'""",
    """CREATE INDEX deliveries_unfinished ON deliveries (state)
        WHERE state IN ('held', 'ready', 'running')""",
    "CREATE INDEX deliveries_by_state ON deliveries (state, updated)",
    # One row per attempt that ended.
    """CREATE TABLE runs (
        seq INTEGER PRIMARY KEY, delivery INTEGER NOT NULL, attempt INTEGER NOT NULL,
        ended REAL NOT NULL, duration REAL NOT NULL, outcome TEXT NOT NULL, error TEXT
    )""",
    "CREATE INDEX runs_of_delivery ON runs (delivery)",
    # Small facts of the journal itself.
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_VERSION_2: Final = (
    # Bodies of a kilobyte do not fit into the pages of a table without row ids. An event may have
    # no upload; `path` is that of such an event, `holder` the gateway that has the file.
    """CREATE TABLE events_2 (
        id TEXT PRIMARY KEY, type TEXT NOT NULL, upload_id TEXT, path TEXT, holder TEXT,
        created REAL NOT NULL, body TEXT NOT NULL
    )""",
    "INSERT INTO events_2 SELECT id, type, upload_id, NULL, NULL, created, body FROM events ORDER BY id",
    "DROP TABLE events",
    "ALTER TABLE events_2 RENAME TO events",
    "CREATE INDEX events_of_upload ON events (upload_id) WHERE upload_id IS NOT NULL",
    # Created ready: events of unpublished uploads are held back in memory, since recovery settles them.
    # relayed: a remote engine has it, kept for a replay. `round` grows when the attempts begin anew: a
    # settlement of an earlier round cannot change a later one.
    """CREATE TABLE deliveries_2 (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, handler TEXT NOT NULL,
        state TEXT NOT NULL
            CHECK (state IN ('ready', 'running', 'relayed', 'done', 'dead')),
        attempt INTEGER NOT NULL DEFAULT 0, round INTEGER NOT NULL DEFAULT 0,
        due REAL NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, error TEXT,
        UNIQUE (event_id, handler)
    )""",
    """INSERT INTO deliveries_2 (seq, event_id, handler, state, attempt, due, error, created, updated)
        SELECT seq, event_id, handler, CASE state WHEN 'held' THEN 'ready' ELSE state END, attempt,
        due, error, created, updated FROM deliveries ORDER BY seq""",
    "DROP TABLE deliveries",
    "ALTER TABLE deliveries_2 RENAME TO deliveries",
    # To claim, and to count what waits without reading the rows themselves.
    "CREATE INDEX deliveries_ready ON deliveries (handler, due, created) WHERE state = 'ready'",
    # To list by state, oldest first. (SQLite sees that `state = 'dead'` implies this, in no other form.)
    """CREATE INDEX deliveries_unfinished ON deliveries (state)
        WHERE state = 'ready' OR state = 'running' OR state = 'dead'""",
    # To find the dead of one handler among many of another.
    "CREATE INDEX deliveries_dead ON deliveries (handler) WHERE state = 'dead'",
    # To prune.
    """CREATE INDEX deliveries_ended ON deliveries (state, updated)
        WHERE state = 'done' OR state = 'relayed'""",
    # Rows of one delivery lie side by side; no index beside them.
    """CREATE TABLE runs_2 (
        delivery INTEGER NOT NULL, ended REAL NOT NULL, attempt INTEGER NOT NULL,
        node TEXT NOT NULL, duration REAL NOT NULL, outcome TEXT NOT NULL, error TEXT,
        PRIMARY KEY (delivery, ended, attempt)
    ) WITHOUT ROWID""",
    """INSERT OR IGNORE INTO runs_2
        SELECT delivery, ended, attempt, '', duration, outcome, error FROM runs ORDER BY delivery""",
    "DROP TABLE runs",
    "ALTER TABLE runs_2 RENAME TO runs",
    # Handlers whose deliveries are not claimed until they are resumed.
    "CREATE TABLE paused (handler TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID",
)

_VERSION_3: Final = (
    # The metadata that the client sent with the file, as JSON.
    "ALTER TABLE uploads ADD COLUMN metadata TEXT",
    # The object that holds the upload, NULL for a file: bucket, key and etag, as JSON.
    "ALTER TABLE uploads ADD COLUMN place TEXT",
    # 1: recorded; it is not known yet whether the object store has published it.
    "ALTER TABLE uploads ADD COLUMN pending INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX uploads_pending ON uploads (id) WHERE pending",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_VERSION_1, _VERSION_2, _VERSION_3)
"""`MIGRATIONS[n]` takes a file from version n to n+1; a version once released is never edited."""

VERSION: Final = len(MIGRATIONS)
"""SQLite's `user_version`, so it is in the file from its first transaction on."""

APPLICATION_ID: Final = 0x55504757
"""`UPGW`: marks the file as a journal (SQLite's `application_id`)."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to VERSION. Raises `ConfigError` for one of another program or a newer gateway."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner != APPLICATION_ID and (owner or version or tables):
        raise ConfigError("the journal is a SQLite file of another program: move it away")
    if version > VERSION:
        raise ConfigError(
            f"the journal has version {version}, this gateway reads up to {VERSION}: "
            "start the newer gateway that wrote it"
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


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


def insert(
    db: sqlite3.Connection,
    table: str,
    columns: str,
    rows: Sequence[Sequence[Any]],
    *,
    on_conflict: str = "",
) -> None:
    """Insert rows, as many as fit into one statement at a time; see `packed` for the reason."""
    for start in range(0, len(rows), MAX_ROWS):
        chunk = rows[start : start + MAX_ROWS]
        marks = ", ".join([f"({', '.join('?' * len(chunk[0]))})"] * len(chunk))
        statement = f"INSERT INTO {table} {columns} VALUES {marks} {on_conflict}"  # noqa: S608 (ours)
        db.execute(statement, [*itertools.chain.from_iterable(chunk)])


class Database(SqliteWriter):
    """Runs operations on the connection's own thread; each is durable when its future is done.

    `full` makes every transaction reach stable storage before its futures resolve
    (`synchronous=FULL`); without it they survive the process, not the power.
    """

    def __init__(self, path: Path, *, full: bool = True) -> None:
        super().__init__(self._open_journal, name="journal", max_batch=MAX_BATCH)
        self._path = path
        self._full = full

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

    def _open_journal(self) -> WriterConnection:
        try:
            # SQLite would let the umask decide who may read it; its WAL gets the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(self._path, isolation_level=None, timeout=0, cached_statements=512)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error
        try:
            self._set_up(db)
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
        advice = _ADVICE.get(getattr(error, "sqlite_errorname", ""), _DEFAULT_ADVICE)
        return ConfigError(f"the journal cannot be opened ({error}): {advice}", str(self._path))


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
