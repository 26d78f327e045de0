"""The steps that bound what a route takes: the bytes of a body, and the requests at the same time."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.endpoints.routing.model import Next, RequestContext
from gateway.http.request_body import body_too_large
from gateway.http.responses import GatewayResponse
from gateway.limits import FixedWindowCounters, InFlightLease, InFlightTable


@dataclass(frozen=True, slots=True)
class RouteCounters:
    """What is counted over all processes; this one has the row `slot` of what is in flight."""

    rates: FixedWindowCounters = field(default_factory=FixedWindowCounters)
    in_flight: InFlightTable = field(default_factory=InFlightTable)
    slot: int = 0


class BoundStep:
    """Refuses what is beyond `limits.body` and `limits.in_flight` at once: nothing waits.

    A request is in flight until its response has ended.
    """

    def __init__(self, counters: RouteCounters) -> None:
        self._table = counters.in_flight
        self._slot = counters.slot

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Raise `Refusal`: `too_large`, and as `InFlightTable.acquire`."""
        lease = self.begin(context)
        if lease is None:
            return await call_next(context)
        try:
            response = await call_next(context)
        except BaseException:
            lease.close()
            raise
        response.call_at_end(lease.close)
        return response

    def begin(self, context: RequestContext) -> InFlightLease | None:
        """Check a request, and count it where that is limited. Raises as `__call__`."""
        limits = context.route.limits
        if limits.body is not None:
            _check_length(context, limits.body)
        if limits.in_flight is None:
            return None
        name, client = context.route.name, context.client
        return self._table.acquire(self._slot, name, client, limits.in_flight)


def _check_length(context: RequestContext, limit: int) -> None:
    length = context.request.content_length if context.body is None else len(context.body)
    if length is not None and length > limit:
        raise body_too_large(limit)
