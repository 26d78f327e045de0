"""Conditional and range requests: which status, and which bytes, a GET or HEAD of a file gets.

All of it is decided on one `Stat`, that of the version that is sent. RFC 9110 sections 13 and 14.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.errors import Refusal
from gateway.storage.protocols import Stat

MAX_RANGES: Final = 16
"""Ranges in one response. A request for more, or for the same bytes twice, gets the whole file."""

_HEADERS: Final = (
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Range",
)
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
_TAGS: Final = re.compile(rf"[ \t,]*(?:{_TAG.pattern}[ \t]*(?:,[ \t,]*|$))+")
_RANGE: Final = re.compile(r"(\d*)-(\d*)", re.ASCII)
_MAX_DIGITS: Final = 20

_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATE_FORMS: Final = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"{_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"{_LONG_DAY}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)
"""IMF-fixdate, and the two forms that are obsolete but must be read (RFC 9110 section 5.6.7)."""


class ByteRange(NamedTuple):
    """`length` bytes from `start` on; never empty."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The position behind the last byte."""
        return self.start + self.length

    def content_range(self, size: int) -> str:
        """Return the value of `Content-Range` for this range of a file of `size` bytes."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


class ConditionalRequest:
    """A GET or HEAD; `choose_ranges` sets `status` (200, 206 or 304). `etag`: of that version only."""

    def __init__(
        self, method: str, headers: CIMultiDict[str] | CIMultiDictProxy[str], etag: str | None = None
    ) -> None:
        self._etag = etag
        self._headers = {name: ", ".join(headers.getall(name)) for name in _HEADERS if name in headers}
        self._is_head = method == "HEAD"
        self.status = 200
        self.ranges: Sequence[ByteRange] = ()

    def choose_ranges(self, stat: Stat) -> Sequence[ByteRange]:
        """Return, and keep, the ranges of this version to send; none for HEAD and 304.

        Raises `Refusal` `precondition_failed`, `range_not_satisfiable`, `superseded`.
        """
        if self._etag is not None and stat.etag != self._etag:
            raise Refusal("superseded", f"{stat.path} has been replaced or changed since")
        self.status, ranges = self._negotiate(stat) if self._headers else (200, None)
        whole = () if self._is_head else (ByteRange(0, stat.bytes),)
        self.ranges = whole if ranges is None else ranges
        return self.ranges

    def _negotiate(self, stat: Stat) -> tuple[int, Sequence[ByteRange] | None]:
        """Return the status and the ranges, None for the whole file."""
        headers, modified = self._headers, modified_second(stat)
        if is_not_modified(headers, stat.etag, modified):
            return 304, ()
        if self._is_head or "Range" not in headers:
            return 200, None
        if not if_range_holds(headers, stat.etag, modified, time.time()):
            return 200, None
        ranges = parse_ranges(headers["Range"], stat.bytes)
        return (200, None) if ranges is None else (206, ranges)


def modified_second(stat: Stat) -> int:
    """Return the second of the last change; never in the future (RFC 9110 section 8.8.2.1)."""
    return max(0, min(int(stat.modified), int(time.time())))


# -- preconditions


def is_not_modified(headers: Mapping[str, str], etag: str, modified: int) -> bool:
    """Tell whether the client's copy is current: a GET or HEAD then gets 304 (section 13.2.2).

    `etag` is strong and without quotes, `modified` is in whole Unix seconds. A malformed
    condition is ignored, except `If-Match`, which fails. Raises `Refusal("precondition_failed")`.
    """
    if "If-Match" in headers:
        if not _has_tag(headers["If-Match"], etag, weak=False):
            raise Refusal("precondition_failed", "If-Match: the file has been replaced")
    elif "If-Unmodified-Since" in headers:
        since = parse_http_date(headers["If-Unmodified-Since"])
        if since is not None and modified > since:
            raise Refusal("precondition_failed", "If-Unmodified-Since: the file has been changed since")
    if "If-None-Match" in headers:
        return _has_tag(headers["If-None-Match"], etag, weak=True)
    since = parse_http_date(headers.get("If-Modified-Since", ""))
    return since is not None and modified <= since


def if_range_holds(headers: Mapping[str, str], etag: str, modified: int, now: float) -> bool:
    """Tell whether `Range` counts: `If-Range` is absent, or names this version.

    Only a strong validator counts (section 13.1.5). A date is one when its second is over, as
    a file could be changed twice within it.
    """
    value = headers.get("If-Range", "").strip(" \t")
    if not value:
        return True
    tag = _TAG.fullmatch(value)
    if tag is not None:
        return not tag[1] and tag[2] == etag
    return parse_http_date(value) == modified and modified + 1 < now


def _has_tag(header: str, etag: str, *, weak: bool) -> bool:
    """Tell whether a list of entity tags has ours (section 8.8.3.2); `*` is any."""
    if header.strip(" \t") == "*":
        return True
    if not _TAGS.fullmatch(header):
        return False
    return any(tag == etag and (weak or not mark) for mark, tag in _TAG.findall(header))


def parse_http_date(text: str) -> int | None:
    """Return the Unix time of a date in one of the three forms of section 5.6.7, else None.

    A year of two digits is at most 50 years ahead. No parser of the library reads all three:
    `email.utils.parsedate`, which aiohttp uses, ignores an offset such as +0100, and `strptime` reads
    names in the language of the process, which any script may set.
    """
    matches = (form.fullmatch(text.strip(" \t")) for form in _DATE_FORMS)
    match = next((match for match in matches if match is not None), None)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        current = datetime.now(UTC).year
        year += current - current % 100
        year -= 100 if year > current + 50 else 0
    try:
        moment = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(int(match["second"]), 59),  # a leap second
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp())


# -- ranges


def parse_ranges(header: str, size: int) -> list[ByteRange] | None:
    """Return the ranges of a file of `size` bytes that `Range` asks for, in the order asked.

    None: send the whole file. A server may do so for any range (section 14.2); this one
    does for units other than bytes, bad syntax, more than MAX_RANGES, overlapping ranges, and the
    end of an empty file, which no `Content-Range` could express. Raises `Refusal`
    `range_not_satisfiable` if all ranges lie behind the end of the file.
    """
    unit, equals, specs = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    texts = [text.strip(" \t") for text in specs.split(",")]
    parsed = [_parse_range(text, size) for text in texts if text]
    if not parsed or None in parsed or len(parsed) > MAX_RANGES:
        return None
    ranges = [byte_range for byte_range in parsed if byte_range]
    if not ranges:
        raise Refusal(
            "range_not_satisfiable", f"the file has {size} bytes", {"Content-Range": f"bytes */{size}"}
        )
    if size == 0 or any(before.end > after.start for before, after in pairwise(sorted(ranges))):
        return None
    return ranges


def _parse_range(text: str, size: int) -> ByteRange | tuple[()] | None:
    """Return one range; `()` for one that is not satisfiable, None for bad syntax."""
    match = _RANGE.fullmatch(text)
    if match is None or text == "-":
        return None
    first, last = match.groups()
    if not first:
        length = min(_number(last), size)
        # The end of an empty file is nothing, yet satisfiable (section 14.1.2).
        return ByteRange(size - length, length) if _number(last) else ()
    start, end = _number(first), _number(last) if last else size - 1
    if last and end < start:
        return None
    return ByteRange(start, min(end, size - 1) + 1 - start) if start < size else ()


def _number(digits: str) -> int:
    """Return the number; a length beyond all files counts as very large."""
    return int(digits.lstrip("0")[:_MAX_DIGITS] or "0")
