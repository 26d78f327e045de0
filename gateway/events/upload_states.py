"""What a journal tells of uploads whose end somebody else has not heard of."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from gateway.domain.model import Identity
from gateway.events.database import Database, rows_by_id


class UploadState(NamedTuple):
    """An upload in the journal: published as `identity` at `path`, or not yet.

    `waits`: it is held, or it is not known yet whether its object was published.
    """

    path: str
    identity: Identity
    waits: bool


class UploadStates:
    """Reads the states of uploads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, upload_ids: Sequence[str]) -> Future[dict[str, UploadState]]:
        """Return the states of those that the journal knows and that are, or may be, stored."""

        def operation(db: sqlite3.Connection) -> dict[str, UploadState]:
            states: dict[str, UploadState] = {}
            held = "SELECT id FROM held WHERE id = ? AND state <> 'rejected'"
            for upload_id, _ in rows_by_id(db, held, upload_ids):
                states[upload_id] = UploadState("", Identity(0, 0, 0), waits=True)
            stored = "SELECT path, inode, bytes, mtime_ns, pending FROM uploads WHERE id = ?"
            for upload_id, (path, *identity, pending) in rows_by_id(db, stored, upload_ids):
                states[upload_id] = UploadState(str(path), Identity(*identity), waits=bool(pending))
            return states

        return self._database.submit(operation)
