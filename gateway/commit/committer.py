"""One thread commits all waiting uploads as one batch.

This module passes requests from the event loops to that thread and the outcomes back; the steps are in
`batch`. The deliveries are released for claiming after the answers, not before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from gateway.commit.batch import BatchCommitter
from gateway.commit.failures import discard_quietly, refusal_of
from gateway.commit.new_folders import NewFolders
from gateway.commit.records import BatchResult, CommitRequest, LocalDisk, begin_commit_span
from gateway.domain import failpoints
from gateway.domain.model import Stored
from gateway.errors import UnknownOutcome
from gateway.events.outbox import JournalOutbox
from gateway.storage.waiting import finish_in_thread
from gateway.telemetry import tracing
from gateway.telemetry.logs import event

T = TypeVar("T")
log = logging.getLogger("gateway.commit")

MAX_BATCH: Final = 128
"""Uploads that one batch commits."""

MAX_TURNS: Final = 16
"""Turns of a loop in which uploads are collected for a batch. A turn takes some 0.1 ms."""

MIN_SYNC_APART_BYTES: Final = 1 << 20
"""Bodies of this size or more are synced by a thread of their own: small ones need not wait."""


Done = Callable[[Stored | Exception], None]
"""Takes the outcome of a commit: what was stored, a `Refusal`, or `UnknownOutcome` where in doubt."""


@dataclass(slots=True)
class _CommitJob:
    """A request, and who hears of its outcome on which loop."""

    request: CommitRequest
    done: Done
    loop: asyncio.AbstractEventLoop
    span: tracing.Span


@dataclass(slots=True)
class _CallJob:
    """A function to call between batches, and the future of its caller."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]


_Job = _CommitJob | _CallJob
_Report = tuple[asyncio.AbstractEventLoop, Callable[[Any], None], Any]
"""A loop, a callback to call on it, and its argument."""


