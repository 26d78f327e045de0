"""The step that bounds how often a client may call.

One rule: counters are bounded in number, the oldest go first; they live in this process and survive
a reload. The counting is the library's (`limits`), its memory ours: its own looks through all
counters at every request.
"""

from __future__ import annotations

import ipaddress
import math
import time
from typing import Final

from aiohttp import web
from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from gateway.endpoints.routing.model import Next, Rate, RequestContext
from gateway.errors import Refusal

MOST_COUNTERS: Final = 100_000
IPV6_SITE: Final = 64
"""Bits of an IPv6 address that one client has to itself, and so counts with."""


class Counters(Storage):
    """Counts by key in memory; each is forgotten after its time, and the oldest beyond `most`."""

    def __init__(self, most: int = MOST_COUNTERS) -> None:
        super().__init__()
        self._most = most
        self._counts: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a storage may raise: this one nothing."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add `amount` to a count that lasts `expiry` seconds from its beginning; return it."""
        now = time.time()
        count, until = self._counts.get(key, (0, 0.0))
        if until <= now:
            self._counts.pop(key, None)  # it begins anew, so it is the youngest
            count, until = 0, now + expiry
        self._counts[key] = count + amount, until
        if len(self._counts) > self._most:
            del self._counts[next(iter(self._counts))]
        return count + amount

    async def get(self, key: str) -> int:
        """Return a count, 0 where there is none any more."""
        count, until = self._counts.get(key, (0, 0.0))
        return count if until > time.time() else 0

    async def get_expiry(self, key: str) -> float:
        """Return the Unix time at which a count ends."""
        return self._counts.get(key, (0, time.time()))[1]

    async def check(self) -> bool:
        """Tell whether the storage works."""
        return True

    async def reset(self) -> int | None:
        """Forget everything; return how many counts there were."""
        known = len(self._counts)
        self._counts.clear()
        return known

    async def clear(self, key: str) -> None:
        """Forget one count."""
        self._counts.pop(key, None)


class RateLimitStep:
    """The step: 429 with `Retry-After` for too much, `RateLimit-*` headers on what passes."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(Counters())

    async def __call__(self, exchange: RequestContext, following: Next) -> web.StreamResponse:
        """Count the request. Raises Refusal `too_many_requests`."""
        rate = exchange.route.rate
        if rate is None:
            return await following(exchange)
        headers, passes = await self._count(exchange, rate)
        if not passes:
            headers["Retry-After"] = headers["RateLimit-Reset"]
            raise Refusal("too_many_requests", f"at most {rate.count} in {rate.seconds:g} s", headers)
        answer = await following(exchange)
        for name, value in headers.items():
            answer.headers[name] = value
        return answer

    async def _count(self, exchange: RequestContext, rate: Rate) -> tuple[dict[str, str], bool]:
        item = RateLimitItemPerSecond(rate.count, int(rate.seconds))
        who = (exchange.route.name, _client(exchange, rate))
        passes = await self._limiter.hit(item, *who)
        window = await self._limiter.get_window_stats(item, *who)
        headers = {
            "RateLimit-Limit": str(rate.count),
            "RateLimit-Remaining": str(max(window.remaining, 0)),
            "RateLimit-Reset": str(max(math.ceil(window.reset_time - time.time()), 1)),
        }
        return headers, passes


def _client(exchange: RequestContext, rate: Rate) -> str:
    principal = exchange.principal
    if rate.by == "principal" and principal is not None:
        return f"principal {principal['kind']} {principal['name']}"
    return f"address {_site(exchange.remote or '')}"


def _site(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4 or parsed.ipv4_mapped:
        return address
    return str(ipaddress.ip_network((address, IPV6_SITE), strict=False))
