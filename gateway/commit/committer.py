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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gateway.commit.batch import BatchCommitter
from gateway.commit.failures import discard_quietly, refusal_of
from gateway.commit.new_folders import NewFolders
from gateway.commit.records import BatchResult, CommitRequest, LocalDisk
from gateway.domain import failpoints
from gateway.domain.model import Stored
from gateway.errors import UnknownOutcome
from gateway.events.outbox import JournalOutbox
from gateway.storage.local.incoming import IncomingFile
from gateway.storage.waiting import finish_in_thread
from gateway.telemetry.logs import event

T = TypeVar("T")
log = logging.getLogger("gateway.commit")

MAX_BATCH: Final = 128
"""Uploads that one batch commits."""

MIN_SYNC_APART_BYTES: Final = 1 << 20
"""Bodies of this size or more are synced by a thread of their own: small ones need not wait."""


@dataclass(slots=True)
class _CommitJob:
    """A request, and the future of its caller."""

    request: CommitRequest
    future: asyncio.Future[Stored]


@dataclass(slots=True)
class _CallJob:
    """A function to call between batches, and the future of its caller."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]


_Job = _CommitJob | _CallJob
_Settled = tuple[asyncio.Future[Any], Any, Exception | None]
"""A future with its result, or its exception."""


class Committer:
    """The thread and its queue."""

    def __init__(self, batch: BatchCommitter, outbox: JournalOutbox, disk: LocalDisk) -> None:
        self._batch = batch
        self._outbox = outbox
        self._disk = disk
        self._folders = NewFolders(disk)
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
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

    async def commit(self, request: CommitRequest) -> Stored:
        """Publish a received body. From here on the body is the committer's, also after a cancel.

        Raises `Refusal` when nothing was stored and nothing will be, `UnknownOutcome` where in doubt.
        """
        body, folders = request.body, self._folders
        if self._disk.durable and body.received >= MIN_SYNC_APART_BYTES:
            await self._do_apart(body, finish_in_thread(body.sync, executor=self._disk.executor))
        if not folders.exist(request.upload.path):
            await self._do_apart(body, folders.create(request))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Stored] = loop.create_future()
        if not self._waiting:
            # Sent when the loop has served all that is ready: waking the thread costs more than a
            # small upload, and it would take the interpreter from the loop at once.
            loop.call_soon(self._send)
        self._waiting.append(_CommitJob(request, future))
        return await future

    def _send(self) -> None:
        # Called by the loop, at the end by another thread too: each job is popped once.
        jobs: list[_Job] = []
        with contextlib.suppress(IndexError):
            while True:
                jobs.append(self._waiting.popleft())
        self._queue.put(jobs)

    async def between_batches(self, function: Callable[[], T]) -> T:
        """Run `function` in the committer's thread, while no upload is being published."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put([_CallJob(function, future)])
        return await future

    async def _do_apart(self, body: IncomingFile, work: Awaitable[None]) -> None:
        """Do work for one upload before its batch. Where it fails the body is discarded."""
        try:
            await work
        except BaseException as error:
            await finish_in_thread(discard_quietly, body, executor=self._disk.executor)
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
            _settle([_call(job) for job in jobs if isinstance(job, _CallJob)])

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
        try:
            self._batch.commit([job.request for job in jobs], result)
        except Exception:
            log.exception(
                "the committer failed; uploads of this batch may get no answer",
                extra=event("committer.failed"),
            )
        failpoints.hit("before answer")
        _settle([_outcome(job, result) for job in jobs])
        self._outbox.release_events(result.event_ids)


def _outcome(job: _CommitJob, result: BatchResult) -> _Settled:
    outcome = result.outcomes.get(job.request.upload.id)
    if isinstance(outcome, Stored):
        return job.future, outcome, None
    return job.future, None, outcome or UnknownOutcome("the committer failed")


def _call(job: _CallJob) -> _Settled:
    try:
        return job.future, job.function(), None
    except Exception as error:
        return job.future, None, error


def _settle(settled: list[_Settled]) -> None:
    """Give the results to the loops that wait for them, in one wake-up of each loop."""

    def set_all(items: list[_Settled]) -> None:
        for future, result, error in items:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    for loop in {future.get_loop() for future, _, _ in settled}:
        # A loop that was closed waits for nothing.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(set_all, [item for item in settled if item[0].get_loop() is loop])
