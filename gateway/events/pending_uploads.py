"""Uploads that are recorded while it is not known whether S3 has published them.

Their deliveries are held back until that is known. Each is settled once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from gateway.domain.model import OBJECT_CREATED
from gateway.events.database import Database, rows_by_id
from gateway.events.unpublished import UnpublishedEvent, UnpublishedEvents

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
    """The rows with `pending`. Each is settled once; a release of its events lets them be claimed."""

    def __init__(self, database: Database, unpublished: UnpublishedEvents) -> None:
        self._database = database
        self._unpublished = unpublished

    def hold(self) -> Future[list[PendingUpload]]:
        """After a start: return all of them, and hold back their deliveries."""

        def operation(db: sqlite3.Connection) -> list[PendingUpload]:
            handlers: dict[str, dict[str, list[str]]] = {}
            for upload_id, event_id, handler in db.execute(_HANDLERS):
                handlers.setdefault(upload_id, {}).setdefault(event_id, []).append(handler)
            uploads = []
            rows = db.execute("SELECT id, path, place FROM uploads WHERE pending")
            for upload_id, path, place in rows:
                events = handlers.get(upload_id, {})
                self._unpublished.hold(
                    [UnpublishedEvent(event_id, upload_id, names) for event_id, names in events.items()]
                )
                uploads.append(PendingUpload(upload_id, path, json.loads(place), tuple(events)))
            return uploads

        return self._database.submit(operation)

    def move(self, upload_id: str, path: str, place: dict[str, Any]) -> Future[None]:
        """Change the object of an upload that is not published."""

        statement = "UPDATE uploads SET path = ?, place = ? WHERE id = ? AND pending"
        return self._database.write(statement, (path, json.dumps(place), upload_id))

    def mark_published(self, upload_id: str, etag: str) -> Future[None]:
        """Note that it was published with this entity tag; its deliveries stay held."""

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

    def published_objects(self, upload_ids: Sequence[str]) -> Future[dict[str, tuple[str, str]]]:
        """Return path and entity tag of those of `upload_ids` that were published."""

        def operation(db: sqlite3.Connection) -> dict[str, tuple[str, str]]:
            statement = (
                "SELECT path, json_extract(place, '$.etag') FROM uploads"
                " WHERE id = ? AND place IS NOT NULL AND NOT pending"
            )
            rows = rows_by_id(db, statement, upload_ids)
            return {upload_id: (str(path), str(etag)) for upload_id, (path, etag) in rows}

        return self._database.submit(operation)
