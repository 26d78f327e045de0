"""What is told of one request to one upstream: how long it took, or why it failed."""

from __future__ import annotations

import time

from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.errors import Refusal
from gateway.telemetry import tracing
from gateway.telemetry.request_facts import RequestFacts
from gateway.telemetry.request_metrics import FailureReason, RequestMetrics


class AttemptRecord:
    """Fills the facts of a request, and counts: `succeed`, `reject`, `fail` or `refuse` once."""

    __slots__ = ("_facts", "_metrics", "_route", "_started", "_upstream", "span")

    def __init__(self, metrics: RequestMetrics, facts: RequestFacts, route: str, upstream: str) -> None:
        self._metrics = metrics
        self._facts = facts
        self._route = route
        self._upstream = upstream
        self._started = time.monotonic()
        facts.upstream, facts.upstream_seconds = upstream, None
        self.span = facts.attempt_span = _begin_span(facts, upstream)
        facts.attempts += 1

    def succeed(self, status: int) -> None:
        """Note that the head of a response has come."""
        if self.span.recorded:
            self.span.set({"http.response.status_code": status})
        seconds = self._facts.upstream_seconds = time.monotonic() - self._started
        self._metrics.record_upstream(self._route, self._upstream, seconds)

    def reject(self, status: int) -> None:
        """Note the same of a response whose status is a failure of the upstream."""
        self.succeed(status)
        self.span.fail(str(status))
        self._count_failure("status")

    def refuse(self) -> None:
        """Count a request that was not sent: too many wait for the upstream."""
        self._count_failure("busy")
        self.span.fail("busy")
        self.span.end()

    def fail(self, error: BaseException) -> None:
        """Count the failure, if it is one of the upstream."""
        reason = failure_reason(error)
        self.span.fail(reason or tracing.error_type(error))
        if reason is not None:
            self._count_failure(reason)

    def _count_failure(self, reason: FailureReason) -> None:
        self._metrics.record_upstream_failure(self._route, self._upstream, reason)


def _begin_span(facts: RequestFacts, upstream: str) -> tracing.Span:
    if not facts.span.recorded:
        return facts.span
    host, _, port = upstream.rpartition(":")
    attributes: dict[str, str | int | float | bool] = {"gateway.upstream": upstream}
    attributes |= {"server.address": host, "server.port": int(port)} if port.isdecimal() else {}
    if facts.attempts:
        attributes["http.request.resend_count"] = facts.attempts
    return tracing.begin_below(facts.span, "gateway.upstream", "client", attributes)


def failure_reason(error: BaseException) -> FailureReason | None:
    """Return why an upstream has failed; None where it has not."""
    if isinstance(error, UpstreamFailed):
        if not error.connected:
            return "connect"
        return "closed" if error.closed else "timeout"
    is_malformed = isinstance(error, Refusal) and error.code == "bad_gateway"
    return "malformed" if is_malformed else None
