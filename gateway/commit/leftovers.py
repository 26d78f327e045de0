"""What a batch could not clean up, and tries again before the next one.

Blocking; called by the committer's thread only.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence

from gateway.commit.records import ProcessState
from gateway.storage.local.incoming import IncomingDirectory


class Leftovers:
    """Uploads whose rows could not be deleted, and published ones whose private file is still there."""

    def __init__(self, incoming: IncomingDirectory, state: ProcessState) -> None:
        self._incoming = incoming
        self._state = state
        self._unpublished: list[str] = []
        self._published: list[str] = []

    def undo_later(self, upload_ids: Sequence[str]) -> None:
        """Delete the rows of unpublished uploads later. Their empty files tell recovery meanwhile."""
        self._unpublished.extend(upload_ids)

    def __contains__(self, upload_id: object) -> bool:
        """Tell whether the journal may have rows of an earlier try to commit this upload."""
        return upload_id in self._unpublished

    def note_published(self, upload_id: str) -> None:
        """Note, durably, that an upload is published, and remove its private file later.

        Raises `sqlite3.Error`: then a start may undo the upload, which must not be answered.
        """
        self._published.append(upload_id)
        self._state.journal.published_notes.add(upload_id).result()

    def clean_up(self) -> None:
        """Try again; what fails stays for the next time."""
        with contextlib.suppress(sqlite3.Error, OSError):
            if self._unpublished:
                self._undo()
            if self._published:
                self._remove_published()

    def _undo(self) -> None:
        ids = self._unpublished
        self._state.journal.outbox.forget_uploads(ids).result()
        held = self._incoming.held
        released = [name for name in ids if held is None or not held.knows(name)]
        self._state.one_time_marks.release_all(released)
        while ids:
            self._incoming.withdraw(ids[-1])
            ids.pop()

    def _remove_published(self) -> None:
        ids = self._published
        for upload_id in ids:
            self._incoming.remove(upload_id)
        self._incoming.sync()  # a note may go only when its file has gone for good
        self._state.journal.published_notes.remove(ids).result()
        ids.clear()
