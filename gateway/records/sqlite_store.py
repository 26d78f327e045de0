"""Records in a SQLite file beside the journal, for the processes of one machine.

One thread writes with group commit; `put` returns when its transaction is on stable storage.
Readers have threads and connections of their own.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gateway.domain.sqlite_writer import Operation, SqliteWriter, T, WriterConnection
from gateway.errors import RecordsUnavailable
from gateway.records import sqlite_queries as sqlite
from gateway.records.items import EncodedItem
from gateway.records.query import ItemRow, Query
from gateway.records.write_turns import WriteTurns

READERS: Final = 2
"""Threads that read."""

MAX_BATCH: Final = 256
"""Writes that share one transaction."""

MAX_WAITING: Final = 10_000
"""Calls that wait; the next one is refused."""


class SqliteStore:
    """The records in the file `path`, which the first call creates."""

    def __init__(self, path: Path) -> None:
        self._path = path
        connect = functools.partial(_SharedConnection, path)
        self._writer = SqliteWriter(connect, name="records", max_batch=MAX_BATCH)
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="records-read")
        self._connections: list[_SharedConnection] = []
        self._waiting = 0
        self._lock = threading.Lock()

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """See `RecordStore`."""
        return await self._write(
            functools.partial(
                sqlite.put, collection=collection, item=item, only_new=only_new, replaces=replaces
            )
        )

    async def get(self, collection: str, key: str) -> str | None:
        """See `RecordStore`."""
        return await self._read(functools.partial(sqlite.get, collection=collection, key=key))

    async def delete(self, collection: str, key: str) -> bool:
        """See `RecordStore`."""
        return await self._write(functools.partial(sqlite.delete, collection=collection, key=key))

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """See `RecordStore`. The first query of a field makes its index, in one transaction."""
        field = query.index
        if field is not None:
            indexed = await self._read(functools.partial(sqlite.indexes, collection=collection))
            if field not in indexed:
                make = functools.partial(sqlite.make_index, collection=collection, field=field)
                await self._write(make)
        return await self._read(functools.partial(sqlite.select, collection=collection, query=query))

    async def check(self) -> str:
        """See `RecordStore`."""
        await self._read(lambda db: db.execute("SELECT 1 FROM items LIMIT 1").fetchone())
        return f"in {self._path}"

    def close(self) -> None:
        """See `RecordStore`."""
        self._writer.close()
        self._readers.shutdown(cancel_futures=True)
        for reader in self._connections:
            reader.close()

    async def _write(self, operation: Operation[T]) -> T:
        return await self._call(lambda: self._writer.submit(operation))

    async def _read(self, operation: Operation[T]) -> T:
        return await self._call(lambda: self._readers.submit(self._run_read, operation))

    async def _call(self, submit: Callable[[], Future[T]]) -> T:
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise RecordsUnavailable(f"{MAX_WAITING} calls wait for the records already")
            self._waiting += 1
        try:
            return await asyncio.wrap_future(submit())
        except (sqlite3.Error, OSError) as error:
            raise RecordsUnavailable(
                f"the records in {self._path} cannot be reached: {error}"
            ) from error
        finally:
            with self._lock:
                self._waiting -= 1

    def _run_read(self, operation: Operation[T]) -> T:
        """Run in a reader's thread, on its own connection."""
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = _SharedConnection(self._path)
            self._connections.append(reader)
        return reader.turns.retry_busy(lambda: operation(reader.db))


class _SharedConnection(WriterConnection):
    """A connection to a file that other processes write too: `turns` let them in."""

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite.connect(path))
        self.turns = WriteTurns(path)

    def begin(self) -> None:
        self.turns.yield_turn()
        self.turns.retry_busy(super().begin)

    def commit(self) -> None:
        self.turns.retry_busy(super().commit)

    def close(self) -> None:
        super().close()
        self.turns.close()
