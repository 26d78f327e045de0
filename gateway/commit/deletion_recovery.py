"""Settles at start which of the files that were being removed are gone. Blocking."""

from __future__ import annotations

import logging
import sqlite3

from gateway.domain import paths
from gateway.domain.model import Identity
from gateway.errors import ConfigError, Refusal
from gateway.events.deletions import PendingDeletion
from gateway.events.journal import Journal
from gateway.storage.local.directory import sync_file_system
from gateway.storage.local.tree import DirectoryTree
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")


def settle_deletions(tree: DirectoryTree, journal: Journal) -> list[PendingDeletion]:
    """Settle the removals of files that a crash interrupted; return those of objects, still held.

    A file whose very version is still there stays, and its event is forgotten; else the event is
    delivered. Before anything is claimed. Raises `ConfigError` when the disk or the journal does not
    allow it.
    """
    try:
        pending = journal.deletions.pending().result()
        files = [row for row in pending if row.place is None]
        if files:
            _settle_files(tree, journal, files)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"removals that an earlier run left cannot be settled ({error}): check that the disk is"
            " sound and that the user of this process may read the directory"
        ) from error
    return [row for row in pending if row.place is not None]


def _settle_files(tree: DirectoryTree, journal: Journal, files: list[PendingDeletion]) -> None:
    sync_file_system(tree.root_fd)  # what is gone now has to stay gone
    kept = {row.id for row in files if _is_there(tree, row)}
    if kept:
        journal.deletions.forget(sorted(kept)).result()
    journal.deletions.settle([row.id for row in files if row.id not in kept]).result()
    log.info(
        "recovered: %d removals were interrupted, %d of their files stay",
        len(files),
        len(kept),
        extra=event("deletions.recovered", count=len(files), kept=len(kept)),
    )


def _is_there(tree: DirectoryTree, row: PendingDeletion) -> bool:
    try:
        with tree.open_existing(paths.check_path(row.path)) as parent:
            status = parent.target_stat
    except (FileNotFoundError, NotADirectoryError, Refusal):  # something else has the name now
        return False
    return status is not None and Identity.of(status).etag == row.etag
