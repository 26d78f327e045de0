"""Schedules of `Schedule` handlers: cron expressions and intervals.

A tick is a whole Unix second that depends on the schedule alone, so that all gateways of an
installation agree on it. Pure: no clock is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

MAX_CRON_LENGTH: Final = 200
MAX_EVERY: Final = timedelta(days=366)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EVERY: Final = re.compile(r"([0-9]{1,9})([smhd])")
_ANY_DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Schedule(Protocol):
    """When ticks are due. Schedules with the same ticks are equal."""

    @property
    def catch_up(self) -> bool:
        """Whether the latest missed tick is run late."""

    def next(self, after: float) -> int | None:
        """Return the first tick later than `after`, None if there is none. Times are Unix times."""

    def latest(self, now: float) -> int:
        """Return the last tick that is not later than `now`, 0 if there is none."""

    def local(self, tick: int) -> datetime:
        """Return a tick in the schedule's own time zone."""


@dataclass(frozen=True)
class Every:
    """A fixed interval in seconds, counted from the Unix epoch."""

    seconds: int
    catch_up: bool = False

    def __str__(self) -> str:
        return f"every {self.seconds} s"

    def next(self, after: float) -> int | None:
        """Return the first tick later than `after`."""
        return self.latest(after) + self.seconds

    def latest(self, now: float) -> int:
        """Return the last tick that is not later than `now`."""
        return int(now // self.seconds) * self.seconds

    def local(self, tick: int) -> datetime:
        """Return a tick in UTC."""
        return datetime.fromtimestamp(tick, UTC)


@dataclass(frozen=True)
class Cron:
    """A cron expression of five fields in a time zone, with the rules of Debian's cron.

    When clocks go forward, fixed hours within the gap tick right after it; when they go back, fixed
    hours tick once. Expressions whose minute or hour begins with `*` follow the clock.
    """

    line: str
    timezone: str = "UTC"
    catch_up: bool = False

    def __str__(self) -> str:
        return f"cron {self.line} {self.timezone}"

    def next(self, after: float) -> int | None:
        """Return the first tick later than `after`, None if there is none within fifty years."""
        # In the hour that clocks repeat, the library begins with a past tick.
        return next((tick for tick in self._ticks(int(after // 1)) if tick > after), None)

    def latest(self, now: float) -> int:
        """Return the last tick that is not later than `now`, 0 if there is none within fifty years."""
        ticks = self._ticks(int(now // 1) + 1, reverse=True)
        latest = next((tick for tick in ticks if tick <= now), 0)
        # Backwards from within the hour that clocks repeat, the library skips ticks of its first half.
        while latest and (following := self.next(latest)) is not None and following <= now:
            latest = following
        return latest

    def local(self, tick: int) -> datetime:
        """Return a tick in the schedule's time zone."""
        return datetime.fromtimestamp(tick, self._zone)

    @cached_property
    def _zone(self) -> tzinfo:
        return zone(self.timezone)

    def _ticks(self, start: int, *, reverse: bool = False) -> Iterator[int]:
        ticks = CronSim(self.line, datetime.fromtimestamp(start, self._zone), reverse=reverse)
        return (int(tick.timestamp()) for tick in ticks)


def zone(name: str) -> tzinfo:
    """Return a time zone of the IANA database. Raises `ValueError` for a name it does not have."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError):
        raise ValueError(
            "is an unknown time zone: use a name of the IANA database such as Europe/Rome"
        ) from None


def parse_cron(line: str) -> str:
    """Return a normalized cron expression. Raises `ValueError` that names the bad field."""
    if len(line) > MAX_CRON_LENGTH:
        raise ValueError(f"must not be longer than {MAX_CRON_LENGTH} characters")
    fields = len(line.split())
    if fields != 5:
        raise ValueError(
            f"needs five fields (minute, hour, day of month, month, day of week) and has {fields};"
            " `every: 10s` is for seconds"
        )
    try:
        first_tick = next(CronSim(line, _ANY_DATE), None)
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        raise ValueError(f"is an invalid cron expression: bad {field} field") from None
    if first_tick is None:
        raise ValueError("never matches a date")
    return " ".join(line.split())


def parse_every(text: str) -> int:
    """Return the seconds of `10s`, `15m`, `1h` or `7d`. Raises `ValueError`."""
    match = _EVERY.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= MAX_EVERY.total_seconds():
        raise ValueError(f"must be a number with s, m, h or d, such as 15m: 1s to {MAX_EVERY.days}d")
    return seconds