class Committer:
    """The thread and its queue."""

    def __init__(self, batch: BatchCommitter, outbox: JournalOutbox, disk: LocalDisk) -> None:
        self._batch = batch
        self._outbox = outbox
        self._disk = disk
        self._folders = NewFolders(disk)
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._last_size = 0
        self._preparing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        self._send()
        self._queue.put(None)
        self._thread.join()
        self._folders.close()

    def submit(self, request: CommitRequest, done: Done) -> None:
        """Publish a received body; `done` is called once, on this loop, and not before this returns.

        From here on the body is the committer's, also where its caller is gone. What waits
        is bounded by the uploads in flight.
        """
        span = begin_commit_span(request.upload)
        if self._is_prepared(request):
            self._enqueue(request, done, span)
        else:
            preparing = self._prepare_and_enqueue(request, done, span)
            task = asyncio.get_running_loop().create_task(preparing)
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def commit(self, request: CommitRequest) -> Stored:
        """Publish a received body. From here on the body is the committer's, also after a cancel.

        Raises `Refusal` when nothing was stored and nothing will be, `UnknownOutcome` where in doubt.
        """
        span = begin_commit_span(request.upload)
        if not self._is_prepared(request):
            await self._prepare(request, span)
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._enqueue(request, partial(_resolve, future), span)
        return await future

    async def between_batches(self, function: Callable[[], T]) -> T:
        """Run `function` in the committer's thread, while no upload is being published."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put([_CallJob(function, future)])
        return await future

    async def clean_up(self) -> None:
        """Undo now what earlier commits could not undo, as the next batch would."""
        await self.between_batches(self._batch.clean_up)

    def _enqueue(self, request: CommitRequest, done: Done, span: tracing.Span) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._collect, loop, 0, MAX_TURNS)
        self._waiting.append(_CommitJob(request, done, loop, span))

    def _collect(self, loop: asyncio.AbstractEventLoop, seen: int, turns: int) -> None:
        """Send what waits once a turn of the loop brings nothing more.

        Waking the thread costs more than a small upload, and it would take the interpreter from the
        loop at once. Clients that got their responses together send their next requests together: they
        share a batch again, instead of forming groups that disturb each other (at 64 connections 147 ->
        120 us an upload).
        """
        count = len(self._waiting)
        if seen < count < MAX_BATCH and turns and (count > 1 or self._last_size > 1):
            loop.call_soon(self._collect, loop, count, turns - 1)
        else:
            self._send()

    def _send(self) -> None:
        # Called by the loop, at the end by another thread too: each job is popped once.
        jobs: list[_Job] = []
        with contextlib.suppress(IndexError):
            while True:
                jobs.append(self._waiting.popleft())
        self._last_size = len(jobs)
        self._queue.put(jobs)

    # -- what is done before the batch, for large bodies and new folders

    def _is_large(self, request: CommitRequest) -> bool:
        return self._disk.durable and request.body.received >= MIN_SYNC_APART_BYTES

    def _is_prepared(self, request: CommitRequest) -> bool:
        return not self._is_large(request) and self._folders.exist(request.upload.path)

    async def _prepare_and_enqueue(self, request: CommitRequest, done: Done, span: tracing.Span) -> None:
        try:
            await self._prepare(request, span)
        except Exception as error:
            done(error)
        except asyncio.CancelledError:  # the loop ends
            done(UnknownOutcome("the upload was not committed before the end of the process"))
            raise
        else:
            self._enqueue(request, done, span)

    async def _prepare(self, request: CommitRequest, span: tracing.Span) -> None:
        """Sync a large body, make new folders. Where that fails the body is discarded."""
        body, folders, executor = request.body, self._folders, self._disk.executor
        try:
            if self._is_large(request):
                await finish_in_thread(body.sync, executor=executor)
            if not folders.exist(request.upload.path):
                await folders.create(request)
        except BaseException as error:
            span.fail(tracing.error_type(error))
            span.end()
            await finish_in_thread(discard_quietly, body, executor=executor)
            if isinstance(error, Exception):
                raise refusal_of(error) from error
            raise

    # -- the thread

    def _run(self) -> None:
        running = True
        while running:
            jobs, running = self._next_jobs()
            commits = [job for job in jobs if isinstance(job, _CommitJob)]
            for start in range(0, len(commits), MAX_BATCH):
                self._commit(commits[start : start + MAX_BATCH])
            _report([_call(job) for job in jobs if isinstance(job, _CallJob)])

    def _next_jobs(self) -> tuple[list[_Job], bool]:
        """Wait for jobs; return all that wait (bounded), and whether to go on afterwards."""
        jobs: list[_Job] = []
        while (more := self._queue.get()) is not None:
            jobs += more
            if len(jobs) >= MAX_BATCH or self._queue.empty():
                return jobs, True
        return jobs, False

    def _commit(self, jobs: list[_CommitJob]) -> None:
        result = BatchResult()
        if tracing.is_on():
            for job in jobs:
                job.span.note("batch begins", {"gateway.batch.size": len(jobs)})
        try:
            self._batch.commit([job.request for job in jobs], result)
        except Exception:
            log.exception(
                "the committer failed; uploads of this batch may get no answer",
                extra=event("committer.failed"),
            )
        failpoints.hit("before answer")
        _report([_outcome(job, result) for job in jobs])
        if result.event_ids:
            self._release(result.event_ids)
        if tracing.is_on():
            _end_spans(jobs, result)

    def _release(self, event_ids: list[str]) -> None:
        """Let the deliveries run. A mistake there must not end the thread: all uploads would wait."""
        try:
            self._outbox.release_events(event_ids)
        except Exception:
            log.exception(
                "deliveries of stored uploads may wait for the next start",
                extra=event("delivery.unreleased"),
            )


def _outcome(job: _CommitJob, result: BatchResult) -> _Report:
    outcome = result.outcomes.get(job.request.upload.id)
    return job.loop, job.done, outcome or UnknownOutcome("the committer failed")


def _end_spans(jobs: list[_CommitJob], result: BatchResult) -> None:
    for job in jobs:
        outcome = result.outcomes.get(job.request.upload.id)
        if isinstance(outcome, Exception):
            job.span.fail(tracing.error_type(outcome))
        else:
            job.span.set({"gateway.bytes": job.request.body.size})
        job.span.end()


def _call(job: _CallJob) -> _Report:
    future = job.future
    try:
        result = job.function()
    except Exception as error:
        return future.get_loop(), partial(_resolve, future), error
    return future.get_loop(), partial(_set_result, future), result


def _resolve(future: asyncio.Future[T], outcome: T | Exception) -> None:
    """Give an outcome to the future of a caller, who may have been cancelled."""
    if not isinstance(outcome, Exception):
        _set_result(future, outcome)
    elif not future.done():
        future.set_exception(outcome)


def _set_result(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _report(reports: list[_Report]) -> None:
    """Call the callbacks on the loops that wait for them, in one wake-up of each loop."""
    for loop in {loop for loop, _, _ in reports}:
        # A loop that was closed waits for nothing.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_call_all, [item for item in reports if item[0] is loop])


def _call_all(reports: list[_Report]) -> None:
    for _, callback, argument in reports:
        try:
            callback(argument)
        except Exception:  # its own mistake, which no other upload pays for
            log.exception("an answer to an upload failed", extra=event("upload.unanswered"))
