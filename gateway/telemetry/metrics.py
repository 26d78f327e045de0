"""What is counted, and how it is called to Prometheus.

One object per gateway with a registry of its own, so that two gateways in one process (as in tests)
do not add up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

DURATIONS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)

Waiting = tuple[str, str, float, float]
"""Handler, state, deliveries, birth of the oldest of them as a Unix time."""


@dataclass(frozen=True, slots=True)
class SharedQueueDepth:
    """What an engine that many share tells: what waits in it, and the handlers that it holds back."""

    waiting: Sequence[Waiting]
    paused: Sequence[str]


Engines = Mapping[str, SharedQueueDepth | None]
_NONE: Engines = MappingProxyType({})


class LoopCounter(Collector):
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
        self.requests = self._tally("requests", "Answers by method and status", "method", "status")
        self.uploads = self._tally("uploads", "Uploads by outcome (stored, or an error code)", "outcome")
        self.received_bytes = self._tally("upload_bytes", "Bytes of committed uploads")
        self.notifications = self._tally(
            "object_notices", "Notifications of objects by outcome", "outcome"
        )
        self.presigned_uploads = self._tally("initiated_uploads", "Ends of presigned uploads", "end")
        self.downloads = self._tally(
            "downloads",
            "Downloads by outcome (sent, not_modified, broken, or an error code)",
            "outcome",
        )
        self.sent_bytes = self._tally("download_bytes", "Bytes of files that were sent")
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

    def _tally(self, name: str, meaning: str, *labels: str) -> LoopCounter:
        return LoopCounter(f"gateway_{name}", meaning, labels, self._registry)

    def record_run(self, handler: str, outcome: str, seconds: float) -> None:
        """Count a run of an event handler."""
        self.runs.labels(handler, outcome).inc()
        self.run_seconds.labels(handler).observe(seconds)

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when somebody asks."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def render(
        self,
        depth: Iterable[Waiting] = (),
        paused: Iterable[str] = (),
        engines: Engines = _NONE,
    ) -> bytes:
        """Return the text exposition format.

        `depth` is what waits here, `paused` names handlers; `engines` is the same of engines that
        many share, by name, None for one that does not answer. Their samples have a label `engine`.
        """
        families = [*_waiting(depth, paused, engines), *_engines_up(engines)]
        return generate_latest(self._registry) + generate_latest(_MetricsSnapshot(families))


def _waiting(
    depth: Iterable[Waiting], paused: Iterable[str], engines: Engines
) -> Sequence[GaugeMetricFamily]:
    deliveries = GaugeMetricFamily(
        "gateway_deliveries", "Deliveries that are not done", labels=["handler", "state"]
    )
    age = GaugeMetricFamily(
        "gateway_oldest_ready_seconds", "Age of the oldest delivery that is ready", labels=["handler"]
    )
    held = GaugeMetricFamily(
        "gateway_handler_paused", "1 for a handler that is paused", labels=["handler"]
    )
    now = time.time()
    told = [({"engine": name}, one.waiting, one.paused) for name, one in engines.items() if one]
    for more, waiting, held_back in [({}, depth, paused), *told]:
        for handler, state, count, oldest in waiting:
            labels = {"handler": handler, **more}
            deliveries.add_sample(deliveries.name, {**labels, "state": state}, count)
            if state == "ready":
                age.add_sample(age.name, labels, max(now - oldest, 0.0))
        for handler in held_back:
            held.add_sample(held.name, {"handler": handler, **more}, 1)
    return deliveries, age, held


def _engines_up(engines: Engines) -> Sequence[GaugeMetricFamily]:
    if not engines:
        return ()
    up = GaugeMetricFamily(
        "gateway_engine_up", "1 for an engine whose deliveries are here", labels=["engine"]
    )
    for name, one in engines.items():
        up.add_metric([name], float(one is not None))
    return (up,)


def together(told: Mapping[int, bytes | None]) -> bytes:
    """Merge what several processes said of themselves, by slot: each sample gets a label `process`.

    Not added up: a process that starts again counts from 0, and only its own counts may say so. None
    stands for a process that does not answer; `gateway_process_up` says so. CPU-bound.
    """
    families: dict[str, Metric] = {}
    up = GaugeMetricFamily(
        "gateway_process_up", "1 for a process whose figures are here", labels=["process"]
    )
    for slot, text in sorted(told.items()):
        up.add_metric([str(slot)], float(text is not None))
        for family in text_string_to_metric_families((text or b"").decode()):
            kept = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {"process": str(slot), **sample.labels}
                kept.samples.append(sample._replace(labels=labels))
    return generate_latest(_MetricsSnapshot([up, *families.values()]))


class _MetricsSnapshot(CollectorRegistry):
    """A registry for figures that are fetched per scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
