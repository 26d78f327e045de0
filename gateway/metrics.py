"""Foundation: what is counted, and how it is called to Prometheus.

One object per gateway with a registry of its own, so that two gateways in one process (as in
tests) do not add up. May import prometheus_client only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

DURATIONS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)


class Tally(Collector):
    """A counter for the server's loop alone: adding costs a fraction of what a `Counter` asks.

    `labels` name the words that `add` gets; the words must come from bounded sets.
    """

    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._about = name, meaning
        self._labels = labels
        self._counts: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}
        registry.register(self)

    def add(self, *words: str, amount: float = 1.0) -> None:
        """Count one more, or `amount`, of those with these labels."""
        self._counts[words] = self._counts.get(words, 0.0) + amount

    def collect(self) -> Iterable[Metric]:
        """Return the counts as prometheus_client knows them; any thread may ask."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for words, count in self._counts.copy().items():
            family.add_metric(words, count)
        yield family


class Metrics:
    """Counters and gauges of one gateway."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the lines, no news
        self._registry = CollectorRegistry()
        self.requests = Tally(
            "gateway_requests", "Answers by method and status", ["method", "status"], self._registry
        )
        self.uploads = Tally(
            "gateway_uploads",
            "Uploads by outcome (stored, or an error code)",
            ["outcome"],
            self._registry,
        )
        self.received_bytes = Tally(
            "gateway_upload_bytes", "Bytes of committed uploads", [], self._registry
        )
        self.unsent_bytes = Counter(
            "gateway_refused_bytes",
            "Declared bytes that early refusals kept from being sent",
            registry=self._registry,
        )
        self.runs = Counter(
            "gateway_handler_runs",
            "Runs of event handlers by outcome",
            ["handler", "outcome"],
            registry=self._registry,
        )
        self.abnormal_answers = Counter(
            "gateway_abnormal_answers",
            "Answers with a status that their route does not call normal",
            ["route"],
            registry=self._registry,
        )
        self.run_seconds = Histogram(
            "gateway_handler_seconds",
            "How long handlers ran",
            ["handler"],
            buckets=DURATIONS,
            registry=self._registry,
        )

    def ran(self, handler: str, outcome: str, seconds: float) -> None:
        """Count a run of an event handler."""
        self.runs.labels(handler, outcome).inc()
        self.run_seconds.labels(handler).observe(seconds)

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when somebody asks."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def render(self, depth: Iterable[tuple[str, str, float]] = ()) -> bytes:
        """Return the text exposition format; `depth` is (handler, state, deliveries)."""
        family = GaugeMetricFamily(
            "gateway_deliveries", "Deliveries that are not done", labels=["handler", "state"]
        )
        for handler, state, count in depth:
            family.add_metric([handler, state], count)
        return generate_latest(self._registry) + generate_latest(_Once(family))


class _Once(CollectorRegistry):
    """A registry of one family, for figures that are fetched per scrape."""

    def __init__(self, family: Metric) -> None:
        super().__init__()
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]
