"""Turns by client: what waits is taken from one client after the other, not in order of arrival.

So a client waits for one item of each other client, however many these have waiting (round-robin fair
queueing: Nagle, RFC 970).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ClientTurns(Generic[T]):
    """Items that wait, of each client in their order. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        """Never an empty queue; the client whose turn is next comes first."""

    def add(self, client: str, item: T) -> None:
        """Queue an item behind the others of its client."""
        self._waiting.setdefault(client, deque()).append(item)

    def take(
        self, may_go: Callable[[str, T], bool] = lambda _client, _item: True
    ) -> tuple[str, T] | None:
        """Remove and return the oldest item of the first client for which `may_go`, with the client.

        Return None where there is none. The next turn of that client comes after those of all others.
        """
        for client, items in self._waiting.items():
            if may_go(client, items[0]):
                break
        else:
            return None
        del self._waiting[client]
        item = items.popleft()
        if items:
            self._waiting[client] = items
        return client, item

    def remove(self, client: str, item: T) -> None:
        """Drop an item that waits no more. Raises `ValueError` where it does not wait."""
        items = self._waiting.get(client, deque())
        items.remove(item)
        if not items:
            del self._waiting[client]
