"""What is told of one request to one upstream: how long it took, or why it failed."""

from __future__ import annotations

import time

from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.errors import Refusal
from gateway.telemetry.request_facts import RequestFacts
from gateway.telemetry.request_metrics import FailureReason, RequestMetrics


class AttemptRecord:
    """Fills the facts of a request, and counts: `succeed`, `reject`, `fail` or `refuse` once."""

    __slots__ = ("_facts", "_metrics", "_route", "_started", "_upstream")

    def __init__(self, metrics: RequestMetrics, facts: RequestFacts, route: str, upstream: str) -> None:
        self._metrics = metrics
        self._facts = facts
        self._route = route
        self._upstream = upstream
        self._started = time.monotonic()
        facts.upstream, facts.upstream_seconds = upstream, None

    def succeed(self) -> None:
        """Note that the head of a response has come."""
        seconds = self._facts.upstream_seconds = time.monotonic() - self._started
        self._metrics.record_upstream(self._route, self._upstream, seconds)

    def reject(self) -> None:
        """Note the same of a response whose status is a failure of the upstream."""
        self.succeed()
        self._count_failure("status")

    def refuse(self) -> None:
        """Count a request that was not sent: too many wait for the upstream."""
        self._count_failure("busy")

    def fail(self, error: BaseException) -> None:
        """Count the failure, if it is one of the upstream."""
        reason = failure_reason(error)
        if reason is not None:
            self._count_failure(reason)

    def _count_failure(self, reason: FailureReason) -> None:
        self._metrics.record_upstream_failure(self._route, self._upstream, reason)


def failure_reason(error: BaseException) -> FailureReason | None:
    """Return why an upstream has failed; None where it has not."""
    if isinstance(error, UpstreamFailed):
        if not error.connected:
            return "connect"
        return "closed" if error.closed else "timeout"
    is_malformed = isinstance(error, Refusal) and error.code == "bad_gateway"
    return "malformed" if is_malformed else None
