"""Which upstream a request goes to, and which are left alone for a while.

The rule: a failed connection costs one request its time, not every request: an upstream that failed
is set aside for a doubling while, then a single request tries it again. Pure: the clock is handed
in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

FIRST_ASIDE: Final = 5.0
LONGEST_ASIDE: Final = 60.0
"""Seconds that an upstream is set aside after its first failure, and at the most."""


@dataclass(slots=True)
class _Suspension:
    until: float
    seconds: float
    failed: float


class Upstreams:
    """Round robin over the upstreams of each route; lives on one loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turns: dict[tuple[str, ...], int] = {}
        self._aside: dict[str, _Suspension] = {}

    def order(self, upstreams: Sequence[str]) -> list[str]:
        """Return the upstreams to try, in order; of none but failed ones, the one that failed first."""
        names = tuple(upstreams)
        if len(names) == 1:
            return [names[0]]
        turn = self._turns.get(names, 0)
        self._turns[names] = (turn + 1) % len(names)
        now = self._clock()
        rotated = names[turn:] + names[:turn]
        ready = [name for name in rotated if self._is_ready(name, now)]
        return ready or [min(names, key=lambda name: self._aside[name].failed)]

    def trying(self, upstream: str) -> None:
        """Note that a request tries it now: until that ends, others stay away from one that failed."""
        aside = self._aside.get(upstream)
        if aside is not None:
            aside.until = self._clock() + aside.seconds

    def failed(self, upstream: str) -> None:
        """Set it aside: no connection could be made."""
        now = self._clock()
        before = self._aside.get(upstream)
        seconds = FIRST_ASIDE if before is None else min(before.seconds * 2, LONGEST_ASIDE)
        self._aside[upstream] = _Suspension(now + seconds, seconds, now)

    def worked(self, upstream: str) -> None:
        """Take it back into the round."""
        self._aside.pop(upstream, None)

    def _is_ready(self, name: str, now: float) -> bool:
        aside = self._aside.get(name)
        return aside is None or aside.until <= now
