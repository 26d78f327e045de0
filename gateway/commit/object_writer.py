"""The promise over S3: recorded as pending, published, settled, answered.

In this order, and never another: every part has arrived, the row is durable, the object is completed
in one step, the row knows it. Whatever certainly failed is undone (row first, then the parts); what
nobody can tell is left to `settling`, and its client gets no answer. On the server's loop. May
import events, storage, paths, model, errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.commit.error_mapping import refusal_of
from gateway.commit.object_commit import Mark, ObjectCommit, said, taken
from gateway.commit.object_identity import identity_of_upload
from gateway.commit.object_names import ReservedNames
from gateway.commit.object_reconciler import UploadReconciler
from gateway.commit.one_time_urls import give_back, use_up
from gateway.commit.records import Subscribers
from gateway.commit.writer import WriteMetadata
from gateway.domain import failpoints, paths
from gateway.domain.event_bodies import object_created_body
from gateway.domain.model import OBJECT_CREATED, UPLOADED, Stored, Upload, new_id
from gateway.errors import GatewayError, Refusal, UnknownOutcome
from gateway.events.journal import Journal
from gateway.events.outbox import EventRecord, UploadRecord
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.s3.bucket import BucketClient, ObjectHead
from gateway.storage.s3.parts import ObjectTarget
from gateway.storage.s3.retries import KeyTakenError, OutcomeUnknownError
from gateway.storage.s3.upload import MultipartUpload, UploadContext

log = logging.getLogger("gateway.commit")

ASK_PAUSES: Final = (0.0, 1.0, 3.0)
"""When S3 is asked whether it did what it did not answer, while the client still waits."""


@dataclass(slots=True)
class ObjectWriter:
    """The intake of a bucket. `audience()` says who is told of what is stored, `mark` signs it."""

    names: ReservedNames
    objects: BucketClient
    means: UploadContext
    journal: Journal
    settler: UploadReconciler
    once: OneTimeMarks
    slot: int
    mark: Mark
    audience: Callable[[], Subscribers]
    _active: set[str] = field(default_factory=set)
    _running: set[asyncio.Task[Stored]] = field(default_factory=set)

    def cares(self, upload_id: str) -> bool:
        """Tell whether an upload is on its way here, or waits to be settled."""
        return upload_id in self._active or upload_id in self.settler

    async def exists(self, path: str) -> bool:
        """Tell whether there is an object of this path. Raises `Refusal`."""
        return await self.objects.head_object(self.names.keys.of(path)) is not None

    async def begin(self, upload: Upload, mime: str, algorithms: Sequence[str] = ()) -> MultipartUpload:
        """Begin a body. With `rename` its name is chosen now: a multipart upload keeps its key."""
        path = "/" + "/".join(paths.check(upload.path))
        self._active.add(upload.id)
        try:
            if upload.on_conflict == "rename" and not upload.must_be_new:
                path = await self.names.free_path(upload, path)
            target, size = self._target(upload, path, mime), upload.content_length
            return MultipartUpload(
                self.means, target, size, algorithms, done=lambda: self._let_go(upload.id)
            )
        except BaseException:
            self._let_go(upload.id)  # nobody else will: there is no body
            raise

    async def commit(self, upload: Upload, body: MultipartUpload, deed: WriteMetadata) -> Stored:
        """Publish a body that has ended; see `Intake.commit`. Goes on where the caller is cancelled."""
        task = asyncio.create_task(self._commit(ObjectCommit(upload, body, deed)))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for what is being published."""
        if self._running:
            await asyncio.wait(self._running)

    def _ended(self, task: asyncio.Task[Stored]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()

    # -- the steps

    async def _commit(self, case: ObjectCommit) -> Stored:
        async with self.names.alone(case.body.target.key if case.new else None):
            try:
                found = await self._look(case)
                await self._record(case)
            except BaseException:
                await case.body.discard()
                raise
            await self._use_up(case)
            tag = await self._publish(case)
            case.body.release_memory()
            try:
                await self.settler.published(case.pending, tag)
            except sqlite3.Error as fault:
                raise self._unanswered(case, fault) from fault
        failpoints.hit("before answer")
        case.body.done()
        asyncio.get_running_loop().call_soon(self.journal.unsettled.release, case.pending.event_ids)
        return Stored(
            case.upload.id,
            case.body.target.path,
            case.body.received,
            case.deed.mime,
            found is not None,
            case.deed.digests,
        )

    async def _look(self, case: ObjectCommit) -> ObjectHead | None:
        """Look at what is there. Raises `Refusal` where it may not be replaced."""
        found = await self.objects.head_object(case.body.target.key)
        if found is None:
            return None
        if not case.new:
            return found
        if case.upload.on_conflict != "rename" or case.upload.must_be_new:
            raise taken(case.upload)
        await self._move(case)
        return None

    async def _record(self, case: ObjectCommit) -> None:
        """Write the row, pending; its deliveries are held. Raises `Refusal`."""
        upload, body, deed = case.upload, case.body, case.deed
        told = tuple(self._tellings(case))
        record = UploadRecord(
            upload_id=upload.id,
            path=body.target.path,
            identity=identity_of_upload(upload.id, body.received),
            mime=deed.mime,
            digests=deed.digests,
            principal=upload.principal,
            remote=upload.remote,
            created=upload.created,
            told=told,
            metadata=upload.metadata,
            place=self._place(body),
            pending=True,
        )
        events = tuple(telling.event_id for telling in told)
        case.pending = PendingUpload(upload.id, body.target.path, self._place(body), events)
        failpoints.hit("before journal commit")
        try:
            await asyncio.wrap_future(self.journal.outbox.record([record]))
        except Exception as fault:
            raise refusal_of(fault) from fault
        failpoints.hit("after journal commit")

    async def _use_up(self, case: ObjectCommit) -> None:
        """Use up a one-time URL. Behind the row: while that is pending, the settler may give it back."""
        if case.upload.grant is None:
            return
        try:
            if await asyncio.to_thread(use_up, self.once, case.upload):
                await asyncio.to_thread(self.once.sync)
                failpoints.hit("after url used up")
        except Exception as fault:
            await self._undo(case)
            raise refusal_of(fault) from fault

    def _tellings(self, case: ObjectCommit) -> Iterator[EventRecord]:
        audience, body, deed = self.audience(), case.body, case.deed
        if audience.uploaded and deed.tell is not None:
            event_body = deed.tell(body.received)
            yield EventRecord(new_id(self.slot), UPLOADED, event_body, audience.uploaded)
        if handlers := audience.of_object(body.target.path.removeprefix("/")):
            event_body = object_created_body(
                case.upload,
                path=body.target.path,
                size=body.received,
                etag="",
                mime=deed.mime,
                bucket=self.objects.bucket,
            )
            yield EventRecord(new_id(self.slot), OBJECT_CREATED, event_body, handlers)

    def _place(self, body: MultipartUpload) -> dict[str, Any]:
        return {"bucket": self.objects.bucket, "key": body.target.key, "multipart": body.multipart}

    async def _publish(self, case: ObjectCommit) -> str:
        """Make it visible; return its entity tag. Raises `Refusal` (undone) or `UnknownOutcome`."""
        while True:
            try:
                tag = await case.body.publish(new=case.new)
            except KeyTakenError as fault:
                if (own := await self._own_tag(case, fault)) is not None:
                    return own
                if case.upload.on_conflict != "rename" or case.upload.must_be_new:
                    await self._undo(case)
                    raise taken(case.upload) from None
                await self._move_recorded(case)
            except OutcomeUnknownError as fault:
                return await self._ask(case, fault)
            except Refusal:
                await self._undo(case)
                raise
            except Exception as fault:
                log.exception("an object could not be published")
                return await self._ask(case, fault)
            else:
                return await self._tag(case, tag)

    async def _own_tag(self, case: ObjectCommit, fault: KeyTakenError) -> str | None:
        """Return the tag of the object that has the name if it is this very upload. Raises
        `UnknownOutcome`.

        The HTTP client itself sends an empty PUT again when its answer is lost: then the second one
        meets what the first has stored.
        """
        try:
            found = await self.settler.look(case.pending)
        except GatewayError:
            return await self._ask(case, fault)
        return None if found is None else found.etag

    async def _tag(self, case: ObjectCommit, said: str) -> str:
        """Return the entity tag that the object has: some stores name another when it is completed."""
        if said and not case.body.multipart:
            return said
        with contextlib.suppress(GatewayError):
            found = await self.settler.look(case.pending)
            if found is not None:
                return found.etag
        return said or await self._ask(case, None)

    async def _ask(self, case: ObjectCommit, fault: Exception | None) -> str:
        """Ask S3 whether it has the object, and for its tag. Raises `UnknownOutcome`."""
        for pause in ASK_PAUSES:
            await asyncio.sleep(pause)
            with contextlib.suppress(GatewayError):
                found = await self.settler.look(case.pending)
                if found is not None:
                    return found.etag
        raise self._unanswered(case, fault)

    def _unanswered(self, case: ObjectCommit, fault: Exception | None) -> UnknownOutcome:
        """Leave it to the settler: the row is there, its deliveries stay held."""
        self.settler.add(case.pending)
        case.body.release_memory()
        case.body.done()
        return UnknownOutcome(f"nobody can say whether S3 has upload {case.upload.id}: {fault}")

    async def _undo(self, case: ObjectCommit) -> None:
        """Take the row back, durably; only then the parts."""
        try:
            if case.upload.grant is not None and give_back(self.once, [case.upload]):
                await asyncio.to_thread(self.once.sync)
            await asyncio.wrap_future(self.journal.outbox.forget([case.upload.id]))
        except (sqlite3.Error, OSError):
            self.settler.add(case.pending)
        await case.body.discard()

    # -- names

    async def _move(self, case: ObjectCommit) -> None:
        """Somebody else has taken the name: take the next one. Raises `Refusal`."""
        body = case.body
        if not body.can_retarget:
            raise Refusal("conflict", "the name was taken while the body came: send it again")
        path = await self.names.free_path(case.upload, case.asked)
        body.retarget(self._target(case.upload, path, case.deed.mime))

    def _target(self, upload: Upload, path: str, mime: str) -> ObjectTarget:
        """Say where a body goes. What it says of itself names the path too."""
        mark = self.mark(upload.id, path)
        return ObjectTarget(path, self.names.keys.of(path), upload.id, said(upload, mime, mark))

    async def _move_recorded(self, case: ObjectCommit) -> None:
        try:
            await self._move(case)
            place, path = self._place(case.body), case.body.target.path
            await asyncio.wrap_future(self.journal.unsettled.move(case.upload.id, path, place))
        except Exception as fault:
            await self._undo(case)
            raise refusal_of(fault) from fault
        case.pending = case.pending._replace(path=path, place=place)

    def _let_go(self, upload_id: str) -> None:
        """An upload has ended, one way or the other."""
        self._active.discard(upload_id)
        self.names.let_go(upload_id)
