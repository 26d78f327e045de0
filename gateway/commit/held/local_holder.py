"""Holds whole bodies on the local disk: one thread takes all that wait as one batch.

Always in this order: bytes durable, one journal transaction, bodies moved to `.gateway/held/`, folders
durable, responses. A start moves a body that is recorded and still in `incoming/`, and removes one that
is not recorded. What fails before the move is undone (rows first, durably, then the body); what fails
after it has no honest answer and gets none: the upload is held.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from gateway.commit.committer import MIN_SYNC_APART_BYTES
from gateway.commit.failures import discard_quietly, refusal_of
from gateway.commit.held.holder import HeldBody, Holder
from gateway.commit.publish import check_target
from gateway.commit.records import LocalDisk, ProcessState
from gateway.commit.writer import media_type
from gateway.domain import failpoints, paths
from gateway.domain.digests import named_digests
from gateway.domain.held import Held
from gateway.domain.model import Upload
from gateway.errors import UnknownOutcome
from gateway.storage.local.held_directory import HeldDirectory
from gateway.storage.local.incoming import IncomingFile
from gateway.storage.waiting import finish, finish_in_thread
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

MAX_BATCH: Final = 64
"""Bodies that one batch holds: with 32 KiB of headers each, the transaction takes 10 ms."""


@dataclass(slots=True, eq=False)
class HoldRequest:
    """A finished body to be held until `handlers` have decided, and the outcome for its caller."""

    upload: Upload
    file: IncomingFile
    digests: dict[str, str]
    handlers: Sequence[str]
    held: Future[Held] = field(default_factory=Future)


class LocalHolder:
    """The thread and what waits for it."""

    def __init__(
        self, disk: LocalDisk, folder: HeldDirectory, state: ProcessState, holder: Holder
    ) -> None:
        self.folder = folder
        self._disk = disk
        self._state = state
        self._holder = holder
        self._waiting: queue.SimpleQueue[HoldRequest] = queue.SimpleQueue()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="holder")

    def close(self) -> None:
        """Hold what waits, and end the thread."""
        self._executor.shutdown()

    async def hold(self, request: HoldRequest) -> Held:
        """Hold a finished body. From here on it is the holder's, also after a cancel.

        A caller that is cancelled waits for the outcome. Raises `Refusal`: nothing is held;
        `UnknownOutcome`. Large bodies are synced beside the others, which need not wait.
        """
        if self._disk.durable and request.file.size >= MIN_SYNC_APART_BYTES:
            try:
                await finish_in_thread(request.file.sync, executor=self._disk.executor)
            except BaseException as error:
                await finish_in_thread(discard_quietly, request.file, executor=self._disk.executor)
                if isinstance(error, Exception):
                    raise refusal_of(error) from error
                raise
        request.held.set_running_or_notify_cancel()  # a cancel of the caller ends nothing
        self._waiting.put(request)
        self._executor.submit(self._hold_waiting)
        return await finish(asyncio.wrap_future(request.held))

    def _hold_waiting(self) -> None:
        requests: list[HoldRequest] = []
        while len(requests) < MAX_BATCH and not self._waiting.empty():
            requests.append(self._waiting.get())
        try:
            self._hold(requests)
        except Exception:
            log.exception(
                "the holder failed; uploads of this batch may get no answer",
                extra=event("holder.failed"),
            )
            for request in requests:
                if not request.held.done():
                    request.held.set_exception(UnknownOutcome("the holder failed"))

    def _hold(self, requests: Sequence[HoldRequest]) -> None:
        bodies = self._finalize_all(requests)
        if not bodies or not self._sync_incoming(bodies):
            return
        bodies = self._consume_urls(bodies)
        recorded = self._record(bodies) if bodies else {}
        moved = {request: body for request, body in recorded.items() if self._move(request, body)}
        if not moved:
            return
        failpoints.hit("after held move")
        # Before the responses: whatever becomes of these, it is decided.
        self._state.journal.held_uploads.release([request.upload.id for request in moved])
        self._answer(moved)

    def _finalize_all(self, requests: Sequence[HoldRequest]) -> dict[HoldRequest, HeldBody]:
        """Check the targets, and make the bytes durable: all are being written before the first wait."""
        written: list[HoldRequest] = []
        for request in requests:
            try:
                segments = paths.check_path(request.upload.path)
                exists = self._disk.tree.lstat_target(segments) is not None
                check_target(request.upload, exists=exists)
                request.file.flush(writeback=self._disk.durable)
                written.append(request)
            except Exception as error:
                self._refuse(request, error)
        bodies: dict[HoldRequest, HeldBody] = {}
        for request in written:
            upload, file = request.upload, request.file
            try:
                identity = file.finalize(durable=self._disk.durable)
            except Exception as error:
                self._refuse(request, error)
                continue
            digests = {**request.digests, **named_digests(file.digests.kept())}
            bodies[request] = HeldBody(upload, identity, media_type(upload), digests, request.handlers)
        return bodies

    def _sync_incoming(self, bodies: dict[HoldRequest, HeldBody]) -> bool:
        """Make the private names durable before the rows: a row without a body holds nothing."""
        try:
            if self._disk.durable:
                self._disk.incoming.sync()
        except OSError as error:
            for request in bodies:
                self._refuse(request, error)
            return False
        return True

    def _consume_urls(self, bodies: dict[HoldRequest, HeldBody]) -> dict[HoldRequest, HeldBody]:
        """Use up the one-time URLs; return the uploads with a valid one, or without any."""
        consumed, valid = [], {}
        for request, body in bodies.items():
            try:
                if self._state.consume_url(request.upload):
                    consumed.append(request)
            except Exception as error:
                self._refuse(request, error)
            else:
                valid[request] = body
        try:
            if consumed:
                self._state.one_time_marks.sync()
        except OSError as error:
            for request in consumed:
                self._undo({request: valid.pop(request)}, error)
        return valid

    def _record(self, bodies: dict[HoldRequest, HeldBody]) -> dict[HoldRequest, HeldBody]:
        """Write the rows in one transaction; return the uploads whose rows are durable."""
        try:
            self._holder.write(list(bodies.values()))
        except Exception as error:
            if len(bodies) > 1:  # maybe one of them cannot be written: each for itself
                recorded: dict[HoldRequest, HeldBody] = {}
                for request, body in bodies.items():
                    recorded |= self._record({request: body})
                return recorded
            self._undo(bodies, error)
            return {}
        return bodies

    def _move(self, request: HoldRequest, body: HeldBody) -> bool:
        try:
            self.folder.take(self._disk.incoming.fd, request.upload.id)
        except OSError as error:
            self._undo({request: body}, error)
            return False
        return True

    def _answer(self, moved: dict[HoldRequest, HeldBody]) -> None:
        """Make the new names durable, then tell."""
        try:
            self.folder.sync()
            if self._disk.durable:
                self._disk.incoming.sync()
        except OSError as error:
            log.error("held uploads cannot be synced: %s", error, extra=event("folder.unsynced"))
            for request in moved:
                request.held.set_exception(UnknownOutcome("held, but not known to be durable"))
            return
        for request, body in moved.items():
            request.held.set_result(body.held)

    def _undo(self, bodies: dict[HoldRequest, HeldBody], error: Exception) -> None:
        """Delete what the journal may hold, then the bodies: a start deletes a row without a body."""
        self._holder.undo(list(bodies.values()))
        for request in bodies:
            self._refuse(request, error)

    def _refuse(self, request: HoldRequest, error: Exception) -> None:
        discard_quietly(request.file)
        request.held.set_exception(refusal_of(error))


async def hold_body(holder: LocalHolder | None, request: HoldRequest) -> Held:
    """Hold a finished body; without a holder nothing decides about any."""
    if holder is None:
        raise AssertionError("a body is held only where the server has a holder")
    return await holder.hold(request)
