"""Where quotas are counted: the protocol, and the SQLite file of one machine.

Every operation is one transaction, which the death of a process never tears. The file is not synced:
after a loss of power it is compared with what is stored, as at every start, and made anew if it is torn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from pathlib import Path
from typing import Final, Protocol, TypeVar

from gateway.domain.sqlite_writer import SqliteWriter
from gateway.errors import ConfigError, RecordsUnavailable
from gateway.limits.quota_statements import SCHEMA, Lock, Operation
from gateway.records.sqlite_store import SharedConnection
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.quotas")
T = TypeVar("T")

MAX_BATCH: Final = 64
"""Operations that share one transaction."""

MAX_WAITING: Final = 20_000
"""Operations that wait; the next one is refused."""

VERSION: Final = 1
APPLICATION_ID: Final = 0x55475155
"""`UGQU`: marks the file (SQLite's `application_id`)."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class QuotaStore(Protocol):
    """Runs operations; callable from any event loop."""

    async def run(self, operation: Operation[T]) -> T:
        """Return the result of an operation that is committed. Raises `RecordsUnavailable`."""

    def exists(self) -> bool:
        """Tell whether anything has ever been counted."""

    def close(self) -> None:
        """Finish what waits and close. Blocking."""


class SqliteQuotaStore:
    """The counters in the SQLite file `path`, which all processes of a machine share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = SqliteWriter(lambda: _open_counters(path), name="quotas", max_batch=MAX_BATCH)
        self._waiting = 0
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the file, or make it anew where a loss of power has torn it. Blocking, once at a start.

        Raises `ConfigError` where it is of another program or a newer gateway.
        """
        boot = _boot_id()
        if self._path.exists() and not _is_sound(self._path, boot):
            _set_aside(self._path)
        try:
            counters = _open_counters(self._path)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"the counters of quotas cannot be opened ({error}): check the disk and who may write",
                str(self._path),
            ) from error
        try:
            counters.begin()
            counters.db.execute(
                "INSERT INTO quota_facts (name, value) VALUES ('boot', ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (boot,),
            )
            counters.commit()
        finally:
            counters.close()

    async def run(self, operation: Operation[T]) -> T:
        """See `QuotaStore`."""
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise RecordsUnavailable(f"{MAX_WAITING} operations on quotas wait already")
            self._waiting += 1
        try:
            return await asyncio.wrap_future(self._writer.submit(lambda db: _run(db, operation)))
        except (sqlite3.Error, OSError) as error:
            raise RecordsUnavailable(
                f"the counters of quotas in {self._path} cannot be reached: {error}"
            ) from error
        finally:
            with self._lock:
                self._waiting -= 1

    def exists(self) -> bool:
        """See `QuotaStore`."""
        return self._path.exists()

    def close(self) -> None:
        """See `QuotaStore`."""
        self._writer.close()


def _run(db: sqlite3.Connection, operation: Operation[T]) -> T:
    """Run the steps of an operation in the transaction that has begun."""
    steps = operation()
    try:
        step = next(steps)
        while True:
            rows = [] if isinstance(step, Lock) else db.execute(step.text, step.values).fetchall()
            step = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def _open_counters(path: Path) -> SharedConnection:
    """Open the file, which processes write in turns; make it where it is missing."""
    # Only where it is new: closing a descriptor drops all locks of this process on the file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    counters = SharedConnection(path, db)
    try:
        _set_up(db, path)
    except BaseException:
        counters.close()
        raise
    return counters


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA journal_mode=PERSIST")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version > VERSION or (tables and not version):
            raise ConfigError("this is no file of quotas of this version: move it away", str(path))
        for statement in SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    if owner != APPLICATION_ID:
        raise ConfigError("this is a SQLite file of another program: move it away", str(path))
    db.execute("PRAGMA busy_timeout=0")  # from here on `WriteTurns` waits


def _is_sound(path: Path, boot: str) -> bool:
    """Tell whether the file was written since the machine has started, or is whole."""
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        rows = db.execute("SELECT value FROM quota_facts WHERE name = 'boot'").fetchall()
        if rows and rows[0][0] == boot:
            return True
        return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.OperationalError as error:
        return "no such table" in str(error)  # a new file, or one of another program
    except sqlite3.DatabaseError:
        return False
    finally:
        db.close()


def _set_aside(path: Path) -> None:
    log.error(
        "%s is torn: it is kept as %s.torn, and what is stored is counted anew",
        path,
        path.name,
        extra=event("quotas.torn"),
    )
    os.replace(path, path.with_name(f"{path.name}.torn"))
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
