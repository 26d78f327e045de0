"""Durations, sizes and times as people and JSON write them. Pure: no clock is read."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|[smhdw]?)", re.ASCII)
_SIZE: Final = re.compile(r"(\d+)\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE | re.ASCII)
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
"""Numbers as JSON writes them (RFC 8259 section 6): Python itself reads `1_0` and other digits."""

_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4}

_RATE_UNITS: Final = ("s", "m", "h", "d")

_LAST: Final = 253_402_300_799.0
"""The last second of the year 9999, behind which ISO 8601 has no plain form."""


def parse_duration(text: str) -> float:
    """Return the seconds of `90`, `1.5s`, `15m`, `2h`, `7d` or `1w`. Raises `ValueError`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a time such as 30s, 15m, 12h or 7d; a plain number counts seconds")
    return float(match[1]) * _UNITS[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes of `1048576`, `64M`, `64MiB` or `64MB`. Raises `ValueError`.

    K, M, G, T and KiB, MiB ... count in 1024s, KB, MB ... in 1000s, as in GNU coreutils.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a number of bytes such as 1048576, 64M, 64MiB or 64MB")
    letter, unit = (match[2] or "").lower(), (match[3] or "").lower()
    factor: int = (1000 if unit == "b" else 1024) ** _POWERS.get(letter, 0)
    return int(match[1]) * factor


def count_up_to(text: str, most: int) -> int | None:
    """Return the number from 1 to `most` that a text is, in ASCII digits; None for any other text."""
    if len(text) > len(str(most)) or not text.isascii() or not text.isdigit():
        return None
    number = int(text)
    return number if 1 <= number <= most else None


def format_size(size: int) -> str:
    """Return bytes in the unit that people read, in powers of 1000: `10.3 kB`, `512 B`."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{size} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def format_duration(seconds: float) -> str:
    """Return seconds in the largest unit that they are a multiple of: `7d`, `90s`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


def iso_time(moment: float) -> str:
    """Return a Unix time in UTC, to the millisecond (RFC 3339): `2026-11-28T12:51:56.250Z`."""
    bounded = min(max(moment, 0.0), _LAST)
    return datetime.fromtimestamp(bounded, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def unix_time(text: str) -> float:
    """Return the Unix time of an ISO 8601 date and time, or of a number: it is one already.

    Without a zone it is local time. Raises `ValueError` for anything else and for times before 1970.
    """
    if _NUMBER.fullmatch(text):
        moment = float(text)
    else:
        try:
            moment = datetime.fromisoformat(text).timestamp()
        except (OverflowError, OSError) as error:
            raise ValueError("the time is out of range") from error
    if not 0 <= moment < math.inf:
        raise ValueError("the time must not be before 1970")
    return moment


class RequestRate(NamedTuple):
    """At most `requests` in `seconds`."""

    requests: int
    seconds: float

    def __str__(self) -> str:
        """Return it as people write it: `10/m`, `100/30s`."""
        unit = next((unit for unit in _RATE_UNITS if _UNITS[unit] == self.seconds), None)
        return f"{self.requests}/{unit or format_duration(self.seconds)}"


def parse_rate(text: str) -> RequestRate:
    """Return the rate of `10/m`, `5/s`, `1000/d` or `100/30s`. Raises `ValueError`."""
    count, slash, window = text.strip().partition("/")
    window = f"1{window}" if window in _RATE_UNITS else window
    if slash and count.isascii() and count.isdigit() and 0 < int(count[:10]) < 10**9:
        seconds = parse_duration(window)
        if 0 < seconds <= _UNITS["w"]:
            return RequestRate(int(count), seconds)
    raise ValueError("must be a number of requests and a time, such as 10/m, 5/s or 1000/d")
