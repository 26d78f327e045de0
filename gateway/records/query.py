"""Queries of a collection and their cursors.

A page continues behind the last item of the page before it. Items may come and go meanwhile; one that
stays is neither repeated nor left out. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.records.items import MAX_TEXT, Value, checked_field, is_number, value_of

MAX_LIMIT: Final = 1000
"""Items of a page."""

MAX_PAGE: Final = 8 * 1024 * 1024
"""Bytes from which on a page is full, however few items it has."""

_ORDERS: Final = ("asc", "desc")
_DIGEST: Final = 9


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items in order, each with its key under `key`; `cursor` leads to the next page, None: the end."""

    items: list[dict[str, Any]]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ItemRow:
    """A stored item. `value` is that of the index, None without one."""

    key: str
    text: str
    value: Value | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query: `prefix` of the key, an `index` with its range, and where to continue.

    `since` is within the range, `until` is not; both have the same type. `equals` stands alone.
    """

    prefix: str = ""
    index: str | None = None
    equals: Value | None = None
    since: Value | None = None
    until: Value | None = None
    descending: bool = False
    limit: int = 100
    after: tuple[Value | None, str] | None = None

    @property
    def kind(self) -> type[float] | type[str] | None:
        """The type of the index, where the query is about one of them only."""
        for value in (self.equals, self.since, self.until):
            if value is not None:
                return str if isinstance(value, str) else float
        return None

    def matches(self, key: str, value: Value | None) -> bool:
        """Return whether an item matches, on whatever page."""
        if not key.startswith(self.prefix):
            return False
        if self.index is None:
            return True
        if value is None or (self.kind is not None and not isinstance(value, self.kind)):
            return False
        if self.equals is not None:
            return value == self.equals
        return not (
            (self.since is not None and value < self.since)  # type: ignore[operator]
            or (self.until is not None and value >= self.until)  # type: ignore[operator]
        )

    @property
    def prefix_end(self) -> str | None:
        """The first text behind all that begin with the prefix, or None where there is none."""
        for at in range(len(self.prefix) - 1, -1, -1):
            code = ord(self.prefix[at])
            if code < 0x10FFFF:
                following = 0xE000 if code == 0xD7FF else code + 1
                return self.prefix[:at] + chr(following)
        return None

    def cursor_after(self, last: ItemRow) -> str:
        """Return the cursor of the page behind `last`."""
        where = json.dumps([last.value, last.key]).encode()
        return base64.urlsafe_b64encode(self._digest(where) + where).decode().rstrip("=")

    def continued(self, cursor: str | None) -> Query:
        """Return the query continued at `cursor`. Raises `ValueError` for one of another query."""
        if cursor is None:
            return self
        wrong = ValueError("this cursor does not belong to this query: begin without one")
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (TypeError, ValueError):
            raise wrong from None
        digest, where = raw[:_DIGEST], raw[_DIGEST:]
        if digest != self._digest(where):
            raise wrong
        value, key = json.loads(where)
        return replace(self, after=(value, key))

    def _digest(self, where: bytes) -> bytes:
        """Tie a position to its query: no secret, it detects mistakes only."""
        query = repr(replace(self, limit=1, after=None)).encode()
        return hashlib.blake2b(where, digest_size=_DIGEST, key=hashlib.sha256(query).digest()).digest()


def make_query(
    prefix: str,
    index: str | None,
    equals: object,
    since: object,
    until: object,
    order: str,
    limit: int,
    cursor: str | None,
) -> Query:
    """Check the arguments of a script. Raises `ValueError` that names the argument."""
    if order not in _ORDERS:
        raise ValueError(f"order={order!r}: it is 'asc' or 'desc'")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit={limit!r}: it is a number from 1 to {MAX_LIMIT}")
    if not isinstance(prefix, str) or "\0" in prefix:
        raise ValueError("prefix: it is a text without NUL characters")
    prefix.encode()  # UnicodeEncodeError is a ValueError
    if index is None and not (equals is None and since is None and until is None):
        raise ValueError("equals, since and until ask an index: name one, or use prefix")
    query = Query(
        prefix,
        None if index is None else checked_field(index),
        _bound("equals", equals),
        _bound("since", since),
        _bound("until", until),
        order == "desc",
        limit,
    )
    _check_range(query)
    return query.continued(cursor)


def _check_range(query: Query) -> None:
    if query.equals is not None and not (query.since is None and query.until is None):
        raise ValueError("equals stands alone, without since and until")
    if len({isinstance(bound, str) for bound in (query.since, query.until) if bound is not None}) == 2:
        raise ValueError("since and until are both numbers or both texts")


def _bound(name: str, value: object) -> Value | None:
    if value is None:
        return None
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{name}: a text without NUL characters")
    if isinstance(value, str) or is_number(value):
        bound = value_of(value)
        if bound is not None:
            return bound
    raise ValueError(f"{name}={str(value)[:50]!r}: it is a number or a text of at most {MAX_TEXT} bytes")
