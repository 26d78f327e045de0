"""Threads for short work on the disk, of which many pieces come at once.

One rule: what comes in one turn of the loop is done by one thread and told in one go: threads that
hand the interpreter to and fro cost more than such work. Work that takes its time keeps nobody:
more threads come. Belongs to one event loop; may import the standard library only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

TURN_SECONDS: Final = 0.001
"""After this time a thread tells what it has done so far."""

PATIENCE_SECONDS: Final = 0.002
"""How long work waits behind other work before another thread comes."""

_Ended = tuple[asyncio.Future[Any], Any, BaseException | None]


class ReadPool:
    """At most `threads` threads; called with work, on the loop, returns its end."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="visit")
        self._waiting: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._working = 0
        self._called = False
        self._watched = False

    def __call__(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have `work` done; the future has what it returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, future))
        if not self._working and not self._called:
            self._called = True
            loop.call_soon(self._call, loop)
        elif not self._watched:
            self._watch(loop)
        return future

    def close(self) -> None:
        """End the threads; work that has begun ends first, other work is left undone."""
        self._waiting.clear()
        self._pool.shutdown()

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        self._called = False
        if self._waiting and self._working < self._threads:
            self._working += 1
            self._pool.submit(self._visit, loop)
        if self._waiting and not self._watched:
            self._watch(loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watched = True
        loop.call_later(PATIENCE_SECONDS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watched = False
        if self._waiting:
            self._call(loop)

    def _visit(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: work until nothing waits, or for a turn."""
        ended: list[_Ended] = []
        until = time.monotonic() + TURN_SECONDS
        while self._waiting and time.monotonic() < until:
            try:
                work, future = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                break
            try:
                ended.append((future, work(), None))
            except BaseException as fault:
                ended.append((future, None, fault))
        loop.call_soon_threadsafe(self._settle, loop, ended)

    def _settle(self, loop: asyncio.AbstractEventLoop, ended: list[_Ended]) -> None:
        self._working -= 1
        for future, result, fault in ended:
            if future.cancelled():
                continue
            if fault is None:
                future.set_result(result)
            else:
                future.set_exception(fault)
        if self._waiting and not self._called:
            self._call(loop)
