"""The step that limits how often a client may call a route.

Counters live in this process, survive a reload, and are bounded in number: the oldest go first.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Hashable
from typing import Final

from gateway.endpoints.routing.model import Next, Rate, RequestContext
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse

MAX_COUNTERS: Final = 100_000

IPV6_CLIENT_BITS: Final = 64
"""Bits of an IPv6 address that one client has to itself: it can call from all addresses below."""


class FixedWindowCounters:
    """Counts by key, each within a window of seconds that begins with its first count."""

    def __init__(
        self, max_counters: int = MAX_COUNTERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_counters = max_counters
        self._clock = clock
        self._windows: dict[Hashable, tuple[int, float]] = {}

    def increment(self, key: Hashable, window: float) -> tuple[int, float]:
        """Count once; return the count in the window of `window` seconds, and the seconds left of it."""
        now = self._clock()
        count, end = self._windows.get(key, (0, now))
        if end <= now:
            self._windows.pop(key, None)  # a new window is the youngest
            count, end = 0, now + window
        self._windows[key] = count + 1, end
        if len(self._windows) > self._max_counters:
            del self._windows[next(iter(self._windows))]
        return count + 1, end - now


class RateLimitStep:
    """Sets `RateLimit-*` headers on responses; refuses what is too much with `Retry-After`."""

    def __init__(self) -> None:
        self._counters = FixedWindowCounters()

    async def __call__(self, context: RequestContext, call_next: Next) -> GatewayResponse:
        """Count the request. Raises `Refusal("too_many_requests")`."""
        rate = context.route.rate
        if rate is None:
            return await call_next(context)
        # A reload that changes the rate begins a new window.
        key = (context.route.name, _client_key(context, rate), rate.count, rate.seconds)
        count, seconds_left = self._counters.increment(key, rate.seconds)
        headers = {
            "RateLimit-Limit": str(rate.count),
            "RateLimit-Remaining": str(max(rate.count - count, 0)),
            "RateLimit-Reset": str(max(math.ceil(seconds_left), 1)),
        }
        if count > rate.count:
            headers["Retry-After"] = headers["RateLimit-Reset"]
            message = f"at most {rate.count} requests in {rate.seconds:g} seconds are allowed here"
            raise Refusal("too_many_requests", message, headers)
        response = await call_next(context)
        response.headers.update(headers)
        return response


def _client_key(context: RequestContext, rate: Rate) -> str:
    principal = context.principal
    if rate.by == "principal" and principal is not None:
        return f"principal {principal['kind']} {principal['name']}"
    return f"address {_client_network(context.remote or '')}"


def _client_network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4 or parsed.ipv4_mapped:
        return address
    return str(ipaddress.ip_network((address, IPV6_CLIENT_BITS), strict=False))
