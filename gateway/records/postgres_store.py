"""Records in PostgreSQL, for installations of several machines.

Every wait is bounded; a database that cannot be reached is `RecordsUnavailable`. The pool has a
loop in a thread of its own, because the callers' loops come and go. No password stands in any text.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import asyncpg

from gateway.errors import RecordsUnavailable
from gateway.records import postgres_queries as statements
from gateway.records.items import EncodedItem
from gateway.records.query import ItemRow, Query
from gateway.records.store import MAX_INDEXES, MAX_WAITING
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.records")
T = TypeVar("T")

MAX_CONNECTIONS: Final = 8
CONNECT_TIMEOUT: Final = 5.0
CALL_TIMEOUT: Final = 15.0
"""Seconds that one call may take in all, waiting for a connection included."""

RELEASE_TIMEOUT: Final = 1.0
INDEX_TIMEOUT: Final = 600.0
"""Seconds that an index of a large table may take; its first caller may have left by then."""

_LOCK: Final = 0x67775263
"""The advisory lock under which tables and indexes are made, by one process of many."""

_UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class PostgresStore:
    """The records in the database at `url`; the first call connects."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.shown = shown(url)
        self._pool: asyncpg.Pool | None = None
        self._opening: asyncio.Lock | None = None
        self._indexed: set[tuple[str, str]] = set()
        self._indexing: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._waiting = 0

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """See `RecordStore`."""
        arguments = (collection, item.key, item.text)
        if replaces is not None:
            return await self._execute_one(statements.REPLACE, *arguments, replaces)
        return await self._execute_one(statements.INSERT if only_new else statements.PUT, *arguments)

    async def get(self, collection: str, key: str) -> str | None:
        """See `RecordStore`."""
        text: str | None = await self._query(lambda db: db.fetchval(statements.GET, collection, key))
        return text

    async def delete(self, collection: str, key: str) -> bool:
        """See `RecordStore`."""
        return await self._execute_one(statements.DELETE, collection, key)

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """See `RecordStore`. The first query of a field makes its indexes."""
        field = query.index
        if field is not None and (collection, field) not in self._indexed:
            await self._on_pool_loop(lambda: self._ensure_index(collection, field), INDEX_TIMEOUT)
        return await self._query(lambda db: statements.select(db, collection, query))

    async def check(self) -> str:
        """See `RecordStore`."""
        version = await self._query(lambda db: db.fetchval("SHOW server_version"))
        return f"in PostgreSQL {version} at {self.shown}"

    def close(self) -> None:
        """See `RecordStore`."""
        with self._lock:
            self._closed, loop, thread = True, self._loop, self._thread
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._stop_loop(), loop)
            thread.join(CONNECT_TIMEOUT)

    # -- on the caller's loop

    async def call(self, query: Callable[[Any], Awaitable[T]]) -> T:
        """Return what `query` returns, called with a connection. Raises `RecordsUnavailable`."""
        return await self._query(query)

    async def _query(self, query: Callable[[Any], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self._connection() as connection:
                return await query(connection)

        return await self._on_pool_loop(run, CALL_TIMEOUT)

    async def _execute_one(self, statement: str, *arguments: str) -> bool:
        done = await self._query(lambda db: db.execute(statement, *arguments))
        return bool(done.rpartition(" ")[2] == "1")

    async def _on_pool_loop(self, make: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Run `make` on the pool's loop and wait for it, up to `seconds`."""

        async def bounded() -> T:
            async with asyncio.timeout(seconds):
                return await make()

        with self._lock:
            if self._closed or self._waiting >= MAX_WAITING:
                raise RecordsUnavailable("the records are closed or overloaded")
            self._waiting += 1
            loop = self._running_loop()
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(bounded(), loop))
        except _UNAVAILABLE as error:
            raise self._unavailable(error) from None
        finally:
            with self._lock:
                self._waiting -= 1

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run_forever, args=(self._loop,), name="records", daemon=True
            )
            self._thread.start()
        return self._loop

    def _unavailable(self, error: Exception) -> RecordsUnavailable:
        """Return the error for callers: the server's message without the values of a statement."""
        message = (
            str(error).partition("\n")[0] if isinstance(error, asyncpg.PostgresError | OSError) else ""
        )
        why = f"{type(error).__name__}: {message}" if message else type(error).__name__
        return RecordsUnavailable(f"the records at {self.shown} cannot be reached: {why}")

    # -- on the pool's loop

    async def _stop_loop(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pool is not None:
            with contextlib.suppress(*_UNAVAILABLE):
                await asyncio.wait_for(self._pool.close(), CONNECT_TIMEOUT / 2)
        asyncio.get_running_loop().stop()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Lend a connection. One that hangs is not waited for when it is released."""
        pool = await self._connected_pool()
        connection = await pool.acquire()
        try:
            yield connection
        finally:
            await pool.release(connection, timeout=RELEASE_TIMEOUT)

    async def _connected_pool(self) -> asyncpg.Pool:
        """Return the pool; the first caller connects it and makes the tables."""
        if self._pool is None:
            if self._opening is None:
                self._opening = asyncio.Lock()
            async with self._opening:
                if self._pool is None:
                    self._pool = await self._open_pool()
        return self._pool

    async def _open_pool(self) -> asyncpg.Pool:
        pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=MAX_CONNECTIONS,
            timeout=CONNECT_TIMEOUT,
            command_timeout=CALL_TIMEOUT,
            init=_set_up,
            reset=_leave_as_is,
            server_settings={"application_name": "upload-gateway"},
        )
        try:
            await pool
            async with pool.acquire() as connection:
                if await connection.fetchval("SHOW server_encoding") != "UTF8":
                    raise RecordsUnavailable(f"the database at {self.shown} must have the encoding UTF8")
                # A user who may not create tables can still use existing ones.
                if not await connection.fetchval(statements.TABLES_EXIST):
                    await _make_tables(connection)
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def _ensure_index(self, collection: str, field: str) -> None:
        """Make the indexes of a field; that continues when its first caller leaves."""
        place = collection, field
        if place not in self._indexing:
            self._indexing[place] = asyncio.create_task(self._make_indexes(collection, field))
            self._indexing[place].add_done_callback(lambda _: self._indexing.pop(place))
        await asyncio.shield(self._indexing[place])

    async def _make_indexes(self, collection: str, field: str) -> None:
        async with self._connection() as connection:
            if field not in await _fields(connection, collection):
                await _make_indexes(connection, collection, field)
        self._indexed.add((collection, field))


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    # Callers get their errors; what the driver reports beside them is for debugging.
    loop.set_exception_handler(
        lambda _, context: log.debug("%s", context.get("message"), extra=event("records.failed"))
    )
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _set_up(connection: Any) -> None:
    """Set up a new connection: a commit is on stable storage, whatever the server's default."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )


async def _leave_as_is(_connection: Any) -> None:
    """Release a connection as it is: no statement here leaves state in it."""


async def _make_tables(connection: Any) -> None:
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        for statement in statements.SCHEMA:
            await connection.execute(statement)


async def _make_indexes(connection: Any, collection: str, field: str) -> None:
    """Make the indexes of a field. Raises `ValueError` for one too many."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=INDEX_TIMEOUT)
        fields = await _fields(connection, collection)
        if field in fields:
            return
        if len(fields) >= MAX_INDEXES:
            raise ValueError(
                f"index={field!r}: {len(fields)} fields are indexed already: {sorted(fields)}"
            )
        for statement in statements.indexes(collection, field):
            await connection.execute(statement, timeout=INDEX_TIMEOUT)
        await connection.execute(statements.ADD_FIELD, collection, field)


async def _fields(connection: Any, collection: str) -> set[str]:
    return {row["field"] for row in await connection.fetch(statements.FIELDS, collection)}


def shown(url: str) -> str:
    """Return where a database is, without user and password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
