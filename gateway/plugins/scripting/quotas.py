"""`quota` of scripts: what is left of a quota, and quotas that a handler gives to one upload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from gateway.domain.quotas import SCRIPT_PREFIX, BoundQuota, Measure, QuotaLeft, QuotaLimits
from gateway.domain.units import parse_size
from gateway.plugins.scripting.values import Event

LeftOf = Callable[[str, QuotaLimits], Awaitable[QuotaLeft]]
"""Returns what is left of a quota, by its key (`commit.quotas.Quotas.left_of`)."""

EVENT_KEY: Final = "quotas"
"""The key of an event that has the quotas which a handler gives to its upload."""

MAX_QUOTAS: Final = 8
"""Quotas that handlers may give to one upload."""

_OF_SETTINGS: Final = ("per ", "prefix ", "key ")
_SIZES: Final = frozenset({"bytes", "bytes_per_day"})


class QuotaView:
    """What a script knows of one quota, as it was when it asked.

    `bytes`, `files` and `bytes_per_day` are the limits, None without one; `..._used` what is counted,
    uploads on their way included; `..._left` what is left, None without a limit.
    """

    def __init__(self, left: QuotaLeft) -> None:
        self._left = left
        self.name = left.quota.key.removeprefix(SCRIPT_PREFIX)
        self.bytes, self.bytes_used, self.bytes_left = self._amounts("bytes")
        self.files, self.files_used, self.files_left = self._amounts("files")
        days = self._amounts("bytes_per_day")
        self.bytes_per_day, self.bytes_per_day_used, self.bytes_per_day_left = days

    def count(self, event: MutableMapping[str, Any]) -> None:
        """Let the upload of an event count for this quota too; it is refused where it does not fit.

        For handlers of OnFileUploading, and of OnFileReceived without `hold`. Raises `ValueError` for a
        quota of the settings, or one without a limit.
        """
        key, limits = self._left.quota
        if not key.startswith(SCRIPT_PREFIX):
            raise ValueError(f"{key!r} is a quota of the settings: it counts by itself")
        if not limits.as_dict():
            raise ValueError("count() needs a limit: quota(name, bytes=..., files=...)")
        event[EVENT_KEY] = {**event.get(EVENT_KEY, {}), self.name: limits.as_dict()}

    def __repr__(self) -> str:
        return f"<quota {self._left.as_dict()}>"

    def _amounts(self, measure: Measure) -> tuple[int | None, int, int | None]:
        limits = self._left.quota.limits
        return limits.limit(measure), self._left.used.get(measure, 0), self._left.left(measure)


def quota_function(left_of: LeftOf) -> Callable[..., Awaitable[QuotaView]]:
    """Return the `quota` of scripts."""

    async def quota(
        name: str,
        *,
        bytes: int | str | None = None,  # noqa: A002 (as in the settings)
        files: int | None = None,
        bytes_per_day: int | str | None = None,
    ) -> QuotaView:
        """Return what is left of a quota: one of the settings by its name, or one of your own.

        Raises `ValueError`, `RecordsUnavailable` where it is not known now.
        """
        if not isinstance(name, str) or not name:
            raise ValueError("quota() takes a name: quota('acme', bytes='10G')")
        given = {"bytes": bytes, "files": files, "bytes_per_day": bytes_per_day}
        limits = {key: _limit(key, value) for key, value in given.items() if value is not None}
        key = name if name.startswith(_OF_SETTINGS) else f"{SCRIPT_PREFIX}{name}"
        return QuotaView(await left_of(key, QuotaLimits.of(limits)))

    return quota


async def nothing_used(key: str, limits: QuotaLimits) -> QuotaLeft:
    """Stand in for the counters in the tests of plugins: nothing is used."""
    return QuotaLeft(BoundQuota(key, limits), {})


def read_quotas(event: Event) -> dict[str, dict[str, int]]:
    """Return the quotas that handlers have given to an upload, by their keys. Raises `ValueError`."""
    given = dict.get(event, EVENT_KEY)
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > MAX_QUOTAS:
        raise ValueError(f"must be a dict of at most {MAX_QUOTAS} quotas: use quota(...).count(event)")
    quotas = {}
    for name, limits in given.items():
        if not isinstance(name, str) or not name or not isinstance(limits, dict) or not limits:
            raise ValueError("must have limits by the name of each quota")
        quotas[f"{SCRIPT_PREFIX}{name}"] = {str(key): _limit(str(key), limits[key]) for key in limits}
    return quotas


def _limit(name: str, value: Any) -> int:
    if name in _SIZES and isinstance(value, str):
        value = parse_size(value)
    if name not in {*_SIZES, "files"}:
        raise ValueError(f"{name!r} is no limit: use bytes, files or bytes_per_day")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number, 0 or more")
    return value
