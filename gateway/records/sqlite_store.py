"""Records in a SQLite file beside the journal, for the processes of one machine.

One rule: one thread writes, with group commit: all that waits becomes one transaction, and a put
returns when that is on stable storage. Readers have threads and connections of their own.
"""

from __future__ import annotations

import asyncio
import functools
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.errors import RecordsUnavailable
from gateway.records import sqlite_queries as sqlite
from gateway.records.items import EncodedItem
from gateway.records.query import ItemRow, Query
from gateway.records.write_turns import WriteTurns

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
_Job = tuple[Operation[Any], "Future[Any]"]

READERS: Final = 2
BATCH: Final = 256
"""Writes that share one transaction at the most."""

WAITING: Final = 10_000
"""Calls that wait at the most; one more is refused."""


class SqliteStore:
    """The records in the file `path`, which is made with the first call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = _Writer(path)
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="records-read")
        self._open: list[_Opened] = []
        self._waiting = 0
        self._counting = threading.Lock()

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """See `Store`."""
        return await self._write(
            functools.partial(
                sqlite.put, collection=collection, item=item, only_new=only_new, replaces=replaces
            )
        )

    async def get(self, collection: str, key: str) -> str | None:
        """See `Store`."""
        return await self._read(functools.partial(sqlite.get, collection=collection, key=key))

    async def delete(self, collection: str, key: str) -> bool:
        """See `Store`."""
        return await self._write(functools.partial(sqlite.delete, collection=collection, key=key))

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """See `Store`. The first question about a field makes its index, in one transaction."""
        field = query.index
        if field is not None:
            known = await self._read(functools.partial(sqlite.indexes, collection=collection))
            if field not in known:
                make = functools.partial(sqlite.make_index, collection=collection, field=field)
                await self._write(make)
        return await self._read(functools.partial(sqlite.select, collection=collection, query=query))

    async def check(self) -> str:
        """See `Store`."""
        await self._read(lambda db: db.execute("SELECT 1 FROM items LIMIT 1").fetchone())
        return f"in {self._path}"

    def close(self) -> None:
        """See `Store`."""
        self._writer.close()
        self._readers.shutdown(cancel_futures=True)
        for reader in self._open:
            reader.close()

    async def _write(self, operation: Operation[T]) -> T:
        return await self._answer(lambda: self._writer.submit(operation))

    async def _read(self, operation: Operation[T]) -> T:
        return await self._answer(lambda: self._readers.submit(self._reading, operation))

    async def _answer(self, submit: Callable[[], Future[T]]) -> T:
        with self._counting:
            if self._waiting >= WAITING:
                raise RecordsUnavailable(f"{WAITING} calls wait for the records already")
            self._waiting += 1
        try:
            return await asyncio.wrap_future(submit())
        except (sqlite3.Error, OSError) as fault:
            raise RecordsUnavailable(
                f"the records in {self._path} cannot be reached: {fault}"
            ) from fault
        finally:
            with self._counting:
                self._waiting -= 1

    def _reading(self, operation: Operation[T]) -> T:
        """Run in a reader's thread, on its own connection."""
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = _Opened(self._path)
            self._open.append(reader)
        return reader.turns.patiently(lambda: operation(reader.connection))


class _Opened:
    """A connection, and its part in taking turns."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite.connect(path)
        self.turns = WriteTurns(path)

    def close(self) -> None:
        self.connection.close()
        self.turns.close()


class _Writer:
    """The thread that writes; started by the first write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Queue `operation` for the next transaction; its result comes after the commit."""
        future: Future[T] = Future()
        with self._starting:
            if self._closed:
                future.set_exception(RecordsUnavailable("the records are closed"))
                return future
            self._jobs.put((operation, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="records", daemon=True)
                self._thread.start()
        return future

    def close(self) -> None:
        """Finish what is queued."""
        with self._starting:
            self._closed = True
            self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        opened: _Opened | None = None
        running = True
        while running:
            batch, running = self._take()
            alive = [job for job in batch if job[1].set_running_or_notify_cancel()]
            try:
                opened = opened or _Opened(self._path)
            except Exception as fault:  # all of these are told, the next ones try again
                for _, future in alive:
                    future.set_exception(fault)
                continue
            opened.turns.give_way()
            _run_batch(opened, alive)
        if opened is not None:
            opened.close()

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for work; return all that waits (bounded) and whether to go on afterwards."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH or self._jobs.empty():
                return batch, True
            job = self._jobs.get()
        return batch, False


def _run_batch(opened: _Opened, batch: list[_Job]) -> None:
    try:
        results = _transaction(opened, batch)
    except Exception as fault:
        if len(batch) == 1:
            batch[0][1].set_exception(fault)
            return
        # One of them is at fault, or the disk is: alone, each gets its own verdict.
        for job in batch:
            _run_batch(opened, [job])
        return
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)


def _transaction(opened: _Opened, batch: list[_Job]) -> list[Any]:
    if not batch:
        return []
    connection, patiently = opened.connection, opened.turns.patiently
    try:
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        results = [operation(connection) for operation, _ in batch]
        patiently(lambda: connection.execute("COMMIT"))
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results
