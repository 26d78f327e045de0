"""Records in PostgreSQL, for installations of several machines.

One rule: every wait is bounded, and what cannot be reached now is `RecordsUnavailable`. One
pool, on a loop in a thread of its own: the loops that ask come and go. No password in any text. May
import `statements`, `store` and what they may, and asyncpg.
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

log = logging.getLogger("gateway.records")
T = TypeVar("T")

CONNECTIONS: Final = 8
CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 15.0
"""How long one call may take in all, waiting for a connection included."""

RETURN_SECONDS: Final = 1.0
INDEX_SECONDS: Final = 600.0
"""How long an index of a large table may take; whoever asked may have gone by then."""

WAITING: Final = 10_000
_LOCK: Final = 0x67775263
"""The advisory lock under which tables and indexes are made: of many who try, one does."""

_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class PostgresStore:
    """The records in the database at `url`, connected with the first call."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.shown = shown(url)
        self._pool: asyncpg.Pool | None = None
        self._opening: asyncio.Lock | None = None
        self._indexed: set[tuple[str, str]] = set()
        self._making: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False
        self._waiting = 0

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """See `Store`."""
        asked = (collection, item.key, item.text)
        if replaces is not None:
            return await self._changed(statements.REPLACE, *asked, replaces)
        return await self._changed(statements.INSERT if only_new else statements.PUT, *asked)

    async def get(self, collection: str, key: str) -> str | None:
        """See `Store`."""
        found: str | None = await self._ask(lambda db: db.fetchval(statements.GET, collection, key))
        return found

    async def delete(self, collection: str, key: str) -> bool:
        """See `Store`."""
        return await self._changed(statements.DELETE, collection, key)

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """See `Store`. The first question about a field makes its indexes."""
        field = query.index
        if field is not None and (collection, field) not in self._indexed:
            await self._here(lambda: self._index(collection, field), INDEX_SECONDS)

        async def ask(db: Any) -> tuple[list[ItemRow], bool]:
            return await statements.select(db, collection, query)

        return await self._ask(ask)

    async def check(self) -> str:
        """See `Store`."""
        version = await self._ask(lambda db: db.fetchval("SHOW server_version"))
        return f"in PostgreSQL {version} at {self.shown}"

    def close(self) -> None:
        """See `Store`."""
        with self._starting:
            self._closed, loop, thread = True, self._loop, self._thread
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._end(), loop)
            thread.join(CONNECT_SECONDS)

    # -- crossing over to the loop of the pool

    async def _ask(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self._borrowed() as connection:
                return await ask(connection)

        return await self._here(run, ANSWER_SECONDS)

    async def _changed(self, statement: str, *arguments: str) -> bool:
        done = await self._ask(lambda db: db.execute(statement, *arguments))
        return bool(done.rpartition(" ")[2] == "1")

    async def _here(self, make: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Run something on the pool's loop and wait for it, `seconds` at the most."""

        async def bounded() -> T:
            async with asyncio.timeout(seconds):
                return await make()

        with self._starting:
            if self._closed or self._waiting >= WAITING:
                raise RecordsUnavailable("the records are closed or overloaded")
            self._waiting += 1
            loop = self._started()
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(bounded(), loop))
        except _AWAY as fault:
            raise self._away(fault) from None
        finally:
            with self._starting:
                self._waiting -= 1

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run_forever, args=(self._loop,), name="records", daemon=True
            )
            self._thread.start()
        return self._loop

    def _away(self, fault: Exception) -> RecordsUnavailable:
        """Say what is wrong. Words of the server come without the values of a statement."""
        said = (
            str(fault).partition("\n")[0] if isinstance(fault, asyncpg.PostgresError | OSError) else ""
        )
        why = f"{type(fault).__name__}: {said}" if said else type(fault).__name__
        return RecordsUnavailable(f"the records at {self.shown} cannot be reached: {why}")

    # -- from here on: on the pool's loop

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pool is not None:
            with contextlib.suppress(*_AWAY):
                await asyncio.wait_for(self._pool.close(), CONNECT_SECONDS / 2)
        asyncio.get_running_loop().stop()

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Any]:
        """Lend a connection. One that hangs is not waited for again when it comes back."""
        pool = await self._ready()
        connection = await pool.acquire()
        try:
            yield connection
        finally:
            await pool.release(connection, timeout=RETURN_SECONDS)

    async def _ready(self) -> asyncpg.Pool:
        """Return the pool; the first one to ask connects it and makes the table."""
        if self._pool is None:
            if self._opening is None:
                self._opening = asyncio.Lock()
            async with self._opening:
                if self._pool is None:
                    self._pool = await self._open()
        return self._pool

    async def _open(self) -> asyncpg.Pool:
        pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=CONNECTIONS,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            init=_settle,
            reset=_keep,
            server_settings={"application_name": "upload-gateway"},
        )
        try:
            await pool
            async with pool.acquire() as connection:
                if await connection.fetchval("SHOW server_encoding") != "UTF8":
                    raise RecordsUnavailable(f"the database at {self.shown} must have the encoding UTF8")
                # Who may not make tables can still use those there are.
                if not await connection.fetchval(statements.MADE):
                    await _make_tables(connection)
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def _index(self, collection: str, field: str) -> None:
        """Make the indexes of a field; that goes on though whoever asked first has left."""
        place = collection, field
        if place not in self._making:
            self._making[place] = asyncio.create_task(self._make_indexes(collection, field))
            self._making[place].add_done_callback(lambda _: self._making.pop(place))
        await asyncio.shield(self._making[place])

    async def _make_indexes(self, collection: str, field: str) -> None:
        async with self._borrowed() as connection:
            if field not in await _fields(connection, collection):
                await _make_indexes(connection, collection, field)
        self._indexed.add((collection, field))


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    # Whoever asked is told; what the driver finds behind their backs is for the curious.
    loop.set_exception_handler(lambda _, found: log.debug("%s", found.get("message")))
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _settle(connection: Any) -> None:
    """Prepare a new connection: a commit is on stable storage, whatever the server's default."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )


async def _keep(_connection: Any) -> None:
    """Give a connection back as it is: nothing we do leaves anything in it."""


async def _make_tables(connection: Any) -> None:
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        for statement in statements.SCHEMA:
            await connection.execute(statement)


async def _make_indexes(connection: Any, collection: str, field: str) -> None:
    """Make the indexes of a field. Raises `ValueError` for one too many."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=INDEX_SECONDS)
        fields = await _fields(connection, collection)
        if field in fields:
            return
        if len(fields) >= statements.MAX_INDEXES:
            raise ValueError(
                f"index={field!r}: {len(fields)} fields are indexed already: {sorted(fields)}"
            )
        for statement in statements.indexes(collection, field):
            await connection.execute(statement, timeout=INDEX_SECONDS)
        await connection.execute(statements.ADD_FIELD, collection, field)


async def _fields(connection: Any, collection: str) -> set[str]:
    return {row["field"] for row in await connection.fetch(statements.FIELDS, collection)}


def shown(url: str) -> str:
    """Return where a database is, without user and password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
