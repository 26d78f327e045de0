"""One request at one upstream: counted from its begin to its end, and judged."""

from __future__ import annotations

import logging

from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.proxy.attempt_record import AttemptRecord
from gateway.endpoints.routing.proxy.errors import UpstreamFailed
from gateway.endpoints.routing.proxy.upstreams import UpstreamGroup
from gateway.limits import Lease
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")


class CountedAttempt:
    """One request at one upstream: `fail`, `reject` or `succeed` once, then `close`."""

    __slots__ = ("_attempt", "_group", "_lease", "_record", "_route")

    def __init__(
        self,
        group: UpstreamGroup,
        route: Route,
        upstream: str,
        lease: Lease,
        record: AttemptRecord,
    ) -> None:
        self._record = record
        self._group = group
        self._attempt = group.begin(upstream)
        self._route = route
        self._lease = lease

    def fail(self, error: BaseException) -> None:
        """Note that there is no response, and that the upstream has failed if it did; then close."""
        self._record.fail(error)
        if isinstance(error, UpstreamFailed):
            self._log_failure(error)
        self._group.end(self._attempt)
        self.close()

    def is_failure(self, status: int) -> bool:
        """Tell whether a response with this status is a failure of the upstream."""
        return status in self._route.passive.statuses

    def reject(self, status: int) -> None:
        """Note that the upstream has responded with a status that is a failure."""
        self._record.reject(status)
        seconds = self._group.fail(self._attempt, connected=True)
        self._group.end(self._attempt)
        if seconds:
            fields = self._suspension(seconds)
            log.warning("the upstream's status is %d", status, extra=event("upstream.failed", **fields))

    def succeed(self, status: int) -> bool:
        """Note that the upstream has responded; tell whether that ends its suspension."""
        self._record.succeed(status)
        self._group.end(self._attempt)
        return self._group.succeed(self._attempt)

    def log_recovery(self) -> None:
        """Log that the upstream works again."""
        fields = {"upstream": self._attempt.upstream}
        log.info("the upstream works again", extra=event("upstream.recovered", **fields))

    def close(self) -> None:
        """Count it no more: its response was read, or there is none."""
        self._lease.close()
        self._record.span.end()

    def _log_failure(self, failure: UpstreamFailed) -> None:
        seconds = self._group.fail(self._attempt, connected=failure.connected)
        # Without the cause: aiohttp's message quotes the request with its credentials.
        fields = {"code": failure.refusal.code, **self._suspension(seconds)}
        log.warning("%s", failure, extra=event("upstream.failed", **fields))

    def _suspension(self, seconds: float) -> dict[str, object]:
        fields: dict[str, object] = {"upstream": self._attempt.upstream, "route": self._route.name}
        if seconds and (len(self._group.names) > 1 or self._group.health is not None):
            fields["suspended_seconds"] = seconds  # a single one without `health` stays in use
        return fields
