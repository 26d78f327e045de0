"""Runs shadows of OnFileReceived beside the real decision, on a file that outlives it.

Where handlers decide, their shadows read the private file, which is kept open for them. Where none does,
they read the file once it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.auth.principals import INTERNAL
from gateway.commit.writer import media_type
from gateway.domain.event_bodies import received_body
from gateway.domain.held import PrivateFile
from gateway.domain.model import RECEIVED, Stored, Upload
from gateway.files.private import Loan
from gateway.files.service import FilesService
from gateway.plugins.scripting.decision import Received, read_received
from gateway.plugins.scripting.values import Event
from gateway.plugins.shadow_runs import Shadows, Trial, reported
from gateway.telemetry import logs
from gateway.telemetry.redaction import Redaction


@dataclass(slots=True, frozen=True)
class ReceivedShadows:
    """Begins the shadows of whole files, which are stored below `directory`, if that is on this disk.

    On the server's event loop.
    """

    shadows: Shadows
    files: FilesService
    redaction: Redaction
    directory: Path | None = None

    async def beside_decision(
        self, upload: Upload, received: Mapping[str, Any], private: PrivateFile
    ) -> Trial | None:
        """Run the shadows beside handlers that decide about a private file; None without any."""
        trial = None
        if self.shadows.of(RECEIVED, upload.path):
            with reported():
                loan = await self.files.private.lend(upload.id, private)
                event = Event(received)
                if loan.path is not None:
                    event["filepath"] = str(loan.path)
                trial = self._begin(upload, event, loan)
        return trial

    def after_commit(self, upload: Upload, stored: Stored) -> None:
        """Run the shadows of a file that no handler decided about: it was accepted."""
        if upload.principal == INTERNAL or not self.shadows.of(RECEIVED, upload.path):
            return
        with reported():
            body = self.body(upload, stored.bytes, stored.digests)
            event = Event(self.files.received_event(upload.id, body))
            if self.directory is not None:
                event["filepath"] = str(self.directory / stored.path.removeprefix("/"))
            loan = self.files.private.lend_stored(upload.id)
            self._begin(upload, event, loan).settle(None, None)

    def body(self, upload: Upload, size: int, digests: Mapping[str, str]) -> dict[str, Any]:
        """Return the body of the event about a whole upload."""
        return received_body(
            upload,
            mime=media_type(upload),
            size=size,
            digests=digests,
            params=self.redaction.params(upload.params),
            headers=self.redaction.headers(upload.headers),
        )

    def _begin(self, upload: Upload, event: Event, loan: Loan) -> Trial:
        try:
            shadows = self.shadows.of(RECEIVED, upload.path)
            context = logs.context_with(upload_id=upload.id, event_id=event["id"])
            return self.shadows.begin(shadows, event, read_received, context, loan.end)
        except BaseException:
            loan.end()
            raise

    def held(self, trial: Trial | None, upload: Upload) -> None:
        """Note that handlers with `hold` decide about an upload: their decision is what counts."""
        if trial is not None:
            changes = Received(upload.path, upload.on_conflict, upload.metadata)
            self.shadows.held.keep(upload.id, trial, changes)

    def accepted(self, trial: Trial | None, upload: Upload) -> None:
        """Compare the shadows with an acceptance, and the changes that are in `upload`."""
        if trial is not None:
            trial.settle(Received(upload.path, upload.on_conflict, upload.metadata), None)
