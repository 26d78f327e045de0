"""The durable state of one process that a commit changes: its journal and its one-time URLs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.domain.model import Upload
from gateway.events.journal import Journal
from gateway.storage.local.one_time_marks import OneTimeMarks


@dataclass(slots=True, frozen=True)
class ProcessState:
    """The journal and the used one-time URLs of the process with this `slot`.

    A one-time URL is used up before its upload is published, and released only where the upload never
    will be. Blocking; `one_time_marks.sync` makes either durable.
    """

    slot: int
    journal: Journal
    one_time_marks: OneTimeMarks

    def consume_url(self, upload: Upload) -> bool:
        """Use up the one-time URL of an upload; return whether it has one.

        Raises `Refusal` `used_up`, `expired` (a day late), `OSError`.
        """
        grant = upload.grant
        if grant is None or grant.once is None:
            return False
        self.one_time_marks.consume(grant.once, upload.id, grant.expires)
        return True

    def release_urls(self, uploads: Iterable[Upload]) -> bool:
        """Make the one-time URLs of uploads valid again; return whether there are any to be synced."""
        released = False
        for upload in uploads:
            grant = upload.grant
            if grant is not None and grant.once is not None:
                self.one_time_marks.release(grant.once, upload.id)
                released = True
        return released
