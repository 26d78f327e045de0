"""The file of the API keys, `keys.db` in the state folder: processes and the command line share it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from gateway.auth.api_keys import ApiKey, KeyScope, KeySecret
from gateway.auth.database import REVISION_SCHEMA, SharedDatabase, next_revision, revision
from gateway.domain.units import parse_rate
from gateway.errors import ConfigError

KEYS_FILE: Final = "keys.db"

MAX_KEYS: Final = 10_000
"""Keys in the file. Where it is full, a new one takes the place of one that ended first."""

MAX_SECRETS: Final = 8
"""Secrets of one key that count at the same time."""

_SCHEMA: Final = (
    """CREATE TABLE keys (
        name TEXT PRIMARY KEY, prefix TEXT, methods TEXT NOT NULL, rate TEXT, bytes_per_day INTEGER,
        created REAL NOT NULL, expires REAL, revoked REAL) WITHOUT ROWID""",
    """CREATE TABLE secrets (
        digest TEXT PRIMARY KEY, name TEXT NOT NULL, created REAL NOT NULL, until REAL) WITHOUT ROWID""",
    "CREATE INDEX secrets_of_keys ON secrets (name)",
    "CREATE TABLE uses (name TEXT PRIMARY KEY, last_used REAL NOT NULL) WITHOUT ROWID",
    *REVISION_SCHEMA,
)


class KeyTable(NamedTuple):
    """All keys, by name, and their secrets. `revision` is another one after every change but uses."""

    revision: int
    keys: Mapping[str, ApiKey]
    secrets: tuple[KeySecret, ...]


NO_KEYS: Final = KeyTable(0, {}, ())


class KeyStore:
    """The keys in the file `path`, which the first key creates. Every method raises `ConfigError`."""

    def __init__(self, state: Path) -> None:
        self.path = state / KEYS_FILE
        self._database = SharedDatabase(self.path, "the API keys", _SCHEMA)

    def read(self, latest: KeyTable | None = None) -> KeyTable:
        """Return the keys; `latest` itself where it is what the file has. Blocking."""
        with self._database.reading() as db:
            if db is None:
                return NO_KEYS
            if latest is not None and latest.revision == revision(db):
                return latest
            return _read(db)

    def create(self, key: ApiKey, digest: str) -> None:
        """Add a key with the digest of its secret. A name is used once. Blocking."""
        self._database.make_file()
        with self._database.writing() as db:
            if key.name in _read(db).keys:
                raise ConfigError(
                    f"there is a key {key.name} already, or was one: choose another name, or rotate it"
                )
            _evict(db, key.created)
            scope, rate = key.scope, None if key.rate is None else str(key.rate)
            values = (key.name, scope.prefix, ",".join(scope.methods), rate, key.bytes_per_day)
            db.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (*values, key.created, key.expires),
            )
            db.execute("INSERT INTO secrets VALUES (?, ?, ?, NULL)", (digest, key.name, key.created))
            next_revision(db)

    def rotate(self, name: str, digest: str, overlap: float, expires: float | None) -> ApiKey:
        """Give a key a new secret; the others count for another `overlap` seconds at most. Blocking.

        `expires` replaces the end of the key, None leaves it. Returns the key.
        """
        with self._changing(name) as (db, key, now):
            rotated = replace(key, expires=key.expires if expires is None else expires)
            if (state := rotated.state(now)) != "active":
                advice = "create another one" if state == "revoked" else "add --expires"
                raise ConfigError(f"the key {name} has {_ENDED[state]}: {advice}")
            db.execute("DELETE FROM secrets WHERE name = ? AND until <= ?", (name, now))
            count = db.execute("SELECT count(*) FROM secrets WHERE name = ?", (name,)).fetchone()[0]
            if overlap > 0 and count >= MAX_SECRETS:
                raise ConfigError(
                    f"the key {name} has {count} secrets that count: wait, or end them with --overlap 0"
                )
            if overlap > 0:
                db.execute(
                    "UPDATE secrets SET until = min(coalesce(until, ?1), ?1) WHERE name = ?2",
                    (now + overlap, name),
                )
            else:
                db.execute("DELETE FROM secrets WHERE name = ?", (name,))
            db.execute("INSERT INTO secrets VALUES (?, ?, ?, NULL)", (digest, name, now))
            db.execute("UPDATE keys SET expires = ? WHERE name = ?", (rotated.expires, name))
            return rotated

    def revoke(self, name: str) -> bool:
        """End a key at once, with all its secrets. Return False if that had been done. Blocking."""
        with self._changing(name) as (db, key, now):
            if key.revoked is not None:
                return False
            db.execute("DELETE FROM secrets WHERE name = ?", (name,))
            db.execute("UPDATE keys SET revoked = ? WHERE name = ?", (now, name))
            return True

    def note_uses(self, uses: Mapping[str, float]) -> None:
        """Record when keys were used last. Blocking."""
        with self._database.writing() as db:
            db.executemany(
                "INSERT INTO uses SELECT name, ?2 FROM keys WHERE name = ?1 ON CONFLICT (name)"
                " DO UPDATE SET last_used = max(last_used, excluded.last_used)",
                list(uses.items()),
            )

    @contextmanager
    def _changing(self, name: str) -> Iterator[tuple[sqlite3.Connection, ApiKey, float]]:
        """Yield a transaction that changes one key, the key, and the time."""
        if not self.path.exists():
            raise _unknown(name)
        with self._database.writing() as db:
            key = _read(db).keys.get(name)
            if key is None:
                raise _unknown(name)
            yield db, key, time.time()
            next_revision(db)


_ENDED: Final = {"revoked": "been revoked", "expired": "expired"}


def _read(db: sqlite3.Connection) -> KeyTable:
    rows = db.execute(
        "SELECT name, prefix, methods, rate, bytes_per_day, created, expires, revoked, last_used"
        " FROM keys LEFT JOIN uses USING (name) ORDER BY created, name"
    )
    keys: dict[str, ApiKey] = {}
    for name, prefix, methods, rate, *rest in rows:
        scope = KeyScope(prefix, tuple(methods.split(",")) if methods else ())
        keys[name] = ApiKey(name, scope, None if rate is None else parse_rate(rate), *rest)
    secret_rows = db.execute("SELECT digest, name, until FROM secrets ORDER BY created")
    secrets = tuple(KeySecret(digest, keys[name], until) for digest, name, until in secret_rows)
    return KeyTable(revision(db), keys, secrets)


def _evict(db: sqlite3.Connection, now: float) -> None:
    """Remove a key that has ended, where there are as many as there may be. Raises `ConfigError`."""
    if db.execute("SELECT count(*) FROM keys").fetchone()[0] < MAX_KEYS:
        return
    row = db.execute(
        "SELECT name FROM keys WHERE coalesce(revoked, expires) <= ?"
        " ORDER BY coalesce(revoked, expires) LIMIT 1",
        (now,),
    ).fetchone()
    if row is None:
        raise ConfigError(f"there are {MAX_KEYS} keys, as many as there may be: revoke some")
    for table in ("keys", "secrets", "uses"):
        db.execute(f"DELETE FROM {table} WHERE name = ?", row)  # noqa: S608 - a name from above


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"there is no key {name}; `gateway keys list` shows the names")
