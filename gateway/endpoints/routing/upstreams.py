"""Load balancing: which upstream a request goes to, and which are suspended after a failure.

A failed connection delays one request, not every request: a failed upstream is suspended for a
doubling time, then a single request tries it again. Pure: the clock is a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

SUSPENSION_DELAY: Final = 5.0
MAX_SUSPENSION_DELAY: Final = 60.0
"""Seconds that an upstream is suspended after its first failure, and at most."""


@dataclass(slots=True)
class _Suspension:
    until: float
    seconds: float
    failed: float


class Upstreams:
    """Round robin over the upstreams of each route; lives on one loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_index: dict[tuple[str, ...], int] = {}
        self._suspensions: dict[str, _Suspension] = {}

    def order(self, upstreams: Sequence[str]) -> list[str]:
        """Return the upstreams to try, in order; if all are suspended, the one that failed first."""
        names = tuple(upstreams)
        if len(names) == 1:
            return [names[0]]
        index = self._next_index.get(names, 0)
        self._next_index[names] = (index + 1) % len(names)
        now = self._clock()
        rotated = names[index:] + names[:index]
        ready = [name for name in rotated if self._is_ready(name, now)]
        return ready or [min(names, key=lambda name: self._suspensions[name].failed)]

    def mark_trying(self, upstream: str) -> None:
        """Note that a request tries it now: no other one tries a failed upstream meanwhile."""
        suspension = self._suspensions.get(upstream)
        if suspension is not None:
            suspension.until = self._clock() + suspension.seconds

    def mark_failed(self, upstream: str) -> None:
        """Suspend it: it could not be reached."""
        now = self._clock()
        previous = self._suspensions.get(upstream)
        seconds = (
            SUSPENSION_DELAY if previous is None else min(previous.seconds * 2, MAX_SUSPENSION_DELAY)
        )
        self._suspensions[upstream] = _Suspension(now + seconds, seconds, now)

    def mark_working(self, upstream: str) -> None:
        """End its suspension."""
        self._suspensions.pop(upstream, None)

    def _is_ready(self, name: str, now: float) -> bool:
        suspension = self._suspensions.get(name)
        return suspension is None or suspension.until <= now
