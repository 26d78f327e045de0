"""A Prometheus gauge with labels, whose values are read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

GaugeValues = Mapping[tuple[str, ...], float]
"""The values of a gauge, by those of its labels."""


class LabelledGauge(Collector):
    """A gauge whose values, by those of its `labels`, are read at each scrape, in another thread."""

    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], read: Callable[[], GaugeValues]
    ) -> None:
        self._about = name, meaning
        self._labels = labels
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return the values for prometheus_client. Thread-safe."""
        family = GaugeMetricFamily(*self._about, labels=self._labels)
        for values, value in self._read().items():
            family.add_metric(values, value)
        yield family
