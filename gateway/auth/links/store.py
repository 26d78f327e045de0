"""The file of the links, `links.db` in the state folder: processes and the command line share it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gateway.auth.database import REVISION_SCHEMA, SharedDatabase, next_revision, revision
from gateway.auth.links.link import Link
from gateway.errors import ConfigError

LINKS_FILE: Final = "links.db"

MAX_LINKS: Final = 10_000
"""Links in the file. Where it is full, a new one takes the place of one that ended first."""

_SCHEMA: Final = (
    """CREATE TABLE links (
        id TEXT PRIMARY KEY, digest TEXT UNIQUE, kind TEXT NOT NULL, folder TEXT NOT NULL,
        created REAL NOT NULL, expires REAL, max_files INTEGER, max_bytes INTEGER, password TEXT,
        creator TEXT, revoked REAL) WITHOUT ROWID""",
    """CREATE TABLE uses (
        id TEXT PRIMARY KEY, downloads INTEGER NOT NULL, last_used REAL NOT NULL) WITHOUT ROWID""",
    *REVISION_SCHEMA,
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
        self._database = SharedDatabase(self.path, "the links", _SCHEMA)

    def read(self, latest: LinkTable | None = None) -> LinkTable:
        """Return the links; `latest` itself where it is what the file has. Blocking."""
        with self._database.reading() as db:
            if db is None:
                return NO_LINKS
            if latest is not None and latest.revision == revision(db):
                return latest
            return _read(db)

    def create(self, link: Link, digest: str) -> None:
        """Add a link with the digest of its secret. Blocking."""
        self._database.make_file()
        with self._database.writing() as db:
            _evict(db, link.created)
            terms = (link.kind, link.folder, link.created, link.expires, link.max_files, link.max_bytes)
            db.execute(
                "INSERT INTO links VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (link.id, digest, *terms, link.password, link.creator),
            )
            next_revision(db)

    def revoke(self, link_id: str) -> bool:
        """End a link at once. Return False if that had been done. Blocking."""
        if not self.path.exists():
            raise no_link(link_id)
        with self._database.writing() as db:
            row = db.execute("SELECT revoked FROM links WHERE id = ?", (link_id,)).fetchone()
            if row is None:
                raise no_link(link_id)
            if row[0] is not None:
                return False
            db.execute(
                "UPDATE links SET revoked = ?, digest = NULL, password = NULL WHERE id = ?",
                (time.time(), link_id),
            )
            next_revision(db)
            return True

    def note_uses(self, uses: Mapping[str, LinkUse]) -> None:
        """Record downloads, and when links were used last. Blocking."""
        with self._database.writing() as db:
            db.executemany(
                "INSERT INTO uses SELECT id, ?2, ?3 FROM links WHERE id = ?1 ON CONFLICT (id)"
                " DO UPDATE SET downloads = downloads + excluded.downloads,"
                " last_used = max(last_used, excluded.last_used)",
                [(link_id, *use) for link_id, use in uses.items()],
            )


def no_link(link_id: str) -> ConfigError:
    """Return the error for an id that no link has."""
    return ConfigError(f"there is no link {link_id}; `gateway links list` shows the ids")


def _read(db: sqlite3.Connection) -> LinkTable:
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
    return LinkTable(revision(db), links, digests)


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
