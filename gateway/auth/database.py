"""A small SQLite file in the state folder that every process and the command line share.

Each transaction opens the file and closes it, so that a file that is replaced or removed is noticed. It
waits for other writers, so it never runs on an event loop. A rollback journal, not a WAL: several
processes have the file open.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.storage.keyfile import OWNER_ONLY

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer; a transaction takes milliseconds."""

_VERSION: Final = 1

REVISION_SCHEMA: Final = (
    "CREATE TABLE revision (number INTEGER NOT NULL)",
    "INSERT INTO revision VALUES (random())",
)
"""What the schema of a file ends with whose readers ask for its `revision`."""


class SharedDatabase:
    """The file `path` with the tables of `schema`; `what` is in it, for messages.

    Every method raises `ConfigError`, and blocks.
    """

    def __init__(self, path: Path, what: str, schema: Sequence[str]) -> None:
        self.path = path
        self._what = what
        self._schema = tuple(schema)

    def make_file(self) -> None:
        """Create the file for its owner alone: SQLite would give it the mode of the umask."""
        try:
            owner = self.path.parent.stat().st_uid
            if owner != os.geteuid():
                raise ConfigError(
                    f"the folder belongs to user {owner}, as whom the server runs: do so too",
                    str(self.path.parent),
                )
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", str(self.path)) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Yield a transaction that reads, None where there is no file or nothing in it yet."""
        if not self.path.exists():
            yield None
            return
        with self._transaction("BEGIN") as db:
            yield db if self._version(db) else None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a transaction that writes; the tables are made in a new file."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            if not self._version(db):
                for statement in self._schema:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        # mode=rw: a file that was removed since is not made again.
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
            ) as db:
                db.execute(begin)
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise ConfigError(
                f"{self._what} cannot be used: {error}; check the file and its owner", str(self.path)
            ) from error

    def _version(self, db: sqlite3.Connection) -> int:
        """Return the version of the file, 0 for an empty one. Raises `ConfigError` for a newer one."""
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            message = f"{self._what} were written by a newer version of the gateway"
            raise ConfigError(message, str(self.path))
        return version


def revision(db: sqlite3.Connection) -> int:
    """Return the number that tells whether the file has changed."""
    return int(db.execute("SELECT number FROM revision").fetchone()[0])


def next_revision(db: sqlite3.Connection) -> None:
    """Let it be another number: random, so that a file that was replaced has another one too."""
    db.execute("UPDATE revision SET number = random()")
