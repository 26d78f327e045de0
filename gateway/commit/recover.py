"""Settles at start what an earlier run left; finished before the port opens. Blocking.

A body that is still in `incoming/` was never answered with a 2xx, unless it has a second name or a note
in the journal: its row is deleted, durably, and the one-time URL that it used is valid again; then the
body is removed or, if it is that of a partial upload, it goes back to these. That of a held upload goes
back to `held/`, and its URL stays used up. A row whose body is gone was published: its deliveries become
ready. Nothing is given a name here: nothing newer is overwritten.

With fewer processes than before, slots that no process serves any more are emptied into a living one.
First the slot is recovered like any other; then its journal is renamed, so that it cannot be served
again with rows that are elsewhere too; then its rows are copied; then it is removed. A crash in between
repeats what is missing at the next start. With more processes, new slots get the operator's pauses.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.commit.held.recovery import known_as_held, settle_held
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.storage.local.directory import sync_file_system, sync_folder
from gateway.storage.local.held_directory import HeldDirectory
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.state_dir import (
    SLOT_LOCK_TIMEOUT,
    LockHeldError,
    StateDirectory,
    existing_slots,
)
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

_CHUNK: Final = 500
"""Bodies that are settled at once."""

LEAVING: Final = "leaving-*.db"
"""Journals whose rows are being copied into another one."""


@dataclass(slots=True, frozen=True)
class Recovered:
    """What a start settled: bodies removed, rows of unanswered uploads deleted, deliveries resumed.

    `returned` are bodies that went back to the partial or held uploads.
    """

    removed: int
    undone: int
    resumed: int
    returned: int = 0


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
    removed = undone = returned = 0
    if journal.outbox.has_unclaimed().result():
        # Their final names were given, maybe not made durable; handlers are about to rely on them.
        sync_file_system(incoming.fd)
    for upload_ids in _chunks(incoming.upload_ids()):
        recorded = journal.outbox.recorded_uploads(upload_ids).result()
        noted = journal.published_notes.find(upload_ids).result()
        unnoted = set(upload_ids) - noted
        private = {upload_id for upload_id in unnoted if not _was_published(incoming, upload_id)}
        held = known_as_held(incoming, journal, private)
        unpublished = [upload_id for upload_id in recorded if upload_id in private]
        if unpublished:
            journal.outbox.forget_uploads(unpublished).result()
        one_time_marks.release_all(private - held)
        before = returned
        for upload_id in upload_ids:
            if upload_id not in private:
                incoming.remove(upload_id)
            elif incoming.withdraw(upload_id):
                returned += 1
        if noted:
            incoming.sync()
            journal.published_notes.remove(list(noted)).result()
        removed += len(upload_ids) - (returned - before)
        undone += len(unpublished)
    incoming.sync()
    settle_held(incoming, journal)
    due, running = journal.queue.recover().result()
    recovered = Recovered(removed, undone, due + running, returned)
    if any((removed, undone, due, running, returned)):
        log.info(
            "recovered: %d unfinished bodies removed, %d unanswered uploads undone,"
            " %d deliveries resumed, %d partial or held uploads kept",
            recovered.removed,
            recovered.undone,
            recovered.resumed,
            recovered.returned,
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


def absorb_slots(state: StateDirectory, journal: Journal, count: int) -> int:
    """Move into `journal` what slots from `count` on have left; return how many deliveries came.

    The caller holds the lock of the directory. Raises `ConfigError` when the disk does not allow it.
    """
    try:
        absorbed = _absorb(state.folder, journal)  # what a crash interrupted
        for slot in existing_slots(state.folder):
            if slot >= count and _vacate(StateDirectory(state.folder, slot)):
                absorbed += _absorb(state.folder, journal)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"the deliveries of an unused slot cannot be taken over ({error}): free some space and check"
            " that the disk is sound",
            str(state.folder),
        ) from error
    return absorbed


def create_journals(state: StateDirectory, journal: Journal, count: int) -> None:
    """Create the missing journals of slots below `count`, with the pauses that `journal` has.

    The caller holds the lock of the directory. Raises `ConfigError`.
    """
    for slot in range(count):
        path = StateDirectory(state.folder, slot).journal
        if path.exists():
            continue
        incomplete = path.with_name(f"founding-{slot}.db")
        incomplete.unlink(missing_ok=True)
        new = Journal(incomplete)
        new.open()
        try:
            new.copy_pauses(journal)
        finally:
            new.close()
        incomplete.rename(path)
        sync_folder(state.folder)


def _vacate(orphan: StateDirectory) -> bool:
    """Recover a slot and rename its journal; return whether that was done."""
    try:
        orphan.prepare()
        orphan.lock.acquire(SLOT_LOCK_TIMEOUT)
    except LockHeldError:
        log.warning(
            "slot %d is not taken over: another process holds its lock",
            orphan.slot,
            extra=event("slot.locked", slot=orphan.slot),
        )
        return False
    try:
        _recover(orphan)
        os.rename(orphan.journal, orphan.folder / LEAVING.replace("*", str(orphan.slot)))
        sync_folder(orphan.folder)
    finally:
        orphan.lock.release()
    return True


def _recover(orphan: StateDirectory) -> None:
    partials, held = PartialDirectory(orphan.partials), HeldDirectory(orphan.held)
    incoming, journal = IncomingDirectory(orphan.incoming, partials, held), Journal(orphan.journal)
    one_time_marks = OneTimeMarks(orphan.one_time_marks)
    try:
        journal.open()
        try:
            recover(incoming, journal, one_time_marks)
        finally:
            journal.close()
    finally:
        incoming.close()
        partials.close()
        held.close()
        one_time_marks.close()
    if Path(f"{orphan.journal}-wal").exists():
        raise OSError("its write-ahead log could not be folded into it")
    orphan.incoming.rmdir()
    orphan.socket.unlink(missing_ok=True)


def _absorb(folder: Path, journal: Journal) -> int:
    """Copy the rows of leaving journals, then remove these; no row is copied twice."""
    absorbed = 0
    for path in sorted(folder.glob(LEAVING)):
        leaving = Journal(path)
        leaving.open()
        try:
            deliveries = journal.copy_from(leaving)
        finally:
            leaving.close()
        absorbed += deliveries
        path.unlink()
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}{suffix}")
        sync_folder(folder)
        log.info(
            "took over %d deliveries from an unused slot (%s)",
            deliveries,
            path.name,
            extra=event("slot.absorbed", deliveries=deliveries, journal=path.name),
        )
    return absorbed
