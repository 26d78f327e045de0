"""Preconditions (RFC 9110 section 13), in the order in which they count.

One rule: a condition that cannot be read is ignored where ignoring sends a file, and fails where it
would let something through (`If-Match`). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from gateway.errors import Refusal

_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
_TAGS: Final = re.compile(rf"[ \t,]*(?:{_TAG.pattern}[ \t]*(?:,[ \t,]*|$))+")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_DATES: Final = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"{_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT",
        rf"{_LONG_DAY}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})",
    )
)
"""IMF-fixdate, and the two forms that are obsolete but must be read (RFC 9110 section 5.6.7)."""


def is_fresh(headers: Mapping[str, str], etag: str, modified: int) -> bool:
    """Tell whether the client's copy is still good: a GET or HEAD is then answered 304.

    `etag` stands without quotes and is strong, `modified` is in whole Unix seconds. Raises
    `Refusal("precondition_failed")`. Source: section 13.2.2.
    """
    if "If-Match" in headers:
        if not _matches(headers["If-Match"], etag, weak=False):
            raise Refusal("precondition_failed", "If-Match: the file is another one now")
    elif "If-Unmodified-Since" in headers:
        since = date(headers["If-Unmodified-Since"])
        if since is not None and modified > since:
            raise Refusal("precondition_failed", "If-Unmodified-Since: the file has been changed since")
    if "If-None-Match" in headers:
        return _matches(headers["If-None-Match"], etag, weak=True)
    since = date(headers.get("If-Modified-Since", ""))
    return since is not None and modified <= since


def range_counts(headers: Mapping[str, str], etag: str, modified: int, now: float) -> bool:
    """Tell whether `Range` may be heeded: `If-Range` is not there, or names this very version.

    Only a strong validator counts (section 13.1.5): of dates one that is over, since
    a file could be changed twice within its second.
    """
    value = headers.get("If-Range", "").strip(" \t")
    if not value:
        return True
    tag = _TAG.fullmatch(value)
    if tag is not None:
        return not tag[1] and tag[2] == etag
    return date(value) == modified and modified + 1 < now


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    """Tell whether a list of entity tags holds ours (section 8.8.3.2); `*` is any."""
    if header.strip(" \t") == "*":
        return True
    if not _TAGS.fullmatch(header):
        return False
    return any(tag == etag and (weak or not mark) for mark, tag in _TAG.findall(header))


def date(text: str) -> int | None:
    """Return the Unix time of an HTTP date, None for what is none.

    Of two digits of a year the one that is at most 50 years ahead is meant.
    """
    found = next((match for form in _DATES if (match := form.fullmatch(text.strip(" \t")))), None)
    if found is None:
        return None
    said = found.groupdict()
    year = int(said["year"])
    if len(said["year"]) == 2:
        this = datetime.now(UTC).year
        year += this - this % 100
        year -= 100 if year > this + 50 else 0
    try:
        moment = datetime(
            year,
            _MONTHS.index(said["month"]) + 1,
            int(said["day"]),
            int(said["hour"]),
            int(said["minute"]),
            min(int(said["second"]), 59),  # a leap second
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp())
