"""Settles at start what a crash left; finished before the port opens.

A body that is still in `incoming/` was never answered with a 2xx: its row is deleted, durably, and the
one-time URL that it used is valid again; then the body is removed. A row whose body is gone was
published: its deliveries become ready. Nothing is ever given a name here, so nothing newer can be
overwritten. Blocking.
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

_CHUNK: Final = 500
"""Bodies that are settled at once."""


@dataclass(slots=True, frozen=True)
class Recovered:
    """What a start settled: bodies removed, rows of unanswered uploads deleted, deliveries resumed."""

    removed: int
    undone: int
    resumed: int


def recover(incoming: IncomingDirectory, journal: Journal, one_time_marks: OneTimeMarks) -> Recovered:
    """Settle every body, one-time URL and unfinished delivery of this slot.

    Raises `ConfigError` when the disk does not allow it: then the server must not start, for it
    could not keep its promise. What was settled by then stays settled.
    """
    try:
        return _settle(incoming, journal, one_time_marks)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"what an earlier run left cannot be settled ({error}): free some space, check that the "
            "disk is sound and that the user of this process may write to the state folder"
        ) from error


def _settle(incoming: IncomingDirectory, journal: Journal, one_time_marks: OneTimeMarks) -> Recovered:
    removed = undone = 0
    if journal.outbox.has_unclaimed().result():
        # Their final names were given, maybe not made durable; handlers are about to rely on them.
        os.sync()
    for upload_ids in _chunks(incoming.upload_ids()):
        recorded = journal.outbox.recorded_uploads(upload_ids).result()
        private = {upload_id for upload_id in upload_ids if not _was_published(incoming, upload_id)}
        unpublished = [upload_id for upload_id in recorded if upload_id in private]
        if unpublished:
            journal.outbox.forget_uploads(unpublished).result()
        one_time_marks.release_all(private)
        for upload_id in upload_ids:
            incoming.remove(upload_id)
        removed += len(upload_ids)
        undone += len(unpublished)
    incoming.sync()
    held, running = journal.queue.recover().result()
    recovered = Recovered(removed, undone, held + running)
    if any((removed, undone, held, running)):
        log.info(
            "recovered: %d unfinished bodies removed, %d unanswered uploads undone,"
            " %d deliveries resumed",
            recovered.removed,
            recovered.undone,
            recovered.resumed,
            extra=event("startup.recovered"),
        )
    return recovered


def _was_published(incoming: IncomingDirectory, upload_id: str) -> bool:
    """Tell whether the body also has its final name: the crash came between link and unlink."""
    return incoming.stat(upload_id).st_nlink > 1


def _chunks(upload_ids: Iterator[str]) -> Iterator[list[str]]:
    # Removing entries while a folder is being read may skip some: read it through first. Ids are
    # short, and there are no more of them than there were uploads at once.
    complete = iter(list(upload_ids))
    while chunk := list(itertools.islice(complete, _CHUNK)):
        yield chunk
