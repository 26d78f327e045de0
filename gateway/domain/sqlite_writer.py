"""One thread that writes a SQLite file with group commit.

All operations that wait become one transaction, so a thousand callers pay for a few fsyncs; long ones
do not hold up the result of those before them. An operation that fails is repeated alone: it spoils no
other.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

MAX_TRANSACTION_TIME: Final = 0.02
"""Seconds after which no further operation joins a transaction."""

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
_Job = tuple[Operation[Any], "Future[Any]"]


class WriterConnection:
    """A connection and how it begins, commits and rolls back; used by the writer's thread alone."""

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
    """Runs operations on the thread `name`, up to `max_batch` in one transaction.

    The thread starts with the first operation. Where `connect` fails, the operations that wait get its
    error, and the next ones try again.
    """

    def __init__(self, connect: Callable[[], WriterConnection], *, name: str, max_batch: int) -> None:
        self._connect = connect
        self._name = name
        self._max_batch = max_batch
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

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
            self._jobs.put((operation, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        return future

    def close(self) -> None:
        """Finish what is queued and close the connection."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: WriterConnection | None = None
        running = True
        while running:
            batch, running = self._next_batch()
            live = [job for job in batch if job[1].set_running_or_notify_cancel()]
            if not live:
                continue
            try:
                connection = connection or self._connect()
            except BaseException as error:
                for _, future in live:
                    future.set_exception(error)
                continue
            _run_batch(connection, live)
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """Wait for operations; return all that wait (bounded) and whether to go on afterwards."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == self._max_batch or self._jobs.empty():
                return batch, True
            job = self._jobs.get()
        return batch, False


def _run_batch(connection: WriterConnection, batch: list[_Job]) -> None:
    while batch:
        try:
            results = _transaction(connection, batch)
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


def _transaction(connection: WriterConnection, batch: list[_Job]) -> list[Any]:
    """Run the first operations of a batch, as many as `MAX_TRANSACTION_TIME` allows and at least one."""
    until = time.monotonic() + MAX_TRANSACTION_TIME
    results: list[Any] = []
    try:
        connection.begin()
        for operation, _ in batch:
            results.append(operation(connection.db))
            if time.monotonic() > until:
                break
        connection.commit()
    except BaseException as error:
        connection.rollback(error)
        raise
    return results
