"""The file of the links, `links.db` in the state folder: every process and the command line share it.

Each call opens the file, runs one transaction and closes it, as `auth.key_store` does, for its reasons.
It waits for other writers, so it is never called on an event loop.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from gateway.auth.links.link import Link
from gateway.errors import ConfigError
from gateway.storage.keyfile import OWNER_ONLY

LINKS_FILE: Final = "links.db"

MAX_LINKS: Final = 10_000
"""Links in the file. Where it is full, a new one takes the place of one that ended first."""

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer; a transaction takes milliseconds."""

_VERSION: Final = 1

_SCHEMA: Final = (
    """CREATE TABLE links (
        id TEXT PRIMARY KEY, digest TEXT UNIQUE, kind TEXT NOT NULL, folder TEXT NOT NULL,
        created REAL NOT NULL, expires REAL, max_files INTEGER, max_bytes INTEGER, password TEXT,
        creator TEXT, revoked REAL) WITHOUT ROWID""",
    """CREATE TABLE uses (
        id TEXT PRIMARY KEY, downloads INTEGER NOT NULL, last_used REAL NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE revision (number INTEGER NOT NULL)",
    "INSERT INTO revision VALUES (random())",
)


class LinkUse(NamedTuple):
    """Uses of a link: downloads since they were written last, and when it was used last."""

    downloads: int
    last_used: float


class LinkTable(NamedTuple):
    """All links, by id, the newest first. `digests` are those of secrets that may still count, by id.

    `revision` is another one after every change but uses.
    """

    revision: int
    links: Mapping[str, Link]
    digests: Mapping[str, str]


NO_LINKS: Final = LinkTable(0, {}, {})


class LinkStore:
    """The links in the file, which the first link creates. Every method raises `ConfigError`."""

    def __init__(self, state: Path) -> None:
        self.path = state / LINKS_FILE

    def read(self, latest: LinkTable | None = None) -> LinkTable:
        """Return the links; `latest` itself where it is what the file has. Blocking."""
        if not self.path.exists():
            return NO_LINKS
        with self._transaction(writes=False) as db:
            if not _version(db, self.path):
                return NO_LINKS  # the first link is being written
            revision = _revision(db)
            is_latest = latest is not None and latest.revision == revision
            return latest if latest is not None and is_latest else _read(db, revision)

    def create(self, link: Link, digest: str) -> None:
        """Add a link with the digest of its secret. Blocking."""
        self._make_file()
        with self._transaction() as db:
            _evict(db, link.created)
            terms = (link.kind, link.folder, link.created, link.expires, link.max_files, link.max_bytes)
            db.execute(
                "INSERT INTO links VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (link.id, digest, *terms, link.password, link.creator),
            )
            _next_revision(db)

    def revoke(self, link_id: str) -> bool:
        """End a link at once. Return False if that had been done. Blocking."""
        if not self.path.exists():
            raise no_link(link_id)
        with self._transaction() as db:
            row = db.execute("SELECT revoked FROM links WHERE id = ?", (link_id,)).fetchone()
            if row is None:
                raise no_link(link_id)
            if row[0] is not None:
                return False
            db.execute(
                "UPDATE links SET revoked = ?, digest = NULL, password = NULL WHERE id = ?",
                (time.time(), link_id),
            )
            _next_revision(db)
            return True

    def note_uses(self, uses: Mapping[str, LinkUse]) -> None:
        """Record downloads, and when links were used last. Blocking."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO uses SELECT id, ?2, ?3 FROM links WHERE id = ?1 ON CONFLICT (id)"
                " DO UPDATE SET downloads = downloads + excluded.downloads,"
                " last_used = max(last_used, excluded.last_used)",
                [(link_id, *use) for link_id, use in uses.items()],
            )

    def _make_file(self) -> None:
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
    def _transaction(self, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._connect()) as db:
                db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                try:
                    if writes and not _version(db, self.path):
                        _make_tables(db)
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise ConfigError(
                f"the links cannot be used: {error}; check the file and its owner", str(self.path)
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that was removed since is not made again.
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)


def no_link(link_id: str) -> ConfigError:
    """Return the error for an id that no link has."""
    return ConfigError(f"there is no link {link_id}; `gateway links list` shows the ids")


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of a file, 0 for an empty one. Raises `ConfigError` for a newer one."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > _VERSION:
        raise ConfigError("the links were written by a newer version of the gateway", str(path))
    return version


def _make_tables(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {_VERSION}")


def _revision(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT number FROM revision").fetchone()[0])


def _next_revision(db: sqlite3.Connection) -> None:
    db.execute("UPDATE revision SET number = random()")


def _read(db: sqlite3.Connection, revision: int) -> LinkTable:
    rows = db.execute(
        "SELECT id, kind, folder, created, expires, max_files, max_bytes, password, creator, revoked,"
        " coalesce(downloads, 0), last_used, digest"
        " FROM links LEFT JOIN uses USING (id) ORDER BY created DESC, id"
    )
    links: dict[str, Link] = {}
    digests: dict[str, str] = {}
    for *values, digest in rows:
        link = Link(*values)
        links[link.id] = link
        if digest is not None:
            digests[digest] = link.id
    return LinkTable(revision, links, digests)


def _evict(db: sqlite3.Connection, now: float) -> None:
    """Remove a link that has ended, where there are as many as there may be. Raises `ConfigError`."""
    if db.execute("SELECT count(*) FROM links").fetchone()[0] < MAX_LINKS:
        return
    row = db.execute(
        "SELECT id FROM links WHERE coalesce(revoked, expires) <= ?"
        " ORDER BY coalesce(revoked, expires) LIMIT 1",
        (now,),
    ).fetchone()
    if row is None:
        raise ConfigError(f"there are {MAX_LINKS} links, as many as there may be: revoke some")
    for table in ("links", "uses"):
        db.execute(f"DELETE FROM {table} WHERE id = ?", row)  # noqa: S608 - a name from above
