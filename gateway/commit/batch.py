"""What the committer's thread does with one batch, step by step.

Always in this order: bytes durable, one journal transaction, final names, folders durable. What fails
before the final name is undone (rows first, durably, then the body); what fails after it has no honest
answer and gets none. Blocking; one thread only.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Sequence

from gateway.commit import publish
from gateway.commit.failures import discard_quietly, refusal_of
from gateway.commit.leftovers import Leftovers
from gateway.commit.records import (
    BatchResult,
    CommitRequest,
    LocalDisk,
    ProcessState,
    StagedUpload,
    StoredContent,
    Subscribers,
    UploadEvents,
)
from gateway.domain import failpoints, paths
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.outbox import UploadRecord
from gateway.storage.local.directory import OpenDirectory
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

_Folders = dict[tuple[str, ...], OpenDirectory]
"""The folders that a batch has open, by the segments that lead there."""


class BatchCommitter:
    """The steps of a batch."""

    def __init__(self, disk: LocalDisk, state: ProcessState, events: UploadEvents) -> None:
        self._disk = disk
        self._state = state
        self._outbox = state.journal.outbox
        self._events = events
        self._leftovers = Leftovers(disk.incoming, state)

    def clean_up(self) -> None:
        """Do what earlier batches could not do, as far as that is possible now."""
        self._leftovers.clean_up()

    def commit(self, requests: Sequence[CommitRequest], result: BatchResult) -> None:
        """Commit `requests` as one batch; put the outcome of each into `result`."""
        requests = self._refuse_unsettled(requests, result)
        self._leftovers.clean_up()
        folders: _Folders = {}
        try:
            self._commit(requests, folders, result)
        finally:
            for folder in folders.values():
                folder.close()

    def _refuse_unsettled(
        self, requests: Sequence[CommitRequest], result: BatchResult
    ) -> list[CommitRequest]:
        """Refuse for now what an earlier try has left: rows to delete, a body to move back."""
        settled: list[CommitRequest] = []
        for request in requests:
            if request.upload.id not in self._leftovers:
                settled.append(request)
                continue
            request.body.truncate()
            refusal = Refusal("journal_unavailable", "an earlier try is not undone yet: try again later")
            result.outcomes[request.upload.id] = refusal
        return settled

    def _commit(self, requests: Sequence[CommitRequest], folders: _Folders, result: BatchResult) -> None:
        staged = self._finalize_all(self._stage_all(requests, folders, result), result)
        if not staged or not self._sync_incoming(staged, result):
            return
        staged = self._consume_urls(staged, result)
        if not staged:
            return
        failpoints.hit("before journal commit")
        recorded = self._record(staged, self._events.subscribers(), result)
        if not recorded:
            return
        failpoints.hit("after journal commit")
        published = self._publish_all(recorded, result)
        failpoints.hit("before directory sync")
        self._sync_folders(published, result)
        failpoints.hit("after directory sync")

    def _stage_all(
        self, requests: Sequence[CommitRequest], folders: _Folders, result: BatchResult
    ) -> list[StagedUpload]:
        """Open the folders, choose the names, start to write the bytes to the disk."""
        staged: list[StagedUpload] = []
        batch_names: set[publish.Name] = set()
        unreserved = [request.body.size for request in requests if not request.space_reserved]
        no_space = self._check_space(sum(unreserved)) if unreserved else None
        for request in requests:
            try:
                if no_space is not None and not request.space_reserved:
                    raise no_space
                segments = paths.check_path(request.upload.path)
                parent = self._open_parent(segments, folders)
                replaced = publish.choose_name(request.upload, parent, batch_names)
                request.body.flush(writeback=self._disk.durable)
            except Exception as error:
                self._discard(request, refusal_of(error), result)
                continue
            batch_names.add((*parent.folder, parent.name))
            staged.append(StagedUpload(request, parent, segments, replaced))
        return staged

    def _check_space(self, amount: int) -> Refusal | None:
        """Return why `amount` bytes do not fit; an empty file needs a byte of space too."""
        try:
            self._disk.space.check(max(amount, 1), new_file=True)
        except (Refusal, OSError) as error:
            return refusal_of(error)
        return None

    def _open_parent(self, segments: tuple[str, ...], folders: _Folders) -> OpenDirectory:
        """Walk to a folder once for all uploads of the batch that go there."""
        first = folders.get(segments[:-1])
        if first is not None:
            return self._disk.tree.sibling(first, segments)
        parent = folders[segments[:-1]] = self._disk.tree.open_parent(segments)
        return parent

    def _finalize_all(self, staged: list[StagedUpload], result: BatchResult) -> list[StagedUpload]:
        """Wait for the bytes to be durable: all are being written, so the first waits for most."""
        finalized: list[StagedUpload] = []
        for item in staged:
            try:
                item.identity = item.request.body.finalize(durable=self._disk.durable)
                item.request.add_kept_digest()
            except Exception as error:
                self._discard(item.request, refusal_of(error), result)
            else:
                finalized.append(item)
                failpoints.hit("after file sync")
        return finalized

    def _sync_incoming(self, staged: list[StagedUpload], result: BatchResult) -> bool:
        """Make the private names durable before the rows: recovery relies on their absence."""
        try:
            if self._disk.durable:
                self._disk.incoming.sync()
        except OSError as error:
            refusal = refusal_of(error)
            for item in staged:
                self._discard(item.request, refusal, result)
            return False
        return True

    def _consume_urls(self, staged: list[StagedUpload], result: BatchResult) -> list[StagedUpload]:
        """Use up the one-time URLs, before anything is published; return uploads with a valid URL."""
        consumed, valid = [], []
        for item in staged:
            try:
                if not item.request.was_held and self._state.consume_url(item.upload):
                    consumed.append(item)
            except Exception as error:
                self._discard(item.request, refusal_of(error), result)
            else:
                valid.append(item)
        if not consumed:
            return valid
        try:
            self._state.one_time_marks.sync()
        except OSError as error:
            self._undo([item.request for item in consumed], refusal_of(error), result)
            return [item for item in valid if item not in consumed]
        failpoints.hit("after url used up")
        return valid

    def _record(
        self, staged: list[StagedUpload], subscribers: Subscribers, result: BatchResult
    ) -> list[StagedUpload]:
        """Write the rows in one transaction; return the uploads whose rows are durable."""
        try:
            self._outbox.record_uploads_now([self._row(item, subscribers) for item in staged])
        except sqlite3.Error as error:
            self._undo([item.request for item in staged], refusal_of(error), result)
            return []
        except Exception as error:
            # One of them cannot be written at all (say, text that is no Unicode): each for itself.
            if len(staged) > 1:
                return [row for item in staged for row in self._record([item], subscribers, result)]
            self._undo([staged[0].request], refusal_of(error), result)
            return []
        return staged

    def _row(self, item: StagedUpload, subscribers: Subscribers) -> UploadRecord:
        """Return an upload's row; put its events into `item`: they are built here, not on the loop."""
        upload, request, identity, path = item.upload, item.request, item.identity, item.path
        if subscribers:
            size, etag, digests = identity.size, identity.etag, request.digests
            content = StoredContent(path, size, request.mime, etag, digests=digests)
            item.events = tuple(
                self._events.records(subscribers, upload, content, from_client=request.from_client)
            )
        return item.row()

    def _publish_all(self, recorded: list[StagedUpload], result: BatchResult) -> list[StagedUpload]:
        lock = self._disk.rename_lock
        if lock is None:
            return [item for item in recorded if self._publish(item, result)]
        with contextlib.ExitStack() as shared:
            try:
                shared.enter_context(lock.shared())
            except Exception as error:
                self._undo([item.request for item in recorded], refusal_of(error), result)
                return []
            return [item for item in recorded if self._publish(item, result)]

    def _publish(self, item: StagedUpload, result: BatchResult) -> bool:
        """Give the final name; return whether a start will know that it was given."""
        try:
            is_private_gone = self._give_name(item)
        except Exception as error:
            self._undo([item.request], refusal_of(error), result)
            return False
        result.event_ids += [record.event_id for record in item.events]
        result.outcomes[item.upload.id] = UnknownOutcome("published, but not known to be durable")
        failpoints.hit("after rename")
        return is_private_gone or self._note_published(item)

    def _note_published(self, item: StagedUpload) -> bool:
        try:
            self._leftovers.note_published(item.upload.id)
        except sqlite3.Error as error:
            log.error(
                "%s is published, which could not be noted: %s",
                item.path,
                error,
                extra=event("upload.unsettled", upload_id=item.upload.id),
            )
            return False
        return True

    def _give_name(self, item: StagedUpload) -> bool:
        """Give the final name; return whether the private one is gone."""
        upload, parent, incoming = item.upload, item.parent, self._disk.incoming
        if upload.on_conflict == "replace" and not upload.must_be_new:
            publish.replace(incoming, upload.id, parent)
            return True
        for _ in range(paths.MAX_NUMBERED_NAMES):
            try:
                return publish.add(incoming, upload.id, parent)
            except publish.NameTakenError:
                # Another process created the name after it was checked.
                parent.target_stat = parent.stat()
                publish.choose_name(upload, parent, ())
                self._outbox.move_upload(upload.id, item.path).result()
        raise Refusal("conflict", "every name that was tried was taken by another upload: try again")

    def _sync_folders(self, published: list[StagedUpload], result: BatchResult) -> None:
        synced: set[tuple[int, int]] = set()
        for item in published:
            try:
                if self._disk.durable:
                    item.parent.sync(synced)
            except OSError as error:
                log.error(
                    "the folder of %s cannot be synced: %s",
                    item.path,
                    error,
                    extra=event("folder.unsynced", path=item.path),
                )
                continue
            result.outcomes[item.upload.id] = item.stored()

    def _undo(self, requests: list[CommitRequest], refusal: Refusal, result: BatchResult) -> None:
        """Delete what the journal may hold, durably; only then the bodies."""
        ids = [request.upload.id for request in requests]
        try:
            # The URLs first: they are valid again even where the rows cannot be deleted yet.
            if self._state.release_urls([r.upload for r in requests if not r.was_held]):
                self._state.one_time_marks.sync()
            self._outbox.forget_uploads(ids).result()
        except (sqlite3.Error, OSError):
            # While an (empty) body is there, recovery knows that the upload was never published.
            self._leftovers.undo_later(ids)
            for request in requests:
                request.body.truncate()
                result.outcomes[request.upload.id] = refusal
            return
        for request in requests:
            self._discard(request, refusal, result)

    def _discard(self, request: CommitRequest, refusal: Refusal, result: BatchResult) -> None:
        result.outcomes[request.upload.id] = refusal
        discard_quietly(request.body)
