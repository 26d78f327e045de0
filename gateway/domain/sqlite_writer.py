"""One connection that writes a SQLite file with group commit, in a thread of its own or in the caller's.

All operations that wait become one transaction, so a thousand callers pay for a few fsyncs; long ones
do not hold up the result of those before them. An operation that fails is repeated alone: it spoils no
other.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

MAX_TRANSACTION_TIME: Final = 0.02
"""Seconds after which no further operation joins a transaction."""

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
_Job = tuple[Operation[Any], "Future[Any]"]


class WriterConnection:
    """A connection and how it begins, commits and rolls back; one thread at a time uses it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def begin(self) -> None:
        """Begin a transaction that writes."""
        self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction durable."""
        self.db.execute("COMMIT")

    def rollback(self, error: BaseException) -> None:
        """Undo the transaction that `error` ended, if one has begun."""
        del error
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self.db.close()


class SqliteWriter:
    """Runs operations in the order of their calls, up to `max_batch` in one transaction.

    They run on the thread `name`, which starts with the first of them, or in that of a caller of `run`.
    Where `connect` fails, the operations that wait get its error, and the next ones try again. For
    `run` the connection must be one that any thread may use.
    """

    def __init__(self, connect: Callable[[], WriterConnection], *, name: str, max_batch: int) -> None:
        self._connect = connect
        self._name = name
        self._max_batch = max_batch
        self._jobs: deque[_Job] = deque()
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._woken = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._connection: WriterConnection | None = None
        self._lock = threading.Lock()  # of the jobs and flags, for a moment
        self._writing = threading.Lock()  # of the connection, while a transaction runs

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Queue `operation` for the next transaction; its result comes after the commit.

        The future raises what the operation raised, or `sqlite3.Error` where the transaction could not
        be made durable: then nothing of the operation is in the file.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(sqlite3.ProgrammingError(f"{self._name}: closed"))
                return future
            self._jobs.append((operation, future))
            self._wake()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        return future

    def run(self, operation: Operation[T]) -> T:
        """Return the result of `operation` after the commit, and raise what the future would. Blocking.

        It runs in this thread, and all that waits with it, unless another transaction runs: two
        switches between threads cost twice as much as a transaction of a few rows.
        """
        if not self._writing.acquire(blocking=False):
            return self.submit(operation).result()
        try:
            connection = self._connection
            if connection is not None and not self._closed and not self._jobs:
                (result,) = _transaction(connection, [operation])
                return result  # type: ignore[no-any-return]
            future = self.submit(operation)
            if connection is not None:
                self._write_waiting(connection)
        finally:
            self._writing.release()
        return future.result()

    def close(self) -> None:
        """Finish what is queued and close the connection."""
        with self._lock:
            self._closed = True
            self._wake()
        if self._thread is not None:
            self._thread.join()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._wakeups.put(None)

    def _run(self) -> None:
        running = True
        while running:
            self._wakeups.get()
            with self._lock:
                self._woken = False
                running = not self._closed  # then nothing more is queued
            while self._jobs:  # another thread may take them meanwhile
                with self._writing:
                    self._write_waiting(self._connection)
        with self._writing:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _write_waiting(self, connection: WriterConnection | None) -> None:
        """Run all operations that wait (bounded). The caller holds the lock of the connection."""
        count = min(len(self._jobs), self._max_batch)
        batch = [self._jobs.popleft() for _ in range(count)]
        live = [job for job in batch if job[1].set_running_or_notify_cancel()]
        if not live:
            return
        try:
            self._connection = connection = connection or self._connect()
        except BaseException as error:
            for _, future in live:
                future.set_exception(error)
            return
        _run_batch(connection, live)


def _run_batch(connection: WriterConnection, batch: list[_Job]) -> None:
    while batch:
        try:
            results = _transaction(connection, [operation for operation, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            # One operation failed, or the disk: alone, each gets its own error.
            for job in batch:
                _run_batch(connection, [job])
            return
        for (_, future), result in zip(batch, results, strict=False):
            future.set_result(result)
        batch = batch[len(results) :]


def _transaction(connection: WriterConnection, batch: list[Operation[Any]]) -> list[Any]:
    """Run the first operations as many as `MAX_TRANSACTION_TIME` allows and at least one."""
    until = time.monotonic() + MAX_TRANSACTION_TIME
    results: list[Any] = []
    try:
        connection.begin()
        for operation in batch:
            results.append(operation(connection.db))
            if time.monotonic() > until:
                break
        connection.commit()
    except BaseException as error:
        connection.rollback(error)
        raise
    return results
