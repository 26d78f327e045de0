"""The crossing from an event loop to the journal's thread and back.

The rule: a batch crosses at the price of one. What several coroutines want to write is gathered
into one operation, and one wake-up of the loop brings all answers. `sqlite3.Error` becomes
`EventEngineUnavailable` here: the same may succeed a little later.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from gateway.domain.sqlite_writer import Operation
from gateway.errors import EventEngineUnavailable
from gateway.events.database import Database

T = TypeVar("T")
_Waiting = tuple["asyncio.Future[Any]", "Future[Any]"]


class _LoopQueue:
    """A loop to which answers are brought, with one wake-up for all that wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._answers: deque[_Waiting] = deque()
        self._woken = False

    def bring(self, future: asyncio.Future[Any], ended: Future[Any]) -> None:
        """Send an answer home; called in the journal's thread."""
        self._answers.append((future, ended))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # a loop that has ended waits for no answer
                self.loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._woken = False
        while self._answers:
            future, ended = self._answers.popleft()
            if not future.done():
                _answer(future, ended)


def _answer(future: asyncio.Future[Any], ended: Future[Any]) -> None:
    fault = ended.exception()
    if fault is None:
        future.set_result(ended.result())
    elif isinstance(fault, sqlite3.Error):
        future.set_exception(EventEngineUnavailable(f"the journal cannot be written: {fault}"))
    else:
        future.set_exception(fault)


class LoopBridge:
    """Runs operations for coroutines, each on the loop that asks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._home: _LoopQueue | None = None

    def run(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Queue an operation; the future has its result once that is durable.

        Raises `EventEngineUnavailable` (through the future) where the journal cannot be written.
        """
        loop = asyncio.get_running_loop()
        home = self._home
        if home is None or home.loop is not loop:
            home = self._home = _LoopQueue(loop)
        future: asyncio.Future[T] = loop.create_future()
        bring = home.bring
        self._database.submit(operation).add_done_callback(lambda ended: bring(future, ended))
        return future


class BatchWriter(Generic[T]):
    """Writes single items of many coroutines in as few operations as possible.

    `write` gets all that came together, `written` is told of them (on the loop) when they are durable.
    Where `write` raises for a batch, each item is tried alone, so that one which cannot be written
    harms no other.
    """

    def __init__(
        self,
        crossing: LoopBridge,
        write: Callable[[sqlite3.Connection, list[T]], None],
        written: Callable[[list[T]], None],
    ) -> None:
        self._crossing = crossing
        self._write = write
        self._written = written
        self._items: list[tuple[T, asyncio.Future[None]]] = []

    def put(self, item: T) -> asyncio.Future[None]:
        """Write an item with the next operation; the future is done when it is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._items:
            loop.call_soon(self._send_gathered)
        self._items.append((item, future))
        return future

    def _send_gathered(self) -> None:
        items, self._items = self._items, []
        self._send(items)

    def _send(self, items: list[tuple[T, asyncio.Future[None]]]) -> None:
        values = [item for item, _ in items]
        sent = self._crossing.run(lambda db: self._write(db, values))
        sent.add_done_callback(lambda ended: self._settle(items, ended))

    def _settle(self, items: list[tuple[T, asyncio.Future[None]]], ended: asyncio.Future[None]) -> None:
        fault = ended.exception()
        if fault is not None and len(items) > 1 and not isinstance(fault, EventEngineUnavailable):
            for item in items:
                self._send([item])
            return
        if fault is None:
            self._written([item for item, _ in items])
        for _, future in items:
            if future.done():
                continue
            if fault is None:
                future.set_result(None)
            else:
                future.set_exception(fault)
