"""How a claim that waits learns that something may be due.

The rule: nobody polls, and no ring is missed: whoever is about to look reads `rings` first and
hands it to `wait`, which returns at once where somebody rang in between.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Final

ANY: Final = "*"
"""The name under which one waits for every handler; no handler can have it."""


class Wakeups:
    """One bell per handler. `ring` comes from any thread; all else belongs to one loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rings: dict[str, int] = {}
        self._all = 0
        self._rung: set[str] = set()
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def ring(self, handlers: Iterable[str]) -> None:
        """Wake those who wait for these handlers (`ANY`: everybody)."""
        with self._lock:
            for handler in (*handlers, ANY):
                self._rings[handler] = self._rings.get(handler, 0) + 1
                self._rung.add(handler)
            loop = self._loop
            if loop is None or self._scheduled:
                return
            self._scheduled = True
        try:
            loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # that loop has ended
            self._scheduled = False

    def ring_all(self) -> None:
        """Wake everybody."""
        with self._lock:
            self._all += 1
            names = list(self._waiters)
        self.ring(names)

    def rings(self, handler: str) -> int:
        """Return how often the bell has been rung."""
        return self._rings.get(handler, 0) + self._all

    async def wait(self, handler: str, seen: int, seconds: float) -> None:
        """Wait until `rings` is no longer `seen`, `seconds` at the most."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        with self._lock:
            if self.rings(handler) != seen:
                return
            if self._loop is not loop:
                self._loop, self._scheduled = loop, False
            self._waiters.setdefault(handler, set()).add(waiter)
        timer = loop.call_later(seconds, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            with self._lock:
                self._waiters[handler].discard(waiter)

    def _wake(self) -> None:
        with self._lock:
            self._scheduled = False
            rung, self._rung = self._rung, set()
            woken = [waiter for name in rung for waiter in self._waiters.get(name, ())]
        for waiter in woken:
            _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
