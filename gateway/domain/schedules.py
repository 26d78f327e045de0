"""When a `Schedule` handler is due: cron lines and steady intervals.

One rule: a tick is a whole Unix second that follows from the schedule alone, so that all gateways
of an installation agree on it. Reads no clock.
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

LONGEST_CRON: Final = 200
LONGEST_EVERY: Final = 366 * 86400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EVERY: Final = re.compile(r"([0-9]{1,9})([smhd])")
_ANY: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Schedule(Protocol):
    """When ticks are due. Two are equal when they tick alike."""

    @property
    def catch_up(self) -> bool:
        """Whether the latest tick that was missed is made up for."""

    def next(self, after: float) -> int | None:
        """Return the first tick later than `after`; all are Unix times. None: there is none."""

    def latest(self, now: float) -> int:
        """Return the last tick that is not later than `now`; 0 where there is none."""

    def local(self, tick: int) -> datetime:
        """Return a tick in the schedule's own time zone."""


@dataclass(frozen=True)
class Every:
    """Every so many seconds, counted from the Unix epoch."""

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
    """A cron line of five fields in a time zone, as Debian's cron reads it.

    Where clocks go forward, a line with fixed hours that fall into the gap ticks right behind it;
    where they go back, it ticks once. Lines whose minute or hour begins with `*` follow the clock.
    """

    line: str
    timezone: str = "UTC"
    catch_up: bool = False

    def __str__(self) -> str:
        return f"cron {self.line} {self.timezone}"

    def next(self, after: float) -> int | None:
        """Return the first tick later than `after`, None where none comes within fifty years."""
        # In the hour that clocks repeat, the library begins with a tick that is over.
        return next((tick for tick in self._ticks(int(after // 1)) if tick > after), None)

    def latest(self, now: float) -> int:
        """Return the last tick that is not later than `now`, 0 where none came in fifty years."""
        ticks = self._ticks(int(now // 1) + 1, reverse=True)
        found = next((tick for tick in ticks if tick <= now), 0)
        # Backwards from within the hour that clocks repeat, the library skips ticks of its first half.
        while found and (following := self.next(found)) is not None and following <= now:
            found = following
        return found

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
            "is no time zone that this machine knows: say one such as Europe/Rome"
        ) from None


def parse_cron(line: str) -> str:
    """Return a cron line that has ticks. Raises `ValueError` that says which field is wrong."""
    if len(line) > LONGEST_CRON:
        raise ValueError(f"must not be longer than {LONGEST_CRON} characters")
    fields = len(line.split())
    if fields != 5:
        raise ValueError(
            f"needs five fields (minute, hour, day of month, month, day of week) and has {fields};"
            " `every: 10s` is for seconds"
        )
    try:
        found = next(CronSim(line, _ANY), None)
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        raise ValueError(f"is no cron line: the field {field} is wrong") from None
    if found is None:
        raise ValueError("is a day that never comes")
    return " ".join(line.split())


def parse_every(text: str) -> int:
    """Return the seconds of `10s`, `15m`, `1h` or `7d`. Raises `ValueError`."""
    match = _EVERY.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= LONGEST_EVERY:
        longest = timedelta(seconds=LONGEST_EVERY).days
        raise ValueError(f"must be a number with s, m, h or d, such as 15m: 1s to {longest}d")
    return seconds
