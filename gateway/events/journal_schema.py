"""The journal's tables, version by version, and how a file is brought to the newest."""

from __future__ import annotations

import sqlite3
from typing import Final

from gateway.errors import ConfigError

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

_VERSION_4: Final = (
    # Every file that was removed for a client: the version that it was, by path and entity tag. `place`
    # is the object that it was, NULL for a file. pending: it is not known yet whether it is gone.
    """CREATE TABLE deletions (
        id TEXT PRIMARY KEY, path TEXT NOT NULL, etag TEXT NOT NULL, place TEXT,
        created REAL NOT NULL, pending INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX deletions_of_path ON deletions (path, etag)",
    "CREATE INDEX deletions_by_age ON deletions (created)",
    "CREATE INDEX deletions_pending ON deletions (id) WHERE pending",
    # The headers of a creation that responses to HEAD repeat (tus), as JSON.
    "ALTER TABLE uploads ADD COLUMN kept_headers TEXT",
)

_VERSION_5: Final = (
    # What handlers left for the client, as JSON: of each delivery, and of the uploads by handler.
    "ALTER TABLE deliveries ADD COLUMN result TEXT",
    "ALTER TABLE uploads ADD COLUMN results TEXT",
    # Uploads that wait for the decision of handlers, and the refused ones. `upload` is the upload as
    # the decisions so far have left it, `handlers` are those that have not decided yet, both as JSON.
    # `place` is the private object, NULL for a file. `refusal` says who refused, and with what. settled:
    # nothing is left of a rejected one but this row.
    """CREATE TABLE held (
        id TEXT PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('undecided', 'accepted', 'rejected')),
        upload TEXT NOT NULL, bytes INTEGER NOT NULL, mime TEXT NOT NULL, digests TEXT NOT NULL,
        inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, place TEXT,
        event_id TEXT NOT NULL, handlers TEXT NOT NULL, refusal TEXT,
        created REAL NOT NULL, decided REAL, settled INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE INDEX held_by_handler ON held (json_extract(handlers, '$[0]'))
        WHERE state = 'undecided'""",
    "CREATE INDEX held_by_state ON held (state, decided)",
    "CREATE INDEX held_unsettled ON held (decided) WHERE decided IS NOT NULL AND settled = 0",
    # Private objects of whole bodies, see `private_objects`.
    """CREATE TABLE private_objects (
        id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, claim TEXT
    ) WITHOUT ROWID""",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    _VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5,
)  # fmt: skip
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
    if version == VERSION:
        return  # nothing is written: a start on a full disk must be able to serve downloads and routes
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
