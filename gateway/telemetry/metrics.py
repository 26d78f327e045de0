"""Prometheus metrics of one gateway.

Each `Metrics` has a registry of its own, so that two gateways in one process (as in tests) do not
add up.
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
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway.telemetry.labelled_gauge import GaugeValues, LabelledGauge
from gateway.telemetry.loop_metrics import LoopCounter
from gateway.telemetry.request_metrics import RequestMetrics

DURATIONS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)

_HELD_MEANING = "Held uploads: whole, and not decided or not published yet"

Waiting = tuple[str, str, float, float]
"""Handler, state, number of deliveries, creation of the oldest one as a Unix time."""


@dataclass(frozen=True, slots=True)
class SharedQueueDepth:
    """The waiting deliveries and paused handlers of a queue that several gateways share."""

    waiting: Sequence[Waiting]
    paused: Sequence[str]


Engines = Mapping[str, SharedQueueDepth | None]
_NONE: Engines = MappingProxyType({})
_SHADOWS = (
    ("differed", "differences", "Shadows whose decision was not the one that counted"),
    ("agreed", "agreements", "Shadows whose decision was the one that counted"),
    ("skipped", "skipped", "Shadows that were not run: too many at once, or no file"),
)


class PartialMetrics(Collector):
    """What is counted of partial uploads.

    `kept` are the uploads of all processes and their bytes, None in a process that does not count them;
    `receiving` returns how many have a request of this process at work.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.kept: tuple[int, int] | None = None
        self.receiving: Callable[[], int] = int
        registry.register(self)
        self.appends = LoopCounter(
            "gateway_partial_appends",
            "Bodies of partial uploads by protocol and end (whole, cut, superseded, refused)",
            ("protocol", "end"),
            registry,
        )
        self.ended = LoopCounter(
            "gateway_partial_ended", "Partial uploads by how they ended", ("how",), registry
        )
        self.handover_seconds = Histogram(
            "gateway_partial_handover_seconds",
            "Time until a newer request had taken a partial upload over",
            registry=registry,
            buckets=DURATIONS,
        )

    def collect(self) -> Iterable[Metric]:
        """Return the gauges for prometheus_client. Thread-safe."""
        uploads = GaugeMetricFamily(
            "gateway_partial_uploads", "Partial uploads by state", labels=["state"]
        )
        size = GaugeMetricFamily("gateway_partial_bytes", "Bytes of partial uploads")
        receiving = self.receiving()
        uploads.add_metric(["receiving"], receiving)
        if self.kept is not None:
            uploads.add_metric(["waiting"], max(self.kept[0] - receiving, 0))
            size.add_metric([], self.kept[1])
        yield uploads
        yield size


