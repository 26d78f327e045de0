"""The protocol of every store of records, and the store in memory.

All stores answer a query with the same rows in the same order.
"""

from __future__ import annotations

from typing import Final, NoReturn, Protocol

from gateway.errors import RecordsUnavailable
from gateway.records.items import EncodedItem, Value
from gateway.records.query import MAX_PAGE, ItemRow, Query

MAX_WAITING: Final = 10_000
"""Calls that wait for a store; the next one is refused."""

MAX_INDEXES: Final = 16
"""Indexed fields of one collection."""


class RecordStore(Protocol):
    """Stores items; callable from any event loop. Every method raises `RecordsUnavailable`."""

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """Store an item, on stable storage before this returns; return whether it was done.

        `only_new`: only if the key is free. `replaces`: only if the stored JSON text still equals it.
        """

    async def get(self, collection: str, key: str) -> str | None:
        """Return the JSON text of an item, or None."""

    async def delete(self, collection: str, key: str) -> bool:
        """Delete an item; return whether there was one."""

    async def select(self, collection: str, query: Query) -> tuple[list[ItemRow], bool]:
        """Return a page, and whether more follows."""

    async def check(self) -> str:
        """Return a short description of a store that answers."""

    def close(self) -> None:
        """Finish pending calls and close. Blocking."""


class MemoryStore:
    """Records in memory: for `gateway check`, and the model that other stores are compared with."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, EncodedItem]] = {}

    async def put(
        self, collection: str, item: EncodedItem, *, only_new: bool = False, replaces: str | None = None
    ) -> bool:
        """See `RecordStore`."""
        items = self._kept.setdefault(collection, {})
        stored = await self.get(collection, item.key)
        if (only_new and stored is not None) or (replaces is not None and stored != replaces):
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
            if query.matches(key, value):
                rows.append(ItemRow(key, item.text, value))
        rows.sort(key=_sort_key, reverse=query.descending)
        return page_of([row for row in rows if _follows(row, query)], query)

    async def check(self) -> str:
        """See `RecordStore`."""
        return "in memory"

    def close(self) -> None:
        """See `RecordStore`."""


class UnavailableStore:
    """Stands in where no store can be reached: every call raises `RecordsUnavailable` with `reason`."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def _refuse(self, *_arguments: object, **_options: object) -> NoReturn:
        raise RecordsUnavailable(self._reason)

    put = get = delete = select = check = _refuse

    def close(self) -> None:
        """Do nothing."""


def page_of(rows: list[ItemRow], query: Query) -> tuple[list[ItemRow], bool]:
    """Cut rows to a page: at most `limit`, and full from `MAX_PAGE` bytes on; at least one row."""
    count, size = 0, 0
    for row in rows[: query.limit]:
        if size >= MAX_PAGE:
            break
        count, size = count + 1, size + len(row.text.encode())
    return rows[:count], count < len(rows)


def _sort_key(row: ItemRow) -> tuple[bool, Value, str]:
    return isinstance(row.value, str), 0.0 if row.value is None else row.value, row.key


def _follows(row: ItemRow, query: Query) -> bool:
    if query.after is None:
        return True
    value, key = query.after
    here, there = _sort_key(row), _sort_key(ItemRow(key, "", value))
    return here < there if query.descending else here > there
