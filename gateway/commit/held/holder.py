"""Records uploads that are whole and wait for a decision: row, event and first delivery at once.

A one-time URL is used up here, before the 202, and by the commit no more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from gateway.commit.failures import refusal_of
from gateway.commit.records import ProcessState
from gateway.domain import failpoints
from gateway.domain.event_bodies import received_body
from gateway.domain.held import Held
from gateway.domain.model import Identity, Upload
from gateway.errors import UnknownOutcome
from gateway.events.held_operations import HoldRecord
from gateway.storage.waiting import finish_in_thread
from gateway.telemetry.logs import event
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway.commit")


class HeldBody(NamedTuple):
    """A whole, private body, durable. `place` is its private object, None for a file."""

    upload: Upload
    identity: Identity
    mime: str
    digests: dict[str, str]
    handlers: Sequence[str]
    place: dict[str, Any] | None = None

    @property
    def held(self) -> Held:
        """The held upload, as its client hears of it."""
        upload = self.upload
        return Held(upload.id, upload.path, self.identity.size, self.mime, dict(self.digests))


class Holder:
    """Writes held uploads into the journal of this process. `redaction` is of what the journal keeps."""

    def __init__(self, state: ProcessState, redaction: Redaction) -> None:
        self._state = state
        self._redaction = redaction
        self._uploads = state.journal.held_uploads

    async def record(self, body: HeldBody) -> Held:
        """Record a held upload, durably, and let its first handler run.

        Raises `Refusal`: then nothing is recorded, and its one-time URL is valid again; `UnknownOutcome`
        where the journal cannot tell. A caller that is cancelled waits for the outcome.
        """
        return await finish_in_thread(self._record, body)

    def _record(self, body: HeldBody) -> Held:
        upload_id = body.upload.id
        try:
            if self._state.consume_url(body.upload):
                self._state.one_time_marks.sync()
            self.write([body])
        except Exception as error:
            if not self.undo([body]):
                raise UnknownOutcome(f"upload {upload_id} may be held: {error}") from error
            raise refusal_of(error) from error
        self._uploads.release([upload_id])
        return body.held

    def write(self, bodies: Sequence[HeldBody]) -> None:
        """Write held uploads in one transaction; no handler runs before their release. Blocking.

        Raises `sqlite3.Error`, and what JSON cannot write.
        """
        failpoints.hit("before held row")
        self._uploads.record([self._row(body) for body in bodies]).result()
        failpoints.hit("after held row")
        for body in bodies:
            log.info(
                "upload %s waits for the decision of %s",
                body.upload.id,
                body.handlers[0],
                extra=event("upload.held", upload_id=body.upload.id, handlers=list(body.handlers)),
            )

    def undo(self, bodies: Sequence[HeldBody]) -> bool:
        """Delete what may have been written; return whether that is certain. Blocking.

        Where it is not, a start finds no body, and deletes the row.
        """
        try:
            # The URLs first: they are valid again even where the rows cannot be deleted yet.
            if self._state.release_urls([body.upload for body in bodies]):
                self._state.one_time_marks.sync()
            self._uploads.forget([body.upload.id for body in bodies]).result()
        except Exception as error:
            log.error(
                "held uploads could not be deleted from the journal: %s",
                error,
                extra=event("upload.unsettled"),
            )
            return False
        return True

    def _row(self, body: HeldBody) -> HoldRecord:
        upload, redaction = body.upload, self._redaction
        params, headers = redaction.params(upload.params), redaction.headers(upload.headers)
        event_body = received_body(
            upload,
            mime=body.mime,
            size=body.identity.size,
            digests=body.digests,
            params=params,
            headers=headers,
        )
        kept = replace(upload, params=params, headers=headers)
        return HoldRecord(
            kept, body.identity, body.mime, body.digests, body.handlers, event_body, body.place
        )
