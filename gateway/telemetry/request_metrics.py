"""What is counted of requests, and of the requests to upstreams that serve them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry

from gateway.telemetry.loop_metrics import BoundedLabel, LoopCounter, LoopHistogram
from gateway.telemetry.request_facts import API, DOWNLOADS, ENDPOINT_NAMES, FORMS, RESUMABLE, UPLOADS

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are counted by name; all others are counted as one."""

MAX_NAMES: Final = 1000
"""Routes, and upstreams, that have a label value of their own."""

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

NO_STATUS: Final = "none"
"""The label value where a connection was closed without a response."""

_CLASSES: Final = ("", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx")

FailureReason = Literal["connect", "timeout", "closed", "malformed", "busy", "status"]
"""Why a request to an upstream failed: no connection, no response in time, no response before the end
of the connection, a response that is not HTTP, too many requests there already, a status that the route
counts as a failure."""


ROUTES: Final = "routes"
"""The group of durations of all requests but transfers and those of the gateway's own API."""

DURATION_GROUPS: Final[Mapping[str, str]] = {
    UPLOADS: UPLOADS, FORMS: UPLOADS, RESUMABLE: UPLOADS, DOWNLOADS: DOWNLOADS,
}  # fmt: skip
"""The group of the durations of an endpoint. A client's own speed makes most of those of transfers."""


class RequestTotals(NamedTuple):
    """All requests so far by class of status, and how many of each group took how long.

    Of `durations` each list has one more number than there are `BOUNDS`: of those that took longer.
    """

    classes: dict[str, int]
    durations: dict[str, list[int]]

    def copy(self) -> RequestTotals:
        """Return the totals as they are now."""
        durations = {group: counts.copy() for group, counts in self.durations.items()}
        return RequestTotals(self.classes.copy(), durations)


class RequestMetrics:
    """Counts requests of the network. For the server's loop only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = LoopCounter(
            "gateway_requests", "Responses by method and status", ("method", "status"), registry
        )
        self._seconds = LoopHistogram(
            "gateway_request_seconds",
            "Durations of requests until the end of their response, by route and class of status",
            ("route", "status"),
            BOUNDS,
            registry,
        )
        self._upstream_seconds = LoopHistogram(
            "gateway_upstream_seconds",
            "Durations of requests to upstreams until the head of their response",
            ("route", "upstream"),
            BOUNDS,
            registry,
        )
        self._upstream_failures = LoopCounter(
            "gateway_upstream_failures",
            "Requests to upstreams that failed, by reason",
            ("route", "upstream", "reason"),
            registry,
        )
        self._routes = BoundedLabel(MAX_NAMES, ENDPOINT_NAMES)
        self._upstreams = BoundedLabel(MAX_NAMES)
        groups = UPLOADS, DOWNLOADS, ROUTES
        self.totals = RequestTotals({}, {group: [0] * (len(BOUNDS) + 1) for group in groups})

    def record(self, method: str, status: int | None, route: str, seconds: float) -> None:
        """Count a request; `status` is None where it had no response."""
        name = method if method in METHODS else "other"
        kind = NO_STATUS if status is None else _CLASSES[status // 100]
        self._requests.add(name, NO_STATUS if status is None else str(status))
        self._seconds.observe(seconds, self._routes.value(route), kind)
        classes, durations = self.totals
        classes[kind] = classes.get(kind, 0) + 1
        if route != API:  # streams of events last as long as somebody looks at them
            durations[DURATION_GROUPS.get(route, ROUTES)][bisect_left(BOUNDS, seconds)] += 1

    def record_upstream(self, route: str, upstream: str, seconds: float) -> None:
        """Count a request that an upstream has answered."""
        values = self._routes.value(route), self._upstreams.value(upstream)
        self._upstream_seconds.observe(seconds, *values)

    def record_upstream_failure(self, route: str, upstream: str, reason: FailureReason) -> None:
        """Count a request that an upstream has failed."""
        values = self._routes.value(route), self._upstreams.value(upstream)
        self._upstream_failures.add(*values, reason)
