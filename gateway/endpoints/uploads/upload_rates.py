"""Counts requests against quotas: each file of a form, each creation of a resumable upload.

What is left is told as draft-ietf-httpapi-ratelimit-headers-10 says: `RateLimit-Policy`, `RateLimit`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import quote

from gateway.domain.model import Upload
from gateway.domain.quotas import BoundQuota, Quota
from gateway.domain.units import RequestRate
from gateway.errors import RecordsUnavailable, Refusal
from gateway.limits import FixedWindowCounters
from gateway.limits.quota_rules import owner_of

CountShared = Callable[[str, RequestRate], Awaitable[tuple[int, float]]]
"""Counts a request of a key for all nodes; returns the count in its window, and what is left of that."""

_PLAIN: Final = " /{}:,;@+=~!*'().-_"


class UploadRates:
    """The rates of `quotas`, on the server's event loop.

    `counters` are those of all processes of this node; with `count_shared` all nodes count together.
    `exceeded` hears of refusals.
    """

    def __init__(
        self,
        quotas: Sequence[Quota],
        counters: FixedWindowCounters,
        exceeded: Callable[[str], None],
        count_shared: CountShared | None = None,
    ) -> None:
        self._quotas = tuple(quota for quota in quotas if quota.limits.requests is not None)
        self._counters = counters
        self._exceeded = exceeded
        self._count_shared = count_shared

    @property
    def waits(self) -> bool:
        """Whether a count has to wait for a database."""
        return self._count_shared is not None and bool(self._quotas)

    async def count(self, upload: Upload) -> dict[str, str]:
        """Count an upload, and return the headers for its response.

        Raises `Refusal`: `too_many_requests`, `records_unavailable`.
        """
        if self._count_shared is None:
            return self.count_now(upload)
        counts = []
        for quota, scope, rate in self._of(upload):
            try:
                counts.append((quota, scope, rate, *await self._count_shared(quota.key, rate)))
            except RecordsUnavailable as error:
                message = "the requests cannot be counted now: try again later"
                raise Refusal("records_unavailable", message) from error
        return self._headers(counts)

    def count_now(self, upload: Upload) -> dict[str, str]:
        """Do the same at once, where no database has to be waited for."""
        counts = []
        for quota, scope, rate in self._of(upload):
            key = (quota.key, rate.requests, rate.seconds)  # another rate begins a new window
            counts.append((quota, scope, rate, *self._counters.increment(key, rate.seconds)))
        return self._headers(counts)

    def _of(self, upload: Upload) -> list[tuple[BoundQuota, str, RequestRate]]:
        owner = owner_of(upload.principal, upload.remote, upload.resources)
        counted = []
        for quota in self._quotas:
            bound, rate = quota.bound(owner, upload.path), quota.limits.requests
            if bound is not None and rate is not None:
                counted.append((bound, quota.scope, rate))
        return counted

    def _headers(
        self, counts: Sequence[tuple[BoundQuota, str, RequestRate, int, float]]
    ) -> dict[str, str]:
        """Return the headers of some counts. Raises `Refusal` where one is over its limit."""
        if not counts:
            return {}
        policies, limits = [], []
        exceeded: tuple[BoundQuota, RequestRate, int] | None = None
        for quota, scope, rate, count, seconds_left in counts:
            name, reset = quote(scope, safe=_PLAIN), max(math.ceil(seconds_left), 1)
            policies.append(f'"{name}";q={rate.requests};w={math.ceil(rate.seconds)}')
            limits.append(f'"{name}";r={max(rate.requests - count, 0)};t={reset}')
            if count > rate.requests and (exceeded is None or reset > exceeded[2]):
                exceeded = quota, rate, reset
        headers = {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}
        if exceeded is None:
            return headers
        self._exceeded("requests")
        quota, rate, reset = exceeded
        message = f"{quota.key}: the limit of {rate} requests is reached"
        raise Refusal("too_many_requests", message, {**headers, "Retry-After": str(reset)})
