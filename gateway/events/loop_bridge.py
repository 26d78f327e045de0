"""From an event loop to the journal's thread and back, a batch at the price of one.

What several coroutines write becomes one operation, and one wake-up of the loop delivers all results.
`sqlite3.Error` becomes `EventEngineUnavailable`: the same may succeed a little later.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar

from gateway.domain.sqlite_writer import Operation
from gateway.errors import EventEngineUnavailable
from gateway.events.database import Database, StatementValues

MAX_ITEMS: Final = 128
"""Items that one operation writes: some 15 ms where each has an error of the greatest length."""

T = TypeVar("T")
_Waiting = tuple["asyncio.Future[Any]", "Future[Any]"]


class _LoopQueue:
    """Results for one loop, with one wake-up for all that wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._results: deque[_Waiting] = deque()
        self._woken = False

    def deliver_result(self, future: asyncio.Future[Any], done: Future[Any]) -> None:
        """Pass a result to the loop; called by the thread that writes."""
        self._results.append((future, done))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # a loop that has ended waits for no result
                self.loop.call_soon_threadsafe(self._resolve_all)

    def _resolve_all(self) -> None:
        self._woken = False
        while self._results:
            future, done = self._results.popleft()
            if not future.done():
                _resolve_future(future, done)


def _resolve_future(future: asyncio.Future[Any], done: Future[Any]) -> None:
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    elif isinstance(error, sqlite3.Error):
        future.set_exception(EventEngineUnavailable(f"the journal cannot be written: {error}"))
    else:
        future.set_exception(error)


class LoopBridge:
    """Runs operations for coroutines of any loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._results: _LoopQueue | None = None

    def run(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Queue an operation; the future has its result once that is durable.

        Raises `EventEngineUnavailable` (through the future) where the journal cannot be written.
        """
        return self._forward(self._database.submit(operation))

    def write(self, statement: str, values: StatementValues) -> asyncio.Future[None]:
        """Queue one statement, as `run` does an operation."""
        return self._forward(self._database.write(statement, values))

    def _forward(self, submitted: Future[T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        results = self._results
        if results is None or results.loop is not loop:
            results = self._results = _LoopQueue(loop)
        future: asyncio.Future[T] = loop.create_future()
        deliver_result = results.deliver_result
        submitted.add_done_callback(lambda done: deliver_result(future, done))
        return future


class BatchWriter(Generic[T]):
    """Writes single items of many coroutines in as few operations as possible.

    `write` gets all that came together, and while the last operation was under way; `written` is called
    with them (on the loop) when they are durable. Where `write` raises for a batch, each item is tried
    alone: it spoils no other.
    """

    def __init__(
        self,
        bridge: LoopBridge,
        write: Callable[[sqlite3.Connection, list[T]], None],
        written: Callable[[list[T]], None],
    ) -> None:
        self._bridge = bridge
        self._write = write
        self._written = written
        self._items: list[tuple[T, asyncio.Future[None]]] = []
        self._under_way = 0

    def submit(self, item: T) -> asyncio.Future[None]:
        """Write an item with the next operation; the future is done when it is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._items and not self._under_way:
            loop.call_soon(self._send_waiting)
        self._items.append((item, future))
        return future

    def _send_waiting(self) -> None:
        items, self._items = self._items, []
        for start in range(0, len(items), MAX_ITEMS):
            self._send(items[start : start + MAX_ITEMS])

    def _send(self, items: list[tuple[T, asyncio.Future[None]]]) -> None:
        values = [item for item, _ in items]
        self._under_way += 1
        sent = self._bridge.run(lambda db: self._write(db, values))
        sent.add_done_callback(lambda done: self._finish(items, done))

    def _finish(self, items: list[tuple[T, asyncio.Future[None]]], done: asyncio.Future[None]) -> None:
        self._under_way -= 1
        if self._items and not self._under_way:
            asyncio.get_running_loop().call_soon(self._send_waiting)
        error = done.exception()
        if error is not None and len(items) > 1 and not isinstance(error, EventEngineUnavailable):
            for item in items:
                self._send([item])
            return
        if error is None:
            self._written([item for item, _ in items])
        for _, future in items:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
