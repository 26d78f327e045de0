"""Events whose uploads are recorded and not yet published: none of their deliveries may run.

In memory only: a start settles every unpublished upload before anything is claimed, so a crash needs no
mark in the file, and a release costs no transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.events.memory_queue import FirstRun


@dataclass(slots=True, frozen=True)
class UnpublishedEvent:
    """An event that is held: `handlers` are to claim it, `first_runs` need no claim."""

    event_id: str
    upload_id: str
    handlers: Sequence[str]
    first_runs: Sequence[FirstRun] = ()


class UnpublishedEvents:
    """Events that may not be delivered yet. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, UnpublishedEvent] = {}

    def hold(self, events: Iterable[UnpublishedEvent]) -> None:
        """Hold the deliveries of events that are about to be recorded."""
        with self._lock:
            for event in events:
                self._events[event.event_id] = event

    def move(self, upload_id: str, path: str) -> None:
        """Change the path in what needs no claim."""
        with self._lock:
            for event in self._events.values():
                if event.upload_id == upload_id:
                    for run in event.first_runs:
                        run.event.path = path

    def release(self, event_ids: Iterable[str]) -> list[UnpublishedEvent]:
        """Hold these events no longer; return those that were held."""
        with self._lock:
            released = [self._events.pop(event_id, None) for event_id in event_ids]
        return [event for event in released if event is not None]

    def forget(self, upload_ids: Iterable[str]) -> list[UnpublishedEvent]:
        """Remove, and return, the events of uploads whose rows are deleted."""
        deleted = set(upload_ids)
        with self._lock:
            removed = [event for event in self._events.values() if event.upload_id in deleted]
            for event in removed:
                del self._events[event.event_id]
        return removed

    def holds(self, event_id: str) -> bool:
        """Tell whether the deliveries of an event must not run yet."""
        return event_id in self._events

    def event_ids(self) -> list[str]:
        """Return the events that must not be claimed now."""
        with self._lock:
            return list(self._events)

    def clear(self) -> None:
        """Release everything: recovery has settled it."""
        with self._lock:
            self._events.clear()
