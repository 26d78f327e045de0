"""Uploads that are recorded, and of which nobody knows yet whether S3 has them.

One rule: their deliveries are held until somebody has looked; a row is settled once, either way.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from gateway.domain.model import OBJECT_CREATED
from gateway.events.database import Database
from gateway.events.unpublished import UnpublishedEvents

_HANDLERS: Final = (
    "SELECT e.upload_id, e.id, d.handler FROM uploads u JOIN events e ON e.upload_id = u.id"
    " JOIN deliveries d ON d.event_id = e.id WHERE u.pending"
)


class PendingUpload(NamedTuple):
    """A recorded upload: its id, its path, where it may lie, and its events."""

    upload_id: str
    path: str
    place: dict[str, Any]
    event_ids: tuple[str, ...]


class PendingUploads:
    """The rows with `pending`."""

    def __init__(
        self, database: Database, held: UnpublishedEvents, ring: Callable[[Iterable[str]], None]
    ) -> None:
        self._database = database
        self._held = held
        self._ring = ring

    def hold(self) -> Future[list[PendingUpload]]:
        """After a start: return all of them, and keep their deliveries from being claimed."""

        def operation(db: sqlite3.Connection) -> list[PendingUpload]:
            handlers: dict[str, dict[str, list[str]]] = {}
            for upload_id, event_id, handler in db.execute(_HANDLERS):
                handlers.setdefault(upload_id, {}).setdefault(event_id, []).append(handler)
            found = []
            for upload_id, path, place in db.execute(
                "SELECT id, path, place FROM uploads WHERE pending"
            ):
                events = handlers.get(upload_id, {})
                for event_id, names in events.items():
                    self._held.hold(event_id, upload_id, names)
                found.append(PendingUpload(upload_id, path, json.loads(place), tuple(events)))
            return found

        return self._database.submit(operation)

    def move(self, upload_id: str, path: str, place: dict[str, Any]) -> Future[None]:
        """Change where an upload that is not published will lie."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE uploads SET path = ?, place = ? WHERE id = ? AND pending",
                (path, json.dumps(place), upload_id),
            )

        return self._database.submit(operation)

    def settle(self, upload_id: str, etag: str) -> Future[None]:
        """It was published, with this entity tag. Its deliveries stay held until `release`."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE uploads SET pending = 0, place = json_set(place, '$.etag', ?)"
                " WHERE id = ? AND pending",
                (etag, upload_id),
            )
            db.execute(
                "UPDATE events SET body = json_set(body, '$.etag', ?) WHERE upload_id = ? AND type = ?",
                (etag, upload_id, OBJECT_CREATED),
            )

        return self._database.submit(operation)

    def release(self, event_ids: Iterable[str]) -> None:
        """Let the deliveries of a settled upload be claimed. Costs no transaction."""
        self._ring(self._held.release(event_ids))

    def published(self, upload_ids: Sequence[str]) -> Future[dict[str, tuple[str, str]]]:
        """Return path and entity tag of those of `upload_ids` that were published."""

        def operation(db: sqlite3.Connection) -> dict[str, tuple[str, str]]:
            objects = {}
            for upload_id in upload_ids:
                row = db.execute(
                    "SELECT path, json_extract(place, '$.etag') FROM uploads"
                    " WHERE id = ? AND place IS NOT NULL AND NOT pending",
                    (upload_id,),
                ).fetchone()
                if row is not None:
                    objects[upload_id] = (str(row[0]), str(row[1]))
            return objects

        return self._database.submit(operation)
