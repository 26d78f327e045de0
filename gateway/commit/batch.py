"""What the committer's thread does with one batch, step by step.

In this order, and never another: bytes durable, one journal transaction, final names, folders
durable. Whatever fails before the final name is undone (rows first, durably, then the body);
whatever fails after it has no honest answer and gets none. Blocking; one thread only. May
import events, storage, paths, model, errors.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence

from gateway.commit import publish
from gateway.commit.disk_space import DiskSpace
from gateway.commit.error_mapping import discard_quietly, refusal_of
from gateway.commit.one_time_urls import give_back, use_up
from gateway.commit.records import BatchResult, CommitRequest, StagedUpload, Subscribers, record_of
from gateway.commit.rename_lock import RenameLock
from gateway.domain import failpoints, paths
from gateway.domain.model import Stored
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.outbox import JournalOutbox
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.local.tree import DirectoryTree

log = logging.getLogger("gateway.commit")


class BatchCommitter:
    """The steps and what they work on. `audience()` says who is told of what is stored.

    `once` holds the one-time URLs that are used up.
    `gate` keeps other processes from removing files while this one gives names, None without others.
    """

    def __init__(
        self,
        tree: DirectoryTree,
        incoming: IncomingDirectory,
        outbox: JournalOutbox,
        reserve: DiskSpace,
        *,
        slot: int,
        durable: bool,
        audience: Callable[[], Subscribers],
        once: OneTimeMarks,
        gate: RenameLock | None = None,
    ) -> None:
        self._tree = tree
        self._incoming = incoming
        self._outbox = outbox
        self._reserve = reserve
        self._slot = slot
        self._durable = durable
        self._audience = audience
        self._once = once
        self._passing = contextlib.nullcontext if gate is None else gate.passing
        self._limbo: list[str] = []

    def commit(self, orders: Sequence[CommitRequest], verdicts: BatchResult) -> None:
        """Commit `orders` as one batch and say in `verdicts` what became of each."""
        self._clear_limbo()
        with contextlib.ExitStack() as folders:
            staged = self._seal_all(self._stage_all(orders, folders, verdicts), verdicts)
            if not staged or not self._sync_incoming(staged, verdicts):
                return
            staged = self._use_up(staged, verdicts)
            if not staged:
                return
            failpoints.hit("before journal commit")
            recorded = self._record(staged, self._audience(), verdicts)
            if not recorded:
                return
            failpoints.hit("after journal commit")
            published = self._publish_all(recorded, verdicts)
            failpoints.hit("before directory sync")
            self._sync_folders(published, verdicts)
            failpoints.hit("after directory sync")

    def _stage_all(
        self, orders: Sequence[CommitRequest], folders: contextlib.ExitStack, verdicts: BatchResult
    ) -> list[StagedUpload]:
        """Open the folders, settle the names, bring the bytes on their way to the disk."""
        staged: list[StagedUpload] = []
        opened: dict[tuple[str, ...], OpenDirectory] = {}
        taken: set[publish.Name] = set()
        unlooked = [order.body.size for order in orders if not order.looked]
        no_room = self._no_room_for(sum(unlooked)) if unlooked else None
        for order in orders:
            try:
                if no_room is not None and not order.looked:
                    raise no_room
                segments = paths.check(order.upload.path)
                parent = self._parent(segments, opened, folders)
                replaced = publish.choose_name(order.upload, parent, taken)
                order.body.flush(writeback=self._durable)
            except Exception as fault:
                self._discard(order, refusal_of(fault), verdicts)
                continue
            taken.add((*parent.folder, parent.name))
            staged.append(StagedUpload(order, parent, segments, replaced))
        return staged

    def _no_room_for(self, amount: int) -> Refusal | None:
        """Return why `amount` bytes cannot be taken; an empty file needs a byte of room too."""
        try:
            self._reserve.check(max(amount, 1))
        except (Refusal, OSError) as fault:
            return refusal_of(fault)
        return None

    def _parent(
        self,
        segments: tuple[str, ...],
        opened: dict[tuple[str, ...], OpenDirectory],
        folders: contextlib.ExitStack,
    ) -> OpenDirectory:
        """Walk to a folder once for all uploads of the batch that go there."""
        first = opened.get(segments[:-1])
        if first is not None:
            return self._tree.sibling(first, segments)
        parent = folders.enter_context(self._tree.open_parent(segments))
        opened[segments[:-1]] = parent
        return parent

    def _seal_all(self, staged: list[StagedUpload], verdicts: BatchResult) -> list[StagedUpload]:
        """Wait for the bytes to be durable: all are on their way, so the first waits for most."""
        sealed: list[StagedUpload] = []
        for item in staged:
            try:
                item.identity = item.order.body.finalize(durable=self._durable)
            except Exception as fault:
                self._discard(item.order, refusal_of(fault), verdicts)
            else:
                sealed.append(item)
                failpoints.hit("after file sync")
        return sealed

    def _sync_incoming(self, staged: list[StagedUpload], verdicts: BatchResult) -> bool:
        """Make the private names durable before the rows: recovery trusts their absence."""
        try:
            if self._durable:
                self._incoming.sync()
        except OSError as fault:
            reason = refusal_of(fault)
            for item in staged:
                self._discard(item.order, reason, verdicts)
            return False
        return True

    def _use_up(self, staged: list[StagedUpload], verdicts: BatchResult) -> list[StagedUpload]:
        """Use up the one-time URLs, before anything is published; return whose URL was still good."""
        used, good = [], []
        for item in staged:
            try:
                if use_up(self._once, item.upload):
                    used.append(item)
            except Exception as fault:
                self._discard(item.order, refusal_of(fault), verdicts)
            else:
                good.append(item)
        if not used:
            return good
        try:
            self._once.sync()
        except OSError as fault:
            self._undo([item.order for item in used], refusal_of(fault), verdicts)
            return [item for item in good if item not in used]
        failpoints.hit("after url used up")
        return good

    def _record(
        self, staged: list[StagedUpload], audience: Subscribers, verdicts: BatchResult
    ) -> list[StagedUpload]:
        """Write the rows in one transaction; return the items whose rows are durable."""
        try:
            records = [record_of(item, audience, self._slot) for item in staged]
            self._outbox.record(records).result()
        except sqlite3.Error as fault:
            self._undo([item.order for item in staged], refusal_of(fault), verdicts)
            return []
        except Exception as fault:
            # One of them cannot be written at all (say, text that is no Unicode): each for itself.
            if len(staged) > 1:
                return [done for item in staged for done in self._record([item], audience, verdicts)]
            self._undo([staged[0].order], refusal_of(fault), verdicts)
            return []
        return staged

    def _publish_all(self, recorded: list[StagedUpload], verdicts: BatchResult) -> list[StagedUpload]:
        with contextlib.ExitStack() as passing:
            try:
                passing.enter_context(self._passing())
            except Refusal as reason:
                self._undo([item.order for item in recorded], reason, verdicts)
                return []
            return [item for item in recorded if self._publish(item, verdicts)]

    def _publish(self, item: StagedUpload, verdicts: BatchResult) -> bool:
        try:
            self._give_name(item)
        except Exception as fault:
            self._undo([item.order], refusal_of(fault), verdicts)
            return False
        verdicts.event_ids += [telling.event_id for telling in item.told]
        verdicts.outcomes[item.upload.id] = UnknownOutcome("published, but not known to be durable")
        failpoints.hit("after rename")
        return True

    def _give_name(self, item: StagedUpload) -> None:
        upload, parent = item.upload, item.parent
        if upload.on_conflict == "replace" and not upload.must_be_new:
            publish.replace(self._incoming, upload.id, parent)
            return
        for _ in range(publish.NUMBERED_NAMES):
            try:
                publish.add(self._incoming, upload.id, parent)
                return
            except publish.NameTakenError:
                # Somebody else's process took the name after our look at it.
                parent.target_stat = parent.stat()
                publish.choose_name(upload, parent, ())
                self._outbox.move(upload.id, item.path).result()
        raise Refusal("conflict", "the name was taken again and again")

    def _sync_folders(self, published: list[StagedUpload], verdicts: BatchResult) -> None:
        done: set[tuple[int, int]] = set()
        for item in published:
            try:
                if self._durable:
                    item.parent.sync(done)
            except OSError as fault:
                log.error("the folder of %s cannot be synced: %s", item.path, fault)
                continue
            verdicts.outcomes[item.upload.id] = Stored(
                item.upload.id,
                item.path,
                item.identity.size,
                item.order.mime,
                item.replaced,
                item.order.digests,
            )

    def _undo(self, orders: list[CommitRequest], reason: Refusal, verdicts: BatchResult) -> None:
        """Take back what the journal may hold, durably; only then the bodies."""
        ids = [order.upload.id for order in orders]
        try:
            # The URLs first: they are good again even where the rows cannot be taken back yet.
            if give_back(self._once, [order.upload for order in orders]):
                self._once.sync()
            self._outbox.forget(ids).result()
        except (sqlite3.Error, OSError):
            # While an (empty) body lies there, recovery knows that the upload was never published.
            self._limbo.extend(ids)
            for order in orders:
                order.body.truncate()
                verdicts.outcomes[order.upload.id] = reason
            return
        for order in orders:
            self._discard(order, reason, verdicts)

    def _discard(self, order: CommitRequest, reason: Refusal, verdicts: BatchResult) -> None:
        verdicts.outcomes[order.upload.id] = reason
        discard_quietly(order.body)

    def _clear_limbo(self) -> None:
        if self._limbo:
            with contextlib.suppress(sqlite3.Error, OSError):
                self._outbox.forget(self._limbo).result()
                self._once.release_all(self._limbo)
                while self._limbo:
                    self._incoming.remove(self._limbo[-1])
                    self._limbo.pop()
