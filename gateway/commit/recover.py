"""At start, settle what a crash left; finished before the port opens.

A body that still lies in `incoming/` was never answered with a 2xx: its row goes, durably, and the
one-time URL that it used is good again; then the body goes. A row whose body is gone was published:
its deliveries become ready. Nothing is ever given a name here, so nothing newer can be overwritten.
Blocking.
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks

log = logging.getLogger("gateway.commit")

_CHUNK = 500


@dataclass(slots=True, frozen=True)
class Recovered:
    """What a start found: bodies swept, rows of unanswered uploads undone, deliveries revived."""

    swept: int
    undone: int
    resumed: int


def recover(incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks) -> Recovered:
    """Settle every body, one-time URL and unfinished delivery of this slot.

    Raises `ConfigError` when the disk does not allow it: then the server must not start, for it
    could not keep its promise. What was settled by then stays settled.
    """
    try:
        return _settle(incoming, journal, once)
    except (OSError, sqlite3.Error) as fault:
        raise ConfigError(
            f"what an earlier run left cannot be settled ({fault}): free some space, see that the "
            "disk is sound and that the user of this process may write to the state folder"
        ) from fault


def _settle(incoming: IncomingDirectory, journal: Journal, once: OneTimeMarks) -> Recovered:
    swept = undone = 0
    if journal.outbox.held().result():
        # Their final names were given, maybe not made durable; handlers are about to rely on them.
        os.sync()
    for names in _chunks(incoming.upload_ids()):
        recorded = journal.outbox.recorded(names).result()
        private = {name for name in names if not _was_published(incoming, name)}
        unpublished = [name for name in recorded if name in private]
        if unpublished:
            journal.outbox.forget(unpublished).result()
        once.release_all(private)
        for name in names:
            incoming.remove(name)
        swept += len(names)
        undone += len(unpublished)
    incoming.sync()
    held, running = journal.queue.resume().result()
    found = Recovered(swept, undone, held + running)
    if any((swept, undone, held, running)):
        log.info(
            "recovered: %d unfinished bodies swept, %d unanswered uploads undone, %d deliveries resumed",
            found.swept,
            found.undone,
            found.resumed,
        )
    return found


def _was_published(incoming: IncomingDirectory, upload_id: str) -> bool:
    """Tell whether the body also has its final name: the crash came between link and unlink."""
    return incoming.stat(upload_id).st_nlink > 1


def _chunks(names: Iterator[str]) -> Iterator[list[str]]:
    # Removing entries while a folder is being read may skip some: read it through first. Ids are
    # short, and there are no more of them than there were uploads at once.
    everything = iter(list(names))
    while chunk := list(itertools.islice(everything, _CHUNK)):
        yield chunk
