"""Settles at start which held uploads are there, published, or lost. Blocking.

A held upload has its body in `.gateway/held/`: one that was in `incoming/` is back by now. While it has
no other name it was never published: what a publishing recorded could not be deleted, and is now.
Without it the upload was published, if it is recorded as such, or its client was told of a failure, or
the disk has lost it. A body that no journal knows is kept, and told of: a journal may have been put
aside.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from typing import Final

from gateway.events.journal import Journal
from gateway.storage.local.held_directory import HeldDirectory
from gateway.storage.local.incoming import IncomingDirectory
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

_CHUNK: Final = 500
"""Held uploads that are looked at at once."""


def known_as_held(incoming: IncomingDirectory, journal: Journal, private: Set[str]) -> Set[str]:
    """Return which of these bodies, in `incoming/`, are of held uploads; they can go back there.

    Raises `sqlite3.Error`.
    """
    held = private & journal.held_uploads.states(list(private)).result().keys()
    if incoming.held is not None:
        incoming.held.know(held)
    return held


def settle_held(incoming: IncomingDirectory, journal: Journal) -> None:
    """Settle the held uploads of a slot. Raises `OSError`, `sqlite3.Error`."""
    after, folder = "", incoming.held
    if folder is None:
        return
    while rows := journal.held_uploads.files(after, _CHUNK).result():
        after = rows[-1][0]
        ids = [upload_id for upload_id, _ in rows]
        folder.know(ids)
        links = {upload_id: folder.links(upload_id) for upload_id in ids}
        recorded = journal.outbox.recorded_uploads(ids).result()
        undone = [upload_id for upload_id in recorded if links[upload_id] == 1]
        if undone:
            journal.outbox.forget_uploads(undone).result()
        published = [upload_id for upload_id in recorded if links[upload_id] != 1]
        for upload_id in published:
            folder.remove(upload_id)
        if published:
            journal.held_uploads.end(published).result()
        lost = [
            upload_id
            for upload_id, state in rows
            if state == "undecided" and upload_id not in recorded and not links[upload_id]
        ]
        for upload_id in lost:
            _reject(upload_id, journal)
    folder.sync()


def _reject(upload_id: str, journal: Journal) -> None:
    journal.held_uploads.reject_lost(upload_id).result()
    log.error(
        "held upload %s has no body: its client was told of a failure, or the disk has lost it",
        upload_id,
        extra=event("held_upload.lost", upload_id=upload_id),
    )


def warn_of_unknown(folder: HeldDirectory, journal: Journal) -> int:
    """Log the bodies that a journal, the only one, does not know; return how many. They are kept."""
    ids = list(folder.upload_ids())
    unknown = 0
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        unknown += len(chunk) - len(journal.held_uploads.states(chunk).result())
    if unknown:
        log.warning(
            "%d files in %s belong to no upload of the journal: move them away, or put the journal back",
            unknown,
            folder.folder,
            extra=event("held_files.unknown", count=unknown),
        )
    return unknown
