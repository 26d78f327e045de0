"""Which parts of a file a `Range` asks for (RFC 9110 section 14).

One rule: what is no valid range of bytes is ignored, as if it had not been asked for; only a valid
one that lies wholly behind the end is refused. Pure.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, NamedTuple

from gateway.errors import Refusal

MOST_RANGES: Final = 16
"""Parts in one answer. Who asks for more, or for the same bytes twice, gets the whole file."""

_RANGE: Final = re.compile(r"(\d*)-(\d*)", re.ASCII)
_LONGEST_NUMBER: Final = 20


class ByteRange(NamedTuple):
    """`length` bytes from `start` on; never empty."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The position behind the last byte."""
        return self.start + self.length

    def content_range(self, size: int) -> str:
        """Return the value of `Content-Range` for this part of a file of `size` bytes."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


def parts_of(header: str, size: int) -> list[ByteRange] | None:
    """Return the parts of a file of `size` bytes that `Range` asks for, in the order asked.

    None: the whole file is to be sent. A server may do so for any range (section 14.2); this one
    does for units other than bytes, bad syntax, more than MOST_RANGES, overlapping ranges, and the
    end of an empty file, which no `Content-Range` could express. Raises `Refusal`
    `range_not_satisfiable` where no part lies in the file.
    """
    unit, equals, listed = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    texts = [text.strip(" \t") for text in listed.split(",")]
    wanted = [_parse(text, size) for text in texts if text]
    if not wanted or None in wanted or len(wanted) > MOST_RANGES:
        return None
    parts = [part for part in wanted if part]
    if not parts:
        raise Refusal(
            "range_not_satisfiable",
            f"the file has {size} bytes",
            {"Content-Range": f"bytes */{size}"},
        )
    if size == 0 or any(before.end > after.start for before, after in pairwise(sorted(parts))):
        return None
    return parts


def _parse(text: str, size: int) -> ByteRange | tuple[()] | None:
    """Return one range; nothing, `()`, for one that is not satisfiable, None for bad syntax."""
    found = _RANGE.fullmatch(text)
    if found is None or text == "-":
        return None
    first, last = found.groups()
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
    return int(digits.lstrip("0")[:_LONGEST_NUMBER] or "0")
