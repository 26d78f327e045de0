"""What every store of records offers, and the one that forgets.

One rule: all stores answer a question with the same rows in the same order.
"""

from __future__ import annotations

from typing import Protocol

from gateway.errors import RecordsUnavailable
from gateway.records.items import EncodedItem, Value
from gateway.records.query import MAX_PAGE, ItemRow, Query


class RecordStore(Protocol):
    """Keeps items, for any event loop. Every method raises `RecordsUnavailable` where it cannot
    be reached."""

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """Keep an item, on stable storage before this returns; tell whether it was done.

        `only_new`: not where there is one with that key. `replaces`: only where the JSON text of the
        one there still is this one.
        """
        ...

    async def get(self, collection: str, key: str) -> str | None:
        """Return the JSON text of an item, or None."""
        ...

    async def delete(self, collection: str, key: str) -> bool:
        """Remove an item; tell whether there was one."""
        ...

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """Return a page, and whether there is more behind it."""
        ...

    async def check(self) -> str:
        """Return in a few words what this is and that it answers."""
        ...

    def close(self) -> None:
        """End what is under way and let go. Blocking."""
        ...


class MemoryStore:
    """Records in memory: for `gateway check`, and what the other stores are compared with."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, EncodedItem]] = {}

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """See `RecordStore`."""
        items = self._kept.setdefault(collection, {})
        now = items.get(item.key)
        if (only_new and now is not None) or (
            replaces is not None and (now is None or now.text != replaces)
        ):
            return False
        items[item.key] = item
        return True

    async def get(self, collection: str, key: str) -> str | None:
        """See `RecordStore`."""
        item = self._kept.get(collection, {}).get(key)
        return None if item is None else item.text

    async def delete(self, collection: str, key: str) -> bool:
        """See `RecordStore`."""
        return self._kept.get(collection, {}).pop(key, None) is not None

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """See `RecordStore`."""
        rows = []
        for key, item in self._kept.get(collection, {}).items():
            value = item.values.get(query.index) if query.index else None
            if query.holds(key, value):
                rows.append(ItemRow(key, item.text, value))
        rows.sort(key=_place, reverse=query.descending)
        return page_of([row for row in rows if _behind(row, query)], query)

    async def check(self) -> str:
        """See `RecordStore`."""
        return "in memory"

    def close(self) -> None:
        """See `RecordStore`."""


class UnavailableStore(MemoryStore):
    """Stands where no records can be reached: every call raises `RecordsUnavailable` with the
    reason."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """Raise `RecordsUnavailable`."""
        raise RecordsUnavailable(self._reason)

    async def get(self, collection: str, key: str) -> str | None:
        """Raise `RecordsUnavailable`."""
        raise RecordsUnavailable(self._reason)

    async def delete(self, collection: str, key: str) -> bool:
        """Raise `RecordsUnavailable`."""
        raise RecordsUnavailable(self._reason)

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """Raise `RecordsUnavailable`."""
        raise RecordsUnavailable(self._reason)

    async def check(self) -> str:
        """Raise `RecordsUnavailable`."""
        raise RecordsUnavailable(self._reason)


def page_of(rows: list[ItemRow], query: Query) -> tuple[list[ItemRow], bool]:
    """Cut rows to a page: at most `limit`, and full from `MAX_PAGE` bytes on; never none at all."""
    taken, size = 0, 0
    for row in rows[: query.limit]:
        if size >= MAX_PAGE:
            break
        taken, size = taken + 1, size + len(row.text.encode())
    return rows[:taken], taken < len(rows)


def _place(row: ItemRow) -> tuple[bool, Value, str]:
    return isinstance(row.value, str), 0.0 if row.value is None else row.value, row.key


def _behind(row: ItemRow, query: Query) -> bool:
    if query.after is None:
        return True
    value, key = query.after
    here, there = _place(row), _place(ItemRow(key, "", value))
    return here < there if query.descending else here > there
