"""Metrics that the server's loop alone counts: they cost a fraction of prometheus_client's.

Label values must come from bounded sets; `BoundedLabel` makes one of names that are not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

OTHER: Final = "other"
"""The label value of what is beyond a bound."""


class LoopCounter(Collector):
    """A counter; `labels` are the names of the values that `add` gets."""

    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._about = name, meaning
        self._labels = labels
        self._counts: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}
        registry.register(self)

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Add `amount` to the count with these label values."""
        self._counts[values] = self._counts.get(values, 0.0) + amount

    def total(self, value: str) -> float:
        """Return the count of a counter with one label that has this value."""
        return self._counts.get((value,), 0.0)

    @property
    def sum(self) -> float:
        """All counts together."""
        return sum(self._counts.values())

    def collect(self) -> Iterable[Metric]:
        """Return the counts for prometheus_client. Thread-safe."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for values, count in self._counts.copy().items():
            family.add_metric(values, count)
        yield family


class LoopHistogram(Collector):
    """A histogram of seconds; `bounds` are the upper ones of its buckets, in ascending order."""

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._about = name, meaning
        self._labels = labels
        self._bounds = tuple(bounds)
        self._texts = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._series: dict[tuple[str, ...], list[float]] = {}
        registry.register(self)

    def observe(self, seconds: float, *values: str) -> None:
        """Count a duration with these label values."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = [0.0] * (len(self._bounds) + 2)
        series[bisect_left(self._bounds, seconds)] += 1.0
        series[-1] += seconds

    def collect(self) -> Iterable[Metric]:
        """Return the buckets for prometheus_client. Thread-safe."""
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        for values, series in self._series.copy().items():
            *counts, total = series.copy()
            buckets, below = [], 0.0
            for text, count in zip(self._texts, counts, strict=True):
                below += count
                buckets.append((text, below))
            family.add_metric(values, buckets, total)
        yield family


class BoundedLabel:
    """Names as label values: those of `fixed`, and the first `most` others; the rest is `other`."""

    def __init__(self, most: int, fixed: Collection[str] = ()) -> None:
        self._names = {*fixed}
        self._most = most + len(self._names)

    def value(self, name: str) -> str:
        """Return the label value for a name."""
        names = self._names
        if name in names:
            return name
        if len(names) >= self._most:
            return OTHER
        names.add(name)
        return name
