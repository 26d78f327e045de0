"""Quotas: what is counted for whom, and how much of it there may be. Plain data and pure rules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from gateway.domain.units import RequestRate

PRINCIPAL: Final = "principal"
ADDRESS: Final = "address"

DAY_SECONDS: Final = 86_400
"""A day of `bytes_per_day` is one of UTC."""

SCRIPT_PREFIX: Final = "quota "
"""What the keys of quotas begin with that scripts name."""

MAX_KEY_LENGTH: Final = 200
"""Characters of a key that are kept as they are; of a longer one the rest is hashed."""

Measure = Literal["bytes", "files", "bytes_per_day"]
MEASURES: Final[tuple[Measure, ...]] = ("bytes", "files", "bytes_per_day")


@dataclass(slots=True, frozen=True)
class QuotaLimits:
    """How much there may be, None: any amount.

    `bytes` and `files` are what is stored now, `bytes_per_day` what was uploaded on one day of UTC.
    """

    bytes: int | None = None
    files: int | None = None
    bytes_per_day: int | None = None
    requests: RequestRate | None = None

    @classmethod
    def of(cls, limits: Mapping[str, int]) -> QuotaLimits:
        """Return the limits of `as_dict`."""
        return cls(limits.get("bytes"), limits.get("files"), limits.get("bytes_per_day"))

    def as_dict(self) -> dict[str, int]:
        """Return the limits of what is counted in the store: numbers that JSON can write."""
        pairs = ((measure, self.limit(measure)) for measure in MEASURES)
        return {measure: limit for measure, limit in pairs if limit is not None}

    def limit(self, measure: Measure) -> int | None:
        """Return the limit of one measure."""
        if measure == "bytes":
            return self.bytes
        return self.files if measure == "files" else self.bytes_per_day

    @property
    def counts_stored(self) -> bool:
        """Whether what is stored counts."""
        return self.bytes is not None or self.files is not None

    @property
    def counts_days(self) -> bool:
        """Whether what is uploaded on a day counts."""
        return self.bytes_per_day is not None


class BoundQuota(NamedTuple):
    """A quota of one client: `key` is what is counted by, and what people read."""

    key: str
    limits: QuotaLimits


@dataclass(slots=True, frozen=True)
class Quota:
    """A line of `quotas`: limits for each `per`, of what lies below `prefix`, or of both.

    `per` is `principal`, `address` or a variable of the upload path.
    """

    limits: QuotaLimits
    per: str | None = None
    prefix: str | None = None

    @property
    def scope(self) -> str:
        """What is counted together, in words: `prefix /upload/few/ per principal`."""
        words = [] if self.prefix is None else [f"prefix {self.prefix}"]
        return " ".join(words if self.per is None else [*words, f"per {self.per}"])

    def has_key(self, key: str) -> bool:
        """Tell whether a key is one of this quota."""
        return key == self.scope if self.per is None else key.startswith(f"{self.scope} ")

    def covers(self, path: str) -> bool:
        """Tell whether a path lies below the prefix."""
        return self.prefix is None or path.startswith(self.prefix)

    def bound(self, owner: Mapping[str, str], path: str) -> BoundQuota | None:
        """Return the quota of an upload, None where it does not count here.

        `owner` has the value of each `per` that is known of it.
        """
        if not self.covers(path):
            return None
        if self.per is None:
            return BoundQuota(self.scope, self.limits)
        value = owner.get(self.per)
        return None if value is None else BoundQuota(shortened(f"{self.scope} {value}"), self.limits)


def shortened(key: str) -> str:
    """Return a key of bounded length that every database can hold: a long one ends with its hash."""
    key = key.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if len(key) <= MAX_KEY_LENGTH:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{key[:MAX_KEY_LENGTH]}... {digest}"


def day_of(moment: float) -> int:
    """Return the day of a Unix time, counted from 1970."""
    return int(moment // DAY_SECONDS)


@dataclass(slots=True, frozen=True)
class QuotaLeft:
    """What is left of a quota. `used` counts the uploads on their way too."""

    quota: BoundQuota
    used: Mapping[Measure, int]

    def left(self, measure: Measure) -> int | None:
        """Return what is left of one measure, None where that is not limited."""
        limit = self.quota.limits.limit(measure)
        return None if limit is None else max(limit - self.used.get(measure, 0), 0)

    def as_dict(self) -> dict[str, Any]:
        """Return what a client reads: of each measure the limit and what is left."""
        amounts: dict[str, Any] = {"quota": self.quota.key}
        for measure in MEASURES:
            if (left := self.left(measure)) is not None:
                amounts[measure] = {"limit": self.quota.limits.limit(measure), "left": left}
        return amounts