class Metrics:
    """Counters and gauges of one gateway."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the lines, no information
        self._registry = CollectorRegistry()
        self.requests = RequestMetrics(self._registry)
        self.uploads = self._loop_counter(
            "uploads", "Uploads by outcome (stored, or an error code)", "outcome"
        )
        self.quota_refusals = self._loop_counter(
            "quota_refusals",
            "Uploads refused by a quota, by what it limits (bytes, files, bytes_per_day, requests)",
            "measure",
        )
        self.received_bytes = self._loop_counter("upload_bytes", "Bytes of committed uploads")
        self.partials = PartialMetrics(self._registry)
        self.notifications = self._loop_counter(
            "object_notices", "Notifications of objects by outcome", "outcome"
        )
        self.presigned_uploads = self._loop_counter(
            "initiated_uploads", "Presigned uploads by how they ended", "end"
        )
        self.downloads = self._loop_counter(
            "downloads", "Downloads by outcome (sent, not_modified, broken, or an error code)", "outcome"
        )
        self.sent_bytes = self._loop_counter("download_bytes", "Bytes of files that were sent")
        self.unsent_bytes = self._counter(
            "refused_bytes",
            "Declared bytes that were not sent, because the upload was refused before its body",
        )
        self.runs = self._counter(
            "handler_runs", "Runs of event handlers by outcome", "handler", "outcome"
        )
        self.abnormal_answers = self._counter(
            "abnormal_answers",
            "Responses with a status that their route does not list as normal",
            "route",
        )
        self._shadows = {
            outcome: self._counter(f"shadow_{name}", meaning, "handler")
            for outcome, name, meaning in _SHADOWS
        }
        self.run_seconds = Histogram(
            "gateway_handler_seconds",
            "Durations of handler runs",
            ["handler"],
            registry=self._registry,
            buckets=DURATIONS,
        )

    def _loop_counter(self, name: str, meaning: str, *labels: str) -> LoopCounter:
        return LoopCounter(f"gateway_{name}", meaning, labels, self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"gateway_{name}", meaning, labels, registry=self._registry)

    def record_run(self, handler: str, outcome: str, seconds: float) -> None:
        """Count a run of an event handler."""
        self.runs.labels(handler, outcome).inc()
        self.run_seconds.labels(handler).observe(seconds)

    def record_shadow(self, handler: str, outcome: str) -> None:
        """Count a run of a shadow: `differed`, `agreed` or `skipped`."""
        self._shadows[outcome].labels(handler).inc()

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read at each scrape, in a thread."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def labelled_gauge(
        self, name: str, meaning: str, labels: Sequence[str], read: Callable[[], GaugeValues]
    ) -> None:
        """Add a gauge with labels; `read` has to be thread-safe, and its label values bounded."""
        self._registry.register(LabelledGauge(name, meaning, labels, read))

    def render(
        self,
        depth: Iterable[Waiting] = (),
        paused: Iterable[str] = (),
        engines: Engines = _NONE,
        held: int = 0,
    ) -> bytes:
        """Return the text exposition format.

        `depth` are the waiting deliveries of this gateway, `paused` its paused handlers; `engines`
        has the same of shared queues by name, None if one does not answer. Their samples have a label
        `engine`. `held` counts the uploads that wait for a decision or for their publishing.
        """
        waiting = GaugeMetricFamily("gateway_held_uploads", _HELD_MEANING)
        waiting.add_metric([], held)
        families = [*_waiting(depth, paused, engines), *_engines_up(engines), waiting]
        return generate_latest(self._registry) + generate_latest(_MetricsSnapshot(families))


def _waiting(
    depth: Iterable[Waiting], paused: Iterable[str], engines: Engines
) -> Sequence[GaugeMetricFamily]:
    deliveries = GaugeMetricFamily(
        "gateway_deliveries", "Deliveries that are not done", labels=["handler", "state"]
    )
    age = GaugeMetricFamily(
        "gateway_oldest_ready_seconds", "Age of the oldest ready delivery", labels=["handler"]
    )
    held = GaugeMetricFamily("gateway_handler_paused", "1 for a paused handler", labels=["handler"])
    now = time.time()
    shared = [
        ({"engine": name}, queue.waiting, queue.paused) for name, queue in engines.items() if queue
    ]
    for extra, waiting, paused_handlers in [({}, depth, paused), *shared]:
        for handler, state, count, oldest in waiting:
            labels = {"handler": handler, **extra}
            deliveries.add_sample(deliveries.name, {**labels, "state": state}, count)
            if state == "ready":
                age.add_sample(age.name, labels, max(now - oldest, 0.0))
        for handler in paused_handlers:
            held.add_sample(held.name, {"handler": handler, **extra}, 1)
    return deliveries, age, held


def _engines_up(engines: Engines) -> Sequence[GaugeMetricFamily]:
    if not engines:
        return ()
    up = GaugeMetricFamily("gateway_engine_up", "1 if the engine responded in time", labels=["engine"])
    for name, queue in engines.items():
        up.add_metric([name], float(queue is not None))
    return (up,)


def merge_expositions(expositions: Mapping[int, bytes | None]) -> bytes:
    """Merge the expositions of several processes, by slot: each sample gets a label `process`.

    Counts are not added up: a restarted process counts from 0, and only a count of its own may go
    back. None is a process that does not answer; `gateway_process_up` is 0 for it. CPU-bound.
    """
    families: dict[str, Metric] = {}
    up = GaugeMetricFamily(
        "gateway_process_up", "1 if the metrics of the process are included", labels=["process"]
    )
    for slot, text in sorted(expositions.items()):
        up.add_metric([str(slot)], float(text is not None))
        for family in text_string_to_metric_families((text or b"").decode()):
            merged = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {"process": str(slot), **sample.labels}
                merged.samples.append(sample._replace(labels=labels))
    return generate_latest(_MetricsSnapshot([up, *families.values()]))


class _MetricsSnapshot(CollectorRegistry):
    """A registry of metrics that are made for one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
