"""Load balancing: which upstream a request goes to, and which are suspended after failures.

A failure delays one request, not every request: a failed upstream is suspended for a doubling time,
then a single request tries it again. Pure: the clock is a parameter.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.endpoints.routing.proxy.errors import UpstreamFailed

SUSPENSION_DELAY: Final = 5.0
MAX_SUSPENSION_DELAY: Final = 60.0
"""Seconds that an upstream is suspended after its first failure, and at most."""

MAX_FAILURES: Final = 3
"""Requests without a response, one after the other, that suspend an upstream: a single one may be too
much for it. A connection that fails suspends it at once: that would happen to any request."""


@dataclass(slots=True)
class UpstreamAttempt:
    """One request to an upstream. `probes`: it alone finds out whether the upstream works again."""

    upstream: str
    started: float
    probes: bool


@dataclass(slots=True)
class _Health:
    """What is known of an upstream whose latest request failed; `seconds` is 0 before a suspension."""

    failures: int = 0
    failed: float = -math.inf
    suspended: float = -math.inf
    seconds: float = 0.0
    probed: bool = False

    def is_ready(self, now: float) -> bool:
        return not self.probed and self.suspended + self.seconds <= now


class Upstreams:
    """Round robin over the upstreams of each route; lives on one loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turns: dict[tuple[str, ...], int] = {}
        self._health: dict[str, _Health] = {}

    def order(self, upstreams: Sequence[str]) -> list[str]:
        """Return the upstreams to try, in order; if all are suspended, the one that failed first."""
        names = tuple(upstreams)
        if len(names) == 1:
            return [names[0]]
        now, health = self._clock(), self._health
        ready = [name for name in names if name not in health or health[name].is_ready(now)]
        if not ready:
            return [min(names, key=lambda name: health[name].failed)]
        turn = self._turns.get(names, -1) + 1
        self._turns[names] = turn
        index = turn % len(ready)  # of those that are ready: a neighbour would get the others' share
        return list(dict.fromkeys(ready[index:] + ready[:index]))  # one may be listed often

    def begin(self, upstream: str) -> UpstreamAttempt:
        """Note that a request tries it now: no other one probes a suspended upstream meanwhile."""
        now, health = self._clock(), self._health.get(upstream)
        probes = health is not None and health.seconds > 0 and health.is_ready(now)
        if health is not None and probes:
            health.probed = True
        return UpstreamAttempt(upstream, now, probes)

    def fail(self, attempt: UpstreamAttempt, *, connected: bool) -> float:
        """Note that it could not be reached, or gave no response although it was `connected`.

        Returns the seconds that it is suspended for because of this; 0 if it is not.
        """
        now, health = self._clock(), self._health.setdefault(attempt.upstream, _Health())
        health.failed = now
        health.failures += 1 if connected else MAX_FAILURES
        if health.failures < MAX_FAILURES or attempt.started < health.suspended:
            return 0.0  # many requests that failed together count as one
        health.suspended = now
        health.seconds = min(health.seconds * 2, MAX_SUSPENSION_DELAY) or SUSPENSION_DELAY
        return health.seconds

    def succeed(self, attempt: UpstreamAttempt) -> bool:
        """Forget its failures; tell whether that ends a suspension."""
        health = self._health.pop(attempt.upstream, None)
        return health is not None and health.seconds > 0

    def end(self, attempt: UpstreamAttempt) -> None:
        """Let another request probe it, in case this one has found out nothing."""
        health = self._health.get(attempt.upstream)
        if attempt.probes and health is not None:
            health.probed = False


class UpstreamTries:
    """Which upstreams one request goes to, in order, until one responds.

    What could not be sent goes to the next one. What may have arrived goes to the next one once, if
    that does no harm (`repeatable`); where there is no other, to the same one, if it closed the
    connection.
    """

    __slots__ = ("_repeatable", "_rest")

    def __init__(self, order: Iterable[str], *, repeatable: bool) -> None:
        self._rest = deque(order)
        self._repeatable = repeatable

    def next(self) -> str:
        """Return the upstream to try now."""
        return self._rest.popleft()

    def go_on(self, upstream: str, failure: UpstreamFailed) -> None:
        """Note that `upstream` has failed. Raises the refusal for the client after the last try."""
        if failure.connected and not self._repeatable:
            raise failure.refusal from failure
        if failure.connected:
            self._repeatable = False
            if not self._rest and failure.closed:
                self._rest.append(upstream)
        if not self._rest:
            raise failure.refusal from failure
