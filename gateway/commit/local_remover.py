"""Removes files of DIRECTORY for clients, those that wait together as one batch.

Always in this order: the version is looked at, recorded with its event (held), unlinked, its folder
synced, its event released. No upload is published meanwhile: this runs between batches of the committer,
and other processes wait for the rename lock. What fails before the unlink is undone, what fails after it
gets no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.commit.committer import Committer
from gateway.commit.deletion import DeletionEvents, version_mismatch
from gateway.commit.failures import refusal_of
from gateway.commit.records import LocalDisk
from gateway.domain import failpoints, paths
from gateway.domain.model import FileRequest, Identity
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.deletions import DeletionLog, DeletionRecord, PendingDeletion
from gateway.storage.local.directory import Inode, OpenDirectory
from gateway.storage.local.xattrs import NO_ATTRIBUTES, FileAttributes, read_attributes
from gateway.storage.protocols import Stat
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

MAX_BATCH: Final = 32
"""Files that one batch removes: uploads wait meanwhile."""

_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Outcome = None | Refusal | UnknownOutcome
"""None: the file is gone."""


_UNFINISHED: Final = UnknownOutcome("the removal has not ended")


@dataclass(slots=True, eq=False)
class _Job:
    """One removal. `fd` keeps the file: freeing the blocks of a large one takes long, and can wait."""

    deletion: FileRequest
    etags: Collection[str] | None
    done: asyncio.Future[None]
    segments: tuple[str, ...] = ()
    fd: int = -1
    parent: OpenDirectory | None = None
    record: DeletionRecord | None = None
    outcome: Outcome = _UNFINISHED


class LocalRemover:
    """DIRECTORY as a `FileRemover`."""

    def __init__(
        self, disk: LocalDisk, committer: Committer, log_of: DeletionLog, events: DeletionEvents
    ) -> None:
        self._disk = disk
        self._committer = committer
        self._log = log_of
        self._events = events
        self._waiting: list[_Job] = []
        self._running: asyncio.Task[None] | None = None
        self._unforgotten: list[str] = []

    def take_over(self, rows: Sequence[PendingDeletion]) -> None:
        """Tell of removals that wait for the bucket of an earlier `--storage`."""
        if rows:
            log.error(
                "%d removals wait for the bucket of an earlier --storage",
                len(rows),
                extra=event("deletions.pending", count=len(rows)),
            )

    async def start(self) -> None:
        """Do nothing: the start has settled all."""

    async def close(self) -> None:
        """See `FileRemover.close`."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def remove(self, deletion: FileRequest, etags: Collection[str] | None = None) -> None:
        """See `FileRemover.remove`. What waits is bounded by the requests in flight."""
        segments = paths.check_path(deletion.path)
        loop = asyncio.get_running_loop()
        job = _Job(deletion, etags, loop.create_future(), segments)
        self._waiting.append(job)
        if self._running is None:
            self._running = loop.create_task(self._run())
        await job.done

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                await self._committer.between_batches(partial(self._remove_all, batch))
                self._disk.executor.submit(_close_all, [job.fd for job in batch if job.fd >= 0])
                for job in batch:
                    _resolve(job)
        finally:
            self._running = None

    def _next_batch(self) -> list[_Job]:
        """Take the removals that wait, a path once: the second one finds what the first has left."""
        batch: dict[tuple[str, ...], _Job] = {}
        for job in self._waiting:
            if len(batch) < MAX_BATCH:
                batch.setdefault(job.segments, job)
        selected = {id(job) for job in batch.values()}
        self._waiting = [job for job in self._waiting if id(job) not in selected]
        return list(batch.values())

    # -- the committer's thread

    def _remove_all(self, jobs: Sequence[_Job]) -> None:
        lock = self._disk.rename_lock
        try:
            self._forget_again()
            with contextlib.nullcontext() if lock is None else lock.exclusive():
                removed = self._unlink_all(self._record_all([job for job in jobs if self._open(job)]))
            self._sync_all(removed)
        except Exception as error:  # of those that are not removed yet
            for job in jobs:
                if job.record is None and isinstance(job.outcome, UnknownOutcome):
                    job.outcome = refusal_of(error)
            if not isinstance(error, Refusal):
                log.exception("files could not be removed", extra=event("deletion.failed"))
        finally:
            for job in jobs:
                if job.parent is not None:
                    job.parent.close()

    def _open(self, job: _Job) -> bool:
        """Open the file and its folder, and describe the version. False, with an outcome: refused."""
        try:
            job.parent = self._disk.tree.open_existing(job.segments)
            job.fd, attributes = _open_file(job.parent)
            identity = Identity.of(os.fstat(job.fd))
        except (FileNotFoundError, NotADirectoryError):
            job.outcome = _missing()
        except Refusal as refusal:
            job.outcome = self._refused(job, refusal)
        except OSError as error:
            job.outcome = refusal_of(error)
        else:
            if job.etags is not None and identity.etag not in job.etags:
                job.outcome = version_mismatch(job.deletion.path)
                return False
            path = "/" + "/".join(job.segments)
            modified = identity.mtime_ns / 1e9
            stat = Stat(
                path, identity.size, modified, identity.etag, attributes.mime, attributes.metadata
            )
            job.record = self._events.record(job.deletion, stat)
            return True
        return False

    def _refused(self, job: _Job, refusal: Refusal) -> Refusal:
        """Return `not_found` for a file on the way: there is nothing below it."""
        if refusal.code != "conflict":
            return refusal
        try:
            os.close(self._disk.tree.open_folder(job.segments[:-1]))
        except (Refusal, OSError):
            return _missing()
        return Refusal("conflict", f"{job.deletion.path} is no file: only files are removed")

    def _record_all(self, jobs: list[_Job]) -> list[_Job]:
        """Write the rows in one transaction; return the removals whose rows are durable."""
        if not jobs:
            return []
        try:
            self._log.record_now([job.record for job in jobs if job.record is not None])
        except sqlite3.Error as error:
            self._undo(jobs, refusal_of(error))
            return []
        except Exception as error:
            # One of them cannot be written at all (say, text that is no Unicode): each for itself.
            if len(jobs) > 1:
                return [recorded for job in jobs for recorded in self._record_all([job])]
            self._undo(jobs, refusal_of(error))
            return []
        failpoints.hit("after deletion recorded")
        return jobs

    def _unlink_all(self, jobs: Sequence[_Job]) -> list[_Job]:
        return [job for job in jobs if self._unlink(job)]

    def _unlink(self, job: _Job) -> bool:
        parent = job.parent
        if parent is None:
            raise RuntimeError("a removal has no folder")
        try:
            # A program other than the gateway may have put another file there.
            now = os.stat(parent.name, dir_fd=parent.fd, follow_symlinks=False)
            if not os.path.samestat(os.fstat(job.fd), now):
                raise version_mismatch(job.deletion.path)
            os.unlink(parent.name, dir_fd=parent.fd)
        except FileNotFoundError:
            self._undo([job], _missing())
            return False
        except (OSError, Refusal) as error:
            self._undo([job], refusal_of(error))
            return False
        job.outcome = UnknownOutcome("removed, but not known to be durable")
        failpoints.hit("after unlink")
        return True

    def _sync_all(self, jobs: Sequence[_Job]) -> None:
        synced: set[Inode] = set()
        durable: list[str] = []
        for job in jobs:
            try:
                if self._disk.durable and job.parent is not None:
                    job.parent.sync(synced)
            except OSError as error:
                # The next start finds out; the event is held until then.
                log.error(
                    "the folder of %s, which is removed, cannot be synced: %s",
                    job.deletion.path,
                    error,
                    extra=event("folder.unsynced", path=job.deletion.path),
                )
                continue
            job.outcome = None
            durable.append(job.deletion.id)
        if durable:
            failpoints.hit("after deletion sync")
            self._log.settle(durable)

    def _undo(self, jobs: Sequence[_Job], refusal: Refusal) -> None:
        """Delete the rows of files that stay, durably."""
        for job in jobs:
            job.outcome = refusal
        ids = [job.deletion.id for job in jobs]
        try:
            self._log.forget(ids).result()
        except sqlite3.Error:
            self._unforgotten += ids

    def _forget_again(self) -> None:
        """Try again to delete rows; meanwhile their events are held, and a start finds the files."""
        if self._unforgotten:
            with contextlib.suppress(sqlite3.Error):
                self._log.forget(self._unforgotten).result()
                self._unforgotten = []


def _open_file(parent: OpenDirectory) -> tuple[int, FileAttributes]:
    """Return a descriptor that keeps the file, and its attributes as far as they may be read."""
    try:
        fd = os.open(parent.name, os.O_RDONLY | _FLAGS, dir_fd=parent.fd)
    except PermissionError:
        return os.open(parent.name, os.O_PATH | _FLAGS, dir_fd=parent.fd), NO_ATTRIBUTES
    try:
        return fd, read_attributes(fd, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


def _resolve(job: _Job) -> None:
    if job.done.done():  # its caller was cancelled
        return
    if job.outcome is None:
        job.done.set_result(None)
    else:
        job.done.set_exception(job.outcome)


def _missing() -> Refusal:
    return Refusal("not_found", "there is no such file")
