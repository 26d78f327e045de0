"""The file of the sessions, `sessions.db` in the state folder: all processes share it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gateway.auth.database import SharedDatabase
from gateway.auth.sessions.session import Session, SessionHolder

SESSIONS_FILE: Final = "sessions.db"

MAX_SESSIONS: Final = 10_000
"""Sessions in the file. Where it is full, the oldest of the principal with the most sessions ends."""

MAX_OF_PRINCIPAL: Final = 200
"""Sessions of one principal, of which the oldest ends: a token may be that of a whole team."""

MAX_SPENT: Final = 100_000
"""Sign-ins of which it is remembered that they have ended, as long as their state counts."""

_SCHEMA: Final = (
    """CREATE TABLE sessions (
        number INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
        name TEXT NOT NULL, principal TEXT NOT NULL, source TEXT NOT NULL, created REAL NOT NULL,
        expires REAL NOT NULL)""",
    "CREATE INDEX sessions_of_principals ON sessions (kind, name, number)",
    "CREATE INDEX sessions_by_end ON sessions (expires)",
    "CREATE TABLE spent (state TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE file (instance INTEGER NOT NULL, removals INTEGER NOT NULL)",
    "INSERT INTO file VALUES (random(), 0)",
)

_COLUMNS: Final = "digest, kind, name, principal, source, created, expires"


class SessionTable(NamedTuple):
    """The sessions as they were read, by digest, and up to where the file was read."""

    sessions: Mapping[str, Session]
    instance: int = 0
    number: int = 0
    removals: int = 0


NO_SESSIONS: Final = SessionTable({})


class SessionStore:
    """The sessions in the file, which the first sign-in creates.

    Every method blocks, and raises `ConfigError`.
    """

    def __init__(self, state: Path) -> None:
        self._database = SharedDatabase(state / SESSIONS_FILE, "the sessions", _SCHEMA)

    def read(self, latest: SessionTable = NO_SESSIONS) -> SessionTable:
        """Return the sessions; what `latest` has is not read again."""
        with self._database.reading() as db:
            if db is None:
                return NO_SESSIONS
            instance, removals = db.execute("SELECT instance, removals FROM file").fetchone()
            if instance != latest.instance:
                latest = NO_SESSIONS
            rows = db.execute(
                f"SELECT number, {_COLUMNS} FROM sessions WHERE number > ? ORDER BY number",  # noqa: S608
                (latest.number,),
            ).fetchall()
            sessions = dict(latest.sessions)
            if removals != latest.removals:
                present = {row[0] for row in db.execute("SELECT digest FROM sessions")}
                sessions = {digest: sessions[digest] for digest in sessions.keys() & present}
            sessions |= {digest: _session(digest, *rest) for _, digest, *rest in rows}
            number = rows[-1][0] if rows else latest.number
            return SessionTable(sessions, instance, number, removals)

    def add(self, session: Session, replaced: str | None) -> None:
        """Add a session; that of the digest `replaced` ends. Others end where there are too many."""
        self._database.make_file()
        with self._database.writing() as db:
            before = _count(db)
            db.execute("DELETE FROM sessions WHERE expires <= ?", (session.created,))
            if replaced is not None:
                db.execute("DELETE FROM sessions WHERE digest = ?", (replaced,))
            _limit_sessions(db, session.holder)
            removed = before - _count(db)
            values = (session.digest, *session.holder, session.created, session.expires)
            db.execute(
                f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                values,
            )
            if removed:
                _note_removal(db)

    def remove(self, digest: str) -> None:
        """End a session."""
        with self._database.reading() as db:
            if db is None:
                return
        with self._database.writing() as db:
            if db.execute("DELETE FROM sessions WHERE digest = ?", (digest,)).rowcount:
                _note_removal(db)

    def spend(self, state: str, until: float, now: float) -> bool:
        """Note that a sign-in has ended; return False if that had been noted. It counts `until` then."""
        self._database.make_file()
        with self._database.writing() as db:
            db.execute("DELETE FROM spent WHERE until <= ?", (now,))
            if db.execute("SELECT count(*) FROM spent").fetchone()[0] >= MAX_SPENT:
                return False
            added = db.execute("INSERT OR IGNORE INTO spent VALUES (?, ?)", (state, until)).rowcount
            return bool(added)


def _session(
    digest: str, kind: str, name: str, principal: str, source: str, created: float, expires: float
) -> Session:
    return Session(digest, SessionHolder(kind, name, principal, source), created, expires)


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM sessions").fetchone()[0])


def _note_removal(db: sqlite3.Connection) -> None:
    db.execute("UPDATE file SET removals = removals + 1")


def _limit_sessions(db: sqlite3.Connection, holder: SessionHolder) -> None:
    """End the oldest sessions of a principal that has too many, and of others where the file is full."""
    _keep_newest(db, holder.kind, holder.name, MAX_OF_PRINCIPAL - 1)
    while _count(db) >= MAX_SESSIONS:
        kind, name, count = db.execute(
            "SELECT kind, name, count(*) AS held FROM sessions GROUP BY kind, name"
            " ORDER BY held DESC, min(number) LIMIT 1"
        ).fetchone()
        _keep_newest(db, kind, name, count - 1)


def _keep_newest(db: sqlite3.Connection, kind: str, name: str, count: int) -> None:
    db.execute(
        "DELETE FROM sessions WHERE kind = ?1 AND name = ?2 AND number NOT IN ("
        " SELECT number FROM sessions WHERE kind = ?1 AND name = ?2 ORDER BY number DESC LIMIT ?3)",
        (kind, name, count),
    )
