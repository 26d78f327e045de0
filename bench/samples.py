"""The result of a turn, and statistics of turns. A figure is never shown without its spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


class BenchError(Exception):
    """A figure cannot be measured: a contestant did not start, failed or stored wrong bytes."""


class NotInstalledError(BenchError):
    """A program that a contestant or a load needs is not installed."""


@dataclass(frozen=True)
class Sample:
    """One turn: `amount` requests or bytes in `seconds`.

    `p50_ms` and `p99_ms` are milliseconds to an answer, None if not measured; `sent` is bytes of
    a refused body that were sent; `cpu` is the server's user and system seconds.
    """

    seconds: float
    amount: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    sent: int | None = None
    cpu: float | None = None


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of several figures."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Return the spread of `figures`, at least one."""
        return cls(min(figures), statistics.median(figures), max(figures))


@dataclass
class Turns:
    """All turns of one entrant in one case, in order, and its memory in bytes.

    `idle` is resident before the first request, `peak` the most that was resident; both count all
    processes of the server, None where there is no server.
    """

    samples: list[Sample] = field(default_factory=list)
    idle: int | None = None
    peak: int | None = None

    def rates(self) -> list[float]:
        """Return requests or bytes per second of each turn."""
        return [sample.amount / sample.seconds for sample in self.samples]

    def costs(self) -> list[float]:
        """Return CPU seconds per request or byte of each turn; empty where there is no server."""
        return [s.cpu / s.amount for s in self.samples if s.cpu is not None and s.amount]

    def figures(self, name: str) -> list[float]:
        """Return a field of the samples, turn by turn, without those that have none."""
        values = (getattr(sample, name) for sample in self.samples)
        return [value for value in values if value is not None]


Results = dict[str, Turns]
"""The turns of a case, by the name of the entrant."""
