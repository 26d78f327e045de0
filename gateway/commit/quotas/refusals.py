"""What a client is told that does not fit into a quota. Pure."""

from __future__ import annotations

import math
from typing import Final

from gateway.domain.links import counts_for_ever
from gateway.domain.quotas import DAY_SECONDS, Measure
from gateway.errors import Refusal
from gateway.limits.quota_operations import Exceeded

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def quota_refusal(exceeded: Exceeded, size: int, now: float) -> Refusal:
    """Return the refusal of an upload of `size` bytes at a Unix time: whose limit it is."""
    (key, limits), measure, used = exceeded
    limit = limits.limit(measure) or 0
    if counts_for_ever(key):
        return _full_link(measure, used, limit, size)
    if measure == "files":
        return Refusal("quota_exceeded", f"{key}: {used} of {limit} files used")
    amounts, this_one = f"{binary_size(used)} of {binary_size(limit)} used", binary_size(size)
    if measure == "bytes":
        return Refusal("quota_exceeded", f"{key}: {amounts}, this upload has {this_one}")
    message = f"{key}: {amounts} today (UTC), this upload has {this_one}"
    if size > limit:  # no day is large enough
        return Refusal("quota_exceeded", message)
    seconds = math.ceil(DAY_SECONDS - now % DAY_SECONDS)
    return Refusal("too_many_requests", message, {"Retry-After": str(seconds)})


def _full_link(measure: Measure, used: int, limit: int, size: int) -> Refusal:
    """Return the refusal for whoever has a link, and knows nothing of quotas."""
    if measure == "files":
        return Refusal("quota_exceeded", f"this link is full: {used} of {limit} files have been sent")
    left = binary_size(max(limit - used, 0))
    message = f"this link has room for {left} more, this upload has {binary_size(size)}"
    return Refusal("quota_exceeded", message)


def binary_size(size: int) -> str:
    """Return bytes in powers of 1024, as settings take them, never more than they are: `9.9 GiB`."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    if not power:
        return f"{size} B"
    tenths = size * 10 // 1024**power
    return f"{tenths // 10} {_UNITS[power]}" if not tenths % 10 else f"{tenths / 10} {_UNITS[power]}"
