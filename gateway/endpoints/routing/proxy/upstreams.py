"""Load balancing: which upstream a request goes to, and which get none after failures.

A failure delays one request, not every request: a failed upstream is suspended for a doubling time,
then a single request tries it again. A probe (`health`) that fails takes it out until one succeeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.endpoints.routing.proxy.balancing import SmoothTurns
from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.endpoints.routing.rules import ActiveHealth, PassiveHealth
from gateway.errors import Refusal

MAX_SUSPENSION_DELAY: Final = 60.0
"""Seconds that an upstream is suspended at most, where `passive.aside` is not more."""


@dataclass(slots=True)
class UpstreamAttempt:
    """One request to an upstream. `probes`: it alone finds out whether the upstream works again."""

    upstream: str
    started: float
    probes: bool


@dataclass(slots=True)
class _Suspicion:
    """What is known of an upstream whose latest request failed; `seconds` is 0 before a suspension.

    `since` is when its first suspension began: they follow each other until it works. `reachable`:
    requests arrived. They may have been too much for it, which says less of other requests.
    """

    failures: int = 0
    failed: float = -math.inf
    suspended: float = -math.inf
    seconds: float = 0.0
    probed: bool = False
    reachable: bool = True
    since: float = math.inf

    def is_over(self, now: float) -> bool:
        return self.suspended + self.seconds <= now


class UpstreamGroup:
    """The upstreams of routes whose settings of upstreams are equal; lives on one loop."""

    def __init__(
        self, names: Sequence[str], passive: PassiveHealth, health: ActiveHealth | None = None
    ) -> None:
        self.names = tuple(names)
        self.passive = passive
        self.health = health
        self.clock: Callable[[], float] = time.monotonic
        self._turns: dict[tuple[int, ...], SmoothTurns] = {}
        self._suspicions: dict[str, _Suspicion] = {}
        self._down: dict[str, float] = {}

    # -- which one

    def pick(self, weights: tuple[int, ...] = (), tried: Collection[str] = ()) -> str | None:
        """Return the ready upstream whose turn it is, beside those that were tried; None without any."""
        if not self._suspicions and not self._down and not tried:
            ready = self.names
        else:
            ready = tuple(name for name in self.names if name not in tried and self._is_ready(name))
        if len(ready) < 2:
            return ready[0] if ready else None
        turns = self._turns.get(weights)
        if turns is None:
            turns = self._turns[weights] = SmoothTurns(self.names, weights)
        return turns.take(ready)

    def last_resort(self) -> str:
        """Return the upstream to try where none is ready: the one that failed first.

        With `health` only requests that may have been too much for it are tried again. Raises `Refusal`
        `upstreams_unavailable`, where no upstream can be reached or its probes fail.
        """
        names: Iterable[str] = self.names
        if self.health is not None:
            names = [name for name in names if name not in self._down and self._is_reachable(name)]
        if not names:
            raise self._unavailable()
        return min(names, key=lambda name: self._suspicions[name].failed)

    def is_up(self, upstream: str) -> bool:
        """Tell whether requests are sent to an upstream."""
        suspicion = self._suspicions.get(upstream)
        return upstream not in self._down and (suspicion is None or suspicion.is_over(self.clock()))

    def down_for(self, upstream: str) -> float | None:
        """Return for how many seconds an upstream has got no requests, None for one that is up."""
        if self.is_up(upstream):
            return None
        suspicion = self._suspicions.get(upstream)
        suspended = math.inf if suspicion is None else suspicion.since
        return self.clock() - min(suspended, self._down.get(upstream, math.inf))

    def _is_ready(self, upstream: str) -> bool:
        suspicion = self._suspicions.get(upstream)
        return self.is_up(upstream) and (suspicion is None or not suspicion.probed)

    def _is_reachable(self, upstream: str) -> bool:
        suspicion = self._suspicions.get(upstream)
        return suspicion is None or suspicion.reachable

    def _unavailable(self) -> Refusal:
        every = self.health.every if self.health is not None else self.passive.aside
        headers = {"Retry-After": str(max(math.ceil(every), 1))}
        message = "no upstream of this path works at the moment: try again later"
        return Refusal("upstreams_unavailable", message, headers)

    # -- what requests tell

    def begin(self, upstream: str) -> UpstreamAttempt:
        """Note that a request tries it now: no other one probes a suspended upstream meanwhile."""
        now, suspicion = self.clock(), self._suspicions.get(upstream)
        probes = (
            suspicion is not None
            and suspicion.seconds > 0
            and suspicion.is_over(now)
            and not suspicion.probed
        )
        if suspicion is not None and probes:
            suspicion.probed = True
        return UpstreamAttempt(upstream, now, probes)

    def fail(self, attempt: UpstreamAttempt, *, connected: bool) -> float:
        """Note that it could not be reached, or has failed although it was `connected`.

        Returns the seconds that it is suspended for because of this; 0 if it is not.
        """
        now, suspicion = self.clock(), self._suspicions.setdefault(attempt.upstream, _Suspicion())
        most, aside = self.passive.failures, self.passive.aside
        suspicion.failed = now
        suspicion.failures += 1 if connected else most
        if suspicion.failures < most or attempt.started < suspicion.suspended:
            return 0.0  # many requests that failed together count as one
        suspicion.suspended, suspicion.reachable = now, connected
        suspicion.since = min(suspicion.since, now)
        suspicion.seconds = min(suspicion.seconds * 2, max(MAX_SUSPENSION_DELAY, aside)) or aside
        return suspicion.seconds

    def succeed(self, attempt: UpstreamAttempt) -> bool:
        """Forget its failures; tell whether that ends a suspension."""
        suspicion = self._suspicions.pop(attempt.upstream, None)
        return suspicion is not None and suspicion.seconds > 0

    def end(self, attempt: UpstreamAttempt) -> None:
        """Let another request probe it, in case this one has found out nothing."""
        suspicion = self._suspicions.get(attempt.upstream)
        if attempt.probes and suspicion is not None:
            suspicion.probed = False

    # -- what probes tell

    def report(self, upstream: str, *, works: bool) -> bool:
        """Note what a probe of `health` has found; tell whether that changes something."""
        if not works:
            changed = upstream not in self._down
            self._down.setdefault(upstream, self.clock())
            return changed
        suspicion = self._suspicions.pop(upstream, None)
        changed = upstream in self._down or (suspicion is not None and suspicion.seconds > 0)
        self._down.pop(upstream, None)
        return changed


class UpstreamTries:
    """Which upstreams one request goes to, in order, until one responds.

    What could not be sent goes to the next one. What may have arrived goes to the next one once, if
    that does no harm (`repeatable`); where there is no other, to the same one, if it closed the
    connection.
    """

    __slots__ = ("_group", "_next", "_repeatable", "_tried", "_weights")

    def __init__(self, group: UpstreamGroup, weights: tuple[int, ...] = (), *, repeatable: bool) -> None:
        self._group = group
        self._weights = weights
        self._repeatable = repeatable
        self._tried: list[str] = []
        self._next: str | None = None

    def next(self) -> str:
        """Return the upstream to try now. Raises `Refusal("upstreams_unavailable")`."""
        upstream, self._next = self._next, None
        if upstream is None:
            upstream = self._group.pick(self._weights) or self._group.last_resort()
        self._tried.append(upstream)
        return upstream

    def go_on(self, upstream: str, failure: UpstreamFailed) -> None:
        """Note that `upstream` has failed. Raises the refusal for the client after the last try."""
        if failure.connected and not self._repeatable:
            raise failure.refusal from failure
        self._next = self._group.pick(self._weights, self._tried)
        if failure.connected:
            self._repeatable = False
            if self._next is None and failure.closed:
                self._next = upstream
        if self._next is None:
            raise failure.refusal from failure

    def repeat(self) -> bool:
        """Tell whether the request goes to another upstream in place of the response of the latest."""
        if not self._repeatable:
            return False
        self._next = self._group.pick(self._weights, self._tried)
        self._repeatable = self._next is None
        return self._next is not None
