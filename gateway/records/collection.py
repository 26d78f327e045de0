"""The side that scripts see: `records("photos")` and its operations, on the store that settings name.

Every argument is checked here, so that a store gets valid values only.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gateway.errors import ConfigError
from gateway.records.items import INTERNAL, checked_key, checked_name, pack, unpack
from gateway.records.query import ItemPage, make_query
from gateway.records.sqlite_store import SqliteStore
from gateway.records.store import MemoryStore, RecordStore, UnavailableStore
from gateway.settings import Settings


class Collection:
    """Items of one name. Callable from any event loop; may be kept."""

    def __init__(self, store: RecordStore, name: str) -> None:
        self._store = store
        self._name = name

    def __repr__(self) -> str:
        return f"records({self._name!r})"

    async def put(
        self,
        key: str,
        item: dict[str, Any],
        *,
        only_new: bool = False,
        replaces: dict[str, Any] | None = None,
    ) -> bool:
        """Store `item` under `key`, on stable storage before this returns; return whether it did.

        `only_new`: only if the key is free. `replaces`: only if the stored item still equals this
        one, as `get` returned it. Raises `ValueError` for an invalid item, `RecordsUnavailable`
        where the store cannot be reached: then the outcome is unknown.
        """
        if only_new and replaces is not None:
            raise ValueError("only_new and replaces exclude each other")
        before = None if replaces is None else pack(key, replaces).text
        return await self._store.put(self._name, pack(key, item), only_new=only_new, replaces=before)

    async def get(self, key: str) -> dict[str, Any] | None:
        """Return the item under `key`, with its key in the field `key`; None where there is none."""
        text = await self._store.get(self._name, checked_key(key))
        return None if text is None else unpack(key, text)

    async def delete(self, key: str) -> bool:
        """Delete the item under `key`; return whether there was one."""
        return await self._store.delete(self._name, checked_key(key))

    async def query(
        self,
        prefix: str = "",
        *,
        index: str | None = None,
        equals: float | str | None = None,
        since: float | str | None = None,
        until: float | str | None = None,
        order: str = "asc",
        limit: int = 100,
        cursor: str | None = None,
    ) -> ItemPage:
        """Return the items whose key begins with `prefix`, by key, or by the field `index` and then key.

        With an index only those that have the field as a number or a text (of up to 1000 bytes):
        numbers first, then texts by code point; `since` <= field < `until`, or field == `equals`.
        A page has up to `limit` (1 to 1000) items, fewer where they are large. Raises `ValueError`
        that names the argument, also for a `cursor` of another query; `RecordsUnavailable`.
        """
        query = make_query(prefix, index, equals, since, until, order, limit, cursor)
        rows, more = await self._store.select(self._name, query)
        items = [unpack(row.key, row.text) for row in rows]
        return ItemPage(items, query.cursor_after(rows[-1]) if more else None)


class Records:
    """`records` of scripts; `own` is for the gateway's own packages."""

    def __init__(self, store: RecordStore | None = None) -> None:
        self._store: RecordStore = MemoryStore() if store is None else store

    def __call__(self, name: str) -> Collection:
        """Return a collection; it need not exist. Raises `ValueError` for an invalid name."""
        if checked_name(name).startswith(INTERNAL):
            raise ValueError(
                f"records({name!r}): names that begin with {INTERNAL} are the gateway's own"
            )
        return Collection(self._store, name)

    def own(self, name: str) -> Collection:
        """Return a collection of the gateway's own, named `gateway.<name>`."""
        return Collection(self._store, checked_name(INTERNAL + name))

    async def check(self) -> str:
        """Return a description of the store. Raises `RecordsUnavailable` where it cannot be reached."""
        return await self._store.check()

    def close(self) -> None:
        """Close the store. Blocking."""
        self._store.close()


FILE: Final = "records.db"


def open_records(settings: Settings, *, file_is_local: bool = True) -> Records:
    """Return the records of an installation; `file_is_local`: the file is on this machine.

    The first call opens the store: an installation that keeps no records has no file. Raises
    `ConfigError` where the setting needs what is not installed.
    """
    chosen = settings.records.get_secret_value()
    if chosen != "file":
        return Records(_postgres(chosen))
    if not file_is_local:
        return Records(
            UnavailableStore(
                "the records are in a file of the gateway's machine, and this --directory is not that of"
                " a gateway: give gateways and workers the same --records postgresql://..."
            )
        )
    return Records(SqliteStore(settings.state / FILE))


def secrets_of(settings: Settings) -> list[str]:
    """Return what must be masked in texts: the URL of a database and the password in it."""
    chosen = settings.records.get_secret_value()
    password = urlsplit(chosen).password
    return [chosen, password, unquote(password)] if password else []


def _postgres(url: str) -> RecordStore:
    try:
        from gateway.records.postgres_store import PostgresStore
    except ImportError as error:
        raise ConfigError(
            f"records in PostgreSQL need a package that is missing ({error}): "
            "run pip install '.[postgres]' in the checkout"
        ) from error
    return PostgresStore(url)
