"""Which recorded deliveries nobody may claim yet, since their upload is not published.

The rule: in memory only. A start settles every unpublished upload before anything is claimed, so a
crash needs no such mark in the file, and releasing costs no transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence


class UnpublishedEvents:
    """Events of uploads on their way. Any thread may ask and change it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, tuple[str, Sequence[str]]] = {}

    def hold(self, event_id: str, upload_id: str, handlers: Sequence[str]) -> None:
        """Keep the deliveries of an event that is about to be recorded."""
        with self._lock:
            self._events[event_id] = upload_id, handlers

    def release(self, event_ids: Iterable[str]) -> set[str]:
        """Let go of events; return the handlers that have something new to claim."""
        with self._lock:
            let_go = [self._events.pop(event_id, None) for event_id in event_ids]
        return {handler for event in let_go if event for handler in event[1]}

    def forget(self, upload_ids: Iterable[str]) -> None:
        """Let go of the events of uploads whose rows are deleted."""
        gone = set(upload_ids)
        with self._lock:
            for event_id in [e for e, (upload_id, _) in self._events.items() if upload_id in gone]:
                del self._events[event_id]

    def event_ids(self) -> list[str]:
        """Return what must not be claimed now."""
        with self._lock:
            return list(self._events)

    def clear(self) -> None:
        """Let go of everything: a start has settled it."""
        with self._lock:
            self._events.clear()
