"""The commit of an object: recorded as pending, published, settled, answered.

Always in this order: every part has arrived, the row is durable, the object is completed in one
step, the row says so. What certainly failed is undone (row first, then the parts); where the outcome
is unknown the reconciler finds it out, and the client gets no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from gateway.commit.failures import refusal_of
from gateway.commit.objects.body import ObjectCommit
from gateway.commit.objects.names import ReservedNames
from gateway.commit.objects.reconciler import UploadReconciler
from gateway.commit.objects.rows import pending_record, place_of
from gateway.commit.publish import name_taken
from gateway.commit.records import ProcessState, UploadEvents, begin_commit_span
from gateway.commit.writer import media_type
from gateway.domain import failpoints, paths
from gateway.domain.model import Stored
from gateway.errors import GatewayError, Refusal, UnknownOutcome
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.s3.bucket import ObjectHead
from gateway.storage.s3.private_objects import ChangedError
from gateway.storage.s3.retries import KeyExistsError, OutcomeUnknownError
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

T = TypeVar("T")

OUTCOME_DELAYS: Final = (0.0, 1.0, 3.0)
"""Seconds before each query whether S3 did what it did not answer, while the client still waits."""


class ObjectCommitter:
    """Commits received objects. Runs on the server's event loop."""

    def __init__(
        self,
        names: ReservedNames,
        state: ProcessState,
        events: UploadEvents,
        reconciler: UploadReconciler,
    ) -> None:
        self._names = names
        self._objects = names.objects
        self._state = state
        self._journal = state.journal
        self._events = events
        self._reconciler = reconciler
        self._running: set[asyncio.Task[Any]] = set()

    async def commit(self, commit: ObjectCommit) -> Stored:
        """Publish a finished body, even if the caller is cancelled. Raises as `PendingWrite.commit`."""
        return await self.run(self.publish(commit))

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what ends an upload, even if the caller is cancelled; `close` waits for it."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def is_unsettled(self, upload_id: str) -> bool:
        """Tell whether the outcome of a commit is being found out."""
        return upload_id in self._reconciler

    def take_pending(self, upload_id: str, claim: str | None) -> PendingUpload | None:
        """Return the row of a commit whose outcome is unknown, see `UploadReconciler.take`."""
        return self._reconciler.take(upload_id, claim)

    def add_pending(self, row: PendingUpload) -> None:
        """Leave a row that was taken to the reconciler."""
        self._reconciler.add(row)

    async def has_settled(self, upload_id: str) -> bool:
        """Tell whether the journal of this process has an upload as published."""
        settled = self._journal.pending_uploads.published_objects([upload_id])
        return upload_id in await asyncio.wrap_future(settled)

    async def close(self) -> None:
        """Wait for what is being published."""
        if self._running:
            await asyncio.wait(self._running)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # mark it as retrieved

    # -- the steps

    async def publish(self, commit: ObjectCommit) -> Stored:
        """Publish a finished body. Raises as `PendingWrite.commit`. Within `run`."""
        with begin_commit_span(commit.upload):
            return await self._settle(commit)

    async def _settle(self, commit: ObjectCommit) -> Stored:
        body = commit.body
        async with self._names.exclusive(body.target.key if commit.new else None):
            published = ""
            if commit.is_resumed:
                replaced, published = await self._check_resumed(commit)
            else:
                replaced = await self._check_and_record(commit)
            await self._consume_url(commit)
            etag = published or await self._publish(commit)
            body.release_memory()
            try:
                await self._reconciler.settle_published(commit.row, etag)
            except Exception as error:  # it is published: the reconciler settles it
                raise self._unknown_outcome(commit, error) from error
        failpoints.hit("before answer")
        body.done()
        released = self._journal.outbox.release_events
        asyncio.get_running_loop().call_soon(released, commit.row.event_ids)
        upload = commit.upload
        return Stored(
            upload.id, body.target.path, body.received, media_type(upload), replaced, commit.digests
        )

    async def _check_and_record(self, commit: ObjectCommit) -> bool:
        """Return whether an object is replaced; the row is written. Raises `Refusal`."""
        try:
            replaced = await self._check_target(commit)
            await self._record(commit)
        except BaseException:
            await commit.body.discard()
            raise
        return replaced

    async def _check_resumed(self, commit: ObjectCommit) -> tuple[bool, str]:
        """Return whether an object is replaced, and the tag of this one where it is there already."""
        try:
            head = await self._objects.head_object(commit.body.target.key)
        except BaseException:
            self._reconciler.add(commit.row)
            raise
        if head is not None and head.upload_id == commit.upload.id:
            return False, head.etag
        return head is not None, ""

    async def _check_target(self, commit: ObjectCommit) -> bool:
        """Return whether an object is replaced. Raises `Refusal` where it may not be."""
        if commit.renames and commit.body.staged_at is not None:  # its name is chosen now
            await self._rename(commit)
            return False
        if await self._objects.head_object(commit.body.target.key) is None:
            return False
        if not commit.new:
            return True
        if not commit.renames:
            raise name_taken(commit.upload)
        await self._rename(commit)
        return False

    async def _record(self, commit: ObjectCommit) -> None:
        """Write the row, pending; its deliveries are held. Raises `Refusal`."""
        record = pending_record(commit, self._events, self._objects.bucket)
        event_ids = tuple([event.event_id for event in record.events])
        commit.row = PendingUpload(commit.upload.id, record.path, record.place or {}, event_ids)
        failpoints.hit("before journal commit")
        try:
            await asyncio.wrap_future(self._journal.outbox.record_uploads([record]))
        except Exception as error:
            raise refusal_of(error) from error
        failpoints.hit("after journal commit")

    async def _consume_url(self, commit: ObjectCommit) -> None:
        """Use up a one-time URL. After the row: while that is pending the reconciler may release it."""
        if commit.upload.grant is None or commit.is_held:
            return
        try:
            if await asyncio.to_thread(self._state.consume_url, commit.upload):
                await asyncio.to_thread(self._state.one_time_marks.sync)
                failpoints.hit("after url used up")
        except Exception as error:
            await self._undo(commit)
            raise refusal_of(error) from error

    async def _publish(self, commit: ObjectCommit) -> str:
        """Make it visible; return its entity tag. Raises `Refusal` (undone) or `UnknownOutcome`."""
        while True:
            try:
                etag = await commit.body.publish(new=commit.new)
            except KeyExistsError as error:
                if (own := await self._own_etag(commit, error)) is not None:
                    return own
                if not commit.renames:
                    await self._undo(commit)
                    raise name_taken(commit.upload) from None
                await self._rename_recorded(commit)
            except OutcomeUnknownError as error:
                return await self._query_outcome(commit, error)
            except (Refusal, ChangedError) as error:
                if commit.is_resumed:  # the earlier try may have been carried out meanwhile
                    return await self._query_outcome(commit, error)
                await self._undo(commit)
                raise
            except Exception as error:
                log.exception(
                    "an object could not be published",
                    extra=event("upload.unsettled", upload_id=commit.upload.id),
                )
                return await self._query_outcome(commit, error)
            else:
                return await self._final_etag(commit, etag)

    async def _own_etag(self, commit: ObjectCommit, error: KeyExistsError) -> str | None:
        """Return the tag of the existing object if it is this upload. Raises `UnknownOutcome`.

        The HTTP client repeats an empty PUT whose response is lost, and finds what the first has stored.
        """
        try:
            head = await self._reconciler.find_object(commit.row)
        except GatewayError:
            return await self._query_outcome(commit, error)
        return None if head is None else head.etag

    async def _final_etag(self, commit: ObjectCommit, etag: str) -> str:
        """Return the entity tag that the object has: some stores report another one on completion."""
        if etag and not commit.body.multipart:
            return etag
        head: ObjectHead | None = None
        with contextlib.suppress(GatewayError):
            head = await self._reconciler.find_object(commit.row)
        if head is not None:
            return head.etag
        return etag or await self._query_outcome(commit, None)

    async def _query_outcome(self, commit: ObjectCommit, error: Exception | None) -> str:
        """Query whether S3 has the object; return its tag. Raises `UnknownOutcome`."""
        for delay in OUTCOME_DELAYS:
            await asyncio.sleep(delay)
            with contextlib.suppress(GatewayError):
                head = await self._reconciler.find_object(commit.row)
                if head is not None:
                    return head.etag
        raise self._unknown_outcome(commit, error)

    def _unknown_outcome(self, commit: ObjectCommit, error: Exception | None) -> UnknownOutcome:
        """Leave it to the reconciler: the row is there, its deliveries stay held."""
        place = {**commit.row.place, "multipart": commit.body.multipart}  # that of a copy begins later
        self._reconciler.add(commit.row._replace(place=place))
        commit.body.release_memory()
        commit.body.done()
        return UnknownOutcome(f"it is not known whether S3 has upload {commit.upload.id}: {error}")

    async def _undo(self, commit: ObjectCommit) -> None:
        """Give the claim up, then delete the row, durably; only then the parts."""
        try:
            with contextlib.suppress(ChangedError):  # another one has it
                await commit.body.withdraw()
            release = commit.upload.grant is not None and not commit.is_held
            if release and self._state.release_urls([commit.upload]):
                await asyncio.to_thread(self._state.one_time_marks.sync)
            await asyncio.wrap_future(self._journal.outbox.forget_uploads([commit.upload.id]))
        except (GatewayError, sqlite3.Error, OSError):
            self._reconciler.add(commit.row)
        await commit.body.discard()

    # -- names

    async def _rename(self, commit: ObjectCommit) -> None:
        """Take the next name: this one exists meanwhile. Raises `Refusal`."""
        upload, body = commit.upload, commit.body
        if not body.can_retarget:
            raise Refusal("conflict", "the name was taken while the body came: send it again")
        path = "/" + "/".join(paths.check_path(upload.path))
        body.target = self._names.target(upload, await self._names.reserve_free_path(upload, path))

    async def _rename_recorded(self, commit: ObjectCommit) -> None:
        """Take the next name and put it into the row. Raises `Refusal`."""
        try:
            await self._rename(commit)
            location, path = place_of(commit, self._objects.bucket), commit.body.target.path
            await asyncio.wrap_future(
                self._journal.pending_uploads.move(commit.upload.id, path, location)
            )
        except Exception as error:
            await self._undo(commit)
            raise refusal_of(error) from error
        commit.row = commit.row._replace(path=path, place=location)
