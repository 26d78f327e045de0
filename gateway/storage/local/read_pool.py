"""Threads for short work on the disk, of which many jobs come at once.

The jobs of one iteration of the event loop run in one thread, which reports them together: threads
that pass the interpreter to and fro cost more than such a job. Jobs that wait for a disk delay no
others: more threads start. Threads that only wait for the interpreter, as beside a busy loop, do not
count: with four of them 64 connections got half as much as with one. A pool belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

REPORT_INTERVAL: Final = 0.001
"""Seconds after which a thread reports what it has done so far."""

CHECK_INTERVAL: Final = 0.002
"""Seconds between two looks at what the threads do while jobs are queued."""

JOB_TIMEOUT: Final = 0.02
"""Seconds after which a job counts as waiting for a disk where the kernel does not tell."""

_FUTEX: Final = {"x86_64": b"202", "aarch64": b"98"}.get(os.uname().machine)
"""The system call in which a thread waits for the interpreter."""

_Result = tuple[asyncio.Future[Any], Any, BaseException | None]


class _Batch:
    """What a thread runs: since when its current job does (monotonic)."""

    __slots__ = ("_thread", "job_started")

    def __init__(self) -> None:
        self._thread = threading.get_native_id()
        self.job_started = time.monotonic()

    def waits_for_disk(self) -> bool:
        """Tell whether the thread waits in a system call other than for the interpreter."""
        try:
            with open(f"/proc/self/task/{self._thread}/syscall", "rb", buffering=0) as file:
                call = file.read().split()[0]  # "running", or a number (proc_pid_syscall(5))
        except (OSError, IndexError):
            call = None
        if call is None or _FUTEX is None:
            return time.monotonic() - self.job_started > JOB_TIMEOUT
        return call not in (b"running", _FUTEX)


class ReadPool:
    """At most `threads` threads. Called on the loop with a job, it returns the job's future."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._jobs: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._running = 0
        self._batches: set[_Batch] = set()
        self._start_scheduled = False
        self._check_scheduled = False

    def __call__(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a job; the future has what it returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.append((job, future))
        if not self._running and not self._start_scheduled:
            self._start_scheduled = True
            loop.call_soon(self._start_thread, loop)
        elif not self._check_scheduled:
            self._schedule_check(loop)
        return future

    def close(self) -> None:
        """End the threads; jobs that run end first, queued ones are dropped."""
        self._jobs.clear()
        self._executor.shutdown()

    def _start_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        self._start_scheduled = False
        if self._jobs and self._running < self._threads:
            self._running += 1
            self._executor.submit(self._run_jobs, loop)
        if self._jobs and not self._check_scheduled:
            self._schedule_check(loop)

    def _schedule_check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._check_scheduled = True
        loop.call_later(CHECK_INTERVAL, self._check_queue, loop)

    def _check_queue(self, loop: asyncio.AbstractEventLoop) -> None:
        self._check_scheduled = False
        batches = tuple(self._batches)
        if not self._jobs:
            return
        if len(batches) == self._running and all(batch.waits_for_disk() for batch in batches):
            self._start_thread(loop)
        else:
            self._schedule_check(loop)

    def _run_jobs(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: run jobs until none is queued, or until it is time to report."""
        results: list[_Result] = []
        batch = _Batch()
        self._batches.add(batch)
        until = batch.job_started + REPORT_INTERVAL
        while self._jobs and batch.job_started < until:
            try:
                job, future = self._jobs.popleft()
            except IndexError:  # another thread was faster
                break
            try:
                results.append((future, job(), None))
            except BaseException as error:
                results.append((future, None, error))
            batch.job_started = time.monotonic()
        self._batches.discard(batch)
        loop.call_soon_threadsafe(self._report, loop, results)

    def _report(self, loop: asyncio.AbstractEventLoop, results: list[_Result]) -> None:
        self._running -= 1
        for future, result, error in results:
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        if self._jobs and not self._start_scheduled:
            self._start_thread(loop)
