"""Which uploads' files were removed for clients: the process that removed one has it in its journal."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.auth.request import IncomingRequest
from gateway.domain.json_text import parse_json
from gateway.endpoints.admin.processes import ProcessClients
from gateway.errors import Refusal
from gateway.events.deletions import DeletionLog, FileVersionKey
from gateway.http.request_body import read_small_body
from gateway.http.responses import ApiHandler, Response, json_response

MAX_VERSIONS: Final = 1000
"""Versions of files that one question may name."""

_MAX_BODY_BYTES: Final = 8 << 20
_PATH: Final = "/-/uploads/removed"


@dataclass(slots=True, frozen=True)
class Removals:
    """The removals that the processes of this gateway have recorded."""

    deletions: DeletionLog
    processes: ProcessClients

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"uploads.removed": self._own}

    async def mark(self, rows: Sequence[dict[str, Any]]) -> None:
        """Set the state of those stored uploads to `removed` whose very version was removed.

        What a process that does not respond has removed is not known: such a row stays as it is.
        """
        stored = [row for row in rows if row["state"] == "stored" and row.get("etag")]
        if not stored:
            return
        versions = [version_of(row) for row in stored]
        answers: list[Any] = [await self._find(versions)]
        if self.processes.sessions:
            others = await self.processes.post_all(_PATH, {"versions": versions})
            answers += [answer["removed"] for answer in others.values() if answer is not None]
        for position, row in enumerate(stored):
            if any(answer[position] for answer in answers):
                row["state"] = "removed"

    async def _find(self, versions: Sequence[FileVersionKey]) -> list[bool]:
        try:
            return await asyncio.wrap_future(self.deletions.find(versions))
        except sqlite3.Error as error:
            raise Refusal("journal_unavailable", f"uploads cannot be read now: {error}") from error

    async def _own(self, incoming: IncomingRequest) -> Response:
        body = parse_json(await read_small_body(incoming.request, _MAX_BODY_BYTES))
        versions = [(str(path), str(etag), key) for path, etag, key in body["versions"][:MAX_VERSIONS]]
        return json_response({"removed": await self._find(versions)})


def version_of(row: dict[str, Any]) -> FileVersionKey:
    """Return the version that an upload became. Two objects of the same bytes have one entity tag."""
    return row["path"], row["etag"], row["upload_id"] if row.get("place") else None
