"""One thread takes all uploads that wait and commits them as one batch.

Here is only the crossing between the server's loop and that thread; the steps themselves are in
`batch`. After the answers, and not before, the deliveries may be claimed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gateway.commit.batch import BatchCommitter
from gateway.commit.error_mapping import discard_quietly, refusal_of
from gateway.commit.records import BatchResult, CommitRequest
from gateway.domain import failpoints
from gateway.domain.model import Stored
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.outbox import JournalOutbox
from gateway.storage.local.incoming import IncomingFile

T = TypeVar("T")
log = logging.getLogger("gateway.commit")

MAX_BATCH: Final = 128
SYNC_APART_BYTES: Final = 1 << 20
"""Bodies from this size on are synced by a thread of their own, so that small ones need not wait."""


@dataclass(slots=True)
class _Job:
    """An order, or a function to be called between batches, and the future that waits for it."""

    what: CommitRequest | Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


_Result = tuple[_Job, Any, Exception | None]


class Committer:
    """The thread and its queue."""

    def __init__(
        self,
        steps: BatchCommitter,
        outbox: JournalOutbox,
        *,
        durable: bool,
        disk: Executor,
    ) -> None:
        self._steps = steps
        self._outbox = outbox
        self._durable = durable
        self._disk = disk
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._gathered: deque[_Job] = deque()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        self._send()
        self._queue.put(None)
        self._thread.join()

    async def commit(self, order: CommitRequest) -> Stored:
        """Make a received body a file. The body is the committer's from here on, come what may.

        Raises `Refusal` when nothing was stored and nothing will be, `UnknownOutcome` when nobody
        can say.
        """
        if self._durable and order.body.received >= SYNC_APART_BYTES:
            await self._sync_apart(order.body)
        loop = asyncio.get_running_loop()
        job = _Job(order, loop, loop.create_future())
        if not self._gathered:
            # Handed over when the loop has served all that is ready: waking the thread costs more
            # than a small upload, and it would take the interpreter from the loop at once.
            loop.call_soon(self._send)
        self._gathered.append(job)
        stored: Stored = await job.answer
        return stored

    def _send(self) -> None:
        # The loop's, but at the end another thread's too: each job is taken once.
        jobs: list[_Job] = []
        with contextlib.suppress(IndexError):
            while True:
                jobs.append(self._gathered.popleft())
        self._queue.put(jobs)

    async def between_batches(self, function: Callable[[], T]) -> T:
        """Run `function` in the committer's thread, while no upload is being published."""
        loop = asyncio.get_running_loop()
        job = _Job(function, loop, loop.create_future())
        self._queue.put([job])
        result: T = await job.answer
        return result

    async def _sync_apart(self, body: IncomingFile) -> None:
        loop = asyncio.get_running_loop()
        syncing = loop.run_in_executor(self._disk, body.sync)
        try:
            await asyncio.shield(syncing)
        except asyncio.CancelledError:
            # The body may not be closed under the thread that syncs it.
            syncing.add_done_callback(lambda _: discard_quietly(body))
            raise
        except (OSError, Refusal) as fault:
            await loop.run_in_executor(self._disk, discard_quietly, body)
            raise refusal_of(fault) from fault

    # -- the thread

    def _run(self) -> None:
        running = True
        while running:
            jobs, running = self._take()
            orders = [job for job in jobs if isinstance(job.what, CommitRequest)]
            for start in range(0, len(orders), MAX_BATCH):
                self._commit(orders[start : start + MAX_BATCH])
            _hand_over([_call(job) for job in jobs if not isinstance(job.what, CommitRequest)])

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for jobs; return all that wait (bounded), and whether to go on afterwards."""
        jobs: list[_Job] = []
        while (more := self._queue.get()) is not None:
            jobs += more
            if len(jobs) >= MAX_BATCH or self._queue.empty():
                return jobs, True
        return jobs, False

    def _commit(self, jobs: list[_Job]) -> None:
        orders = [job.what for job in jobs if isinstance(job.what, CommitRequest)]
        verdicts = BatchResult()
        try:
            self._steps.commit(orders, verdicts)
        except Exception:
            log.exception("the committer failed; uploads of this batch may get no answer")
        failpoints.hit("before answer")
        _hand_over(
            [
                _verdict(job, verdicts.outcomes.get(order.upload.id))
                for job, order in zip(jobs, orders, strict=True)
            ]
        )
        self._outbox.release(verdicts.event_ids)


def _verdict(job: _Job, outcome: Stored | Refusal | UnknownOutcome | None) -> _Result:
    if isinstance(outcome, Stored):
        return job, outcome, None
    return job, None, outcome or UnknownOutcome("the committer failed")


def _call(job: _Job) -> _Result:
    function = job.what
    try:
        return job, function() if callable(function) else None, None
    except Exception as fault:
        return job, None, fault


def _hand_over(results: list[_Result]) -> None:
    """Give all results to the loops that wait for them, in one wake-up of each loop."""

    def settle(mine: list[_Result]) -> None:
        for job, result, fault in mine:
            if job.answer.done():
                continue
            if fault is None:
                job.answer.set_result(result)
            else:
                job.answer.set_exception(fault)

    for loop in {job.loop for job, _, _ in results}:
        # A loop that has ended waits for no answer.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, [item for item in results if item[0].loop is loop])
