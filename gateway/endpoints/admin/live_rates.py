"""How fast requests and uploads go: totals are noted every second, and compared with earlier ones.

The parts of several processes are added up: each counts over its own time, so one that has just been
started lowers no rate.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.endpoints.inflight import Inflight
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_metrics import BOUNDS, RequestTotals

SAMPLE_INTERVAL: Final = 1.0
"""Seconds between two samples: 3 us each, and 0.3 ms more for 1000 uploads in flight."""

SHORT_WINDOW: Final = 5
LONG_WINDOW: Final = 60
"""Samples over which bytes and requests are averaged, and over which uploads and durations are."""

PERCENTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

_STORED: Final = ("stored", "held")

Json = dict[str, Any]


class Sample(NamedTuple):
    """Totals of a process at a monotonic time."""

    time: float
    bytes: int
    stored: float
    ended: float
    requests: RequestTotals


class RateSampler:
    """Samples one process. Lives on the server's loop; `clock` returns steady seconds."""

    def __init__(
        self, inflight: Inflight, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inflight = inflight
        self._metrics = metrics
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=LONG_WINDOW + 1)
        self._measured = clock()
        self.sample()

    async def run(self) -> None:
        """Sample every second, until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL)
            self.sample()

    def sample(self) -> None:
        """Note the totals as they are now."""
        now, uploads = self._clock(), self._metrics.uploads
        received = self._inflight.measure(max(now - self._measured, 0.001))
        self._measured = now
        stored = sum(map(uploads.total, _STORED))
        totals = self._metrics.requests.totals.copy()
        self._samples.append(Sample(now, received, stored, uploads.sum, totals))

    def counts(self) -> Json:
        """Return what this process counted in the latest seconds, as `merge_rates` takes it."""
        newest = self._samples[-1]
        short = self._samples[max(len(self._samples) - 1 - SHORT_WINDOW, 0)]
        oldest = self._samples[0]
        stored, before = newest.stored - oldest.stored, oldest.requests.durations
        return {
            "seconds": newest.time - short.time,
            "bytes": newest.bytes - short.bytes,
            "requests": _gained(newest.requests.classes, short.requests.classes),
            "stored": stored,
            "not_stored": newest.ended - oldest.ended - stored,
            "durations": {
                group: [now - then for now, then in zip(counts, before[group], strict=True)]
                for group, counts in newest.requests.durations.items()
            },
        }


def _gained(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    gained = {name: count - before.get(name, 0) for name, count in now.items()}
    return {name: count for name, count in gained.items() if count}


def merge_rates(parts: Sequence[Json]) -> Json:
    """Add up the rates of several processes. What none of them could measure yet is None."""
    measured = [part for part in parts if part["seconds"] > 0]
    classes = sorted({name for part in measured for name in part["requests"]})
    by_status = {
        name: _per_second((part["requests"].get(name, 0), part["seconds"]) for part in measured)
        for name in classes
    }
    received = _per_second((part["bytes"], part["seconds"]) for part in measured)
    groups = parts[0]["durations"] if parts else {}
    return {
        "bytes_per_second": received if measured else None,
        "requests_per_second": sum(by_status.values()) if measured else None,
        "by_status": by_status,
        "uploads_per_minute": sum(part["stored"] for part in measured) if measured else None,
        "failed_per_minute": sum(part["not_stored"] for part in measured) if measured else None,
        "durations": {
            group: percentiles([sum(counts) for counts in zip(*lists, strict=True)])
            for group in groups
            if (lists := [part["durations"][group] for part in parts])
        },
    }


def _per_second(counts: Iterable[tuple[float, float]]) -> float:
    return sum(count / seconds for count, seconds in counts)


def percentiles(counts: Sequence[int]) -> Json:
    """Return the number of requests, and in how many seconds each share of them has ended.

    A histogram tells no more than the upper bound of a bucket, so the time is at most that; None: more
    than the longest bound, or no requests.
    """
    total = sum(counts)
    times: Json = {"count": total}
    for name, share in PERCENTILES.items():
        below, times[name] = 0, None
        for bound, count in zip(BOUNDS, counts, strict=False):
            below += count
            if total and below >= share * total:
                times[name] = bound
                break
    return times
