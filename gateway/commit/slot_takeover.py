"""A gateway starts with fewer processes than before, or with more.

With fewer, slots that no process serves any more are emptied into one that lives. First the slot is
recovered like any other; then its journal is renamed, so that it cannot be served again with rows
that stand elsewhere too; then its rows are copied; then it goes. A crash anywhere in between
repeats what is missing at the next start, before anything is served. With more, new slots pause
what the operator has paused. Blocking.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from gateway.commit.recover import recover
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.storage.local.directory import sync_folder
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.local.state_dir import (
    SLOT_LOCK_TIMEOUT,
    LockHeldError,
    StateDirectory,
    existing_slots,
)

log = logging.getLogger("gateway.commit")

LEAVING = "leaving-*.db"
"""Journals whose rows are on their way into another one."""


def adopt(state: StateDirectory, journal: Journal, count: int) -> int:
    """Move into `journal` what slots from `count` on have left; return how many deliveries came.

    The caller holds the lock of the directory. Raises `ConfigError` when the disk does not allow it.
    """
    try:
        adopted = _take_in(state.folder, journal)  # what a crash interrupted
        for slot in existing_slots(state.folder):
            if slot >= count and _leave(StateDirectory(state.folder, slot)):
                adopted += _take_in(state.folder, journal)
    except (OSError, sqlite3.Error) as fault:
        raise ConfigError(
            f"what another process left cannot be taken over ({fault}): free some space and see that "
            "the disk is sound",
            str(state.folder),
        ) from fault
    return adopted


def found(state: StateDirectory, journal: Journal, count: int) -> None:
    """Begin the journals of new slots below `count` where there is something they must know at once.

    The caller holds the lock of the directory. Raises `ConfigError`.
    """
    for slot in range(count):
        place = StateDirectory(state.folder, slot).journal
        if place.exists():
            continue
        founding = place.with_name(f"founding-{slot}.db")
        founding.unlink(missing_ok=True)
        new = Journal(founding)
        new.open()
        try:
            new.pause_like(journal)
        finally:
            new.close()
        founding.rename(place)
        sync_folder(state.folder)


def _leave(orphan: StateDirectory) -> bool:
    """Recover a slot and rename its journal; return whether that was done."""
    try:
        orphan.prepare()
        orphan.lock(SLOT_LOCK_TIMEOUT)
    except LockHeldError:
        log.warning("slot %d is left alone: somebody holds its lock", orphan.slot)
        return False
    try:
        _recover(orphan)
        os.rename(orphan.journal, orphan.folder / LEAVING.replace("*", str(orphan.slot)))
        sync_folder(orphan.folder)
    finally:
        orphan.unlock()
    return True


def _recover(orphan: StateDirectory) -> None:
    incoming, journal = IncomingDirectory(orphan.incoming), Journal(orphan.journal)
    once = OneTimeMarks(orphan.one_time_marks)
    try:
        journal.open()
        try:
            recover(incoming, journal, once)
        finally:
            journal.close()
    finally:
        incoming.close()
        once.close()
    if Path(f"{orphan.journal}-wal").exists():
        raise OSError("its write-ahead log could not be folded into it")
    orphan.incoming.rmdir()
    orphan.socket.unlink(missing_ok=True)


def _take_in(folder: Path, journal: Journal) -> int:
    """Copy what is on its way, then let it go; what was copied before is not copied twice."""
    adopted = 0
    for path in sorted(folder.glob(LEAVING)):
        other = Journal(path)
        other.open()
        try:
            deliveries = journal.take_over(other)
        finally:
            other.close()
        adopted += deliveries
        path.unlink()
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}{suffix}")
        sync_folder(folder)
        log.info("adopted: %d deliveries of a process that is no more (%s)", deliveries, path.name)
    return adopted
