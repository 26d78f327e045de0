"""Plugin exports: requests for exports; equal requests of one caller share one export.

A name from outside never becomes a path: folders and ids are hashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Protocol

WAITING: Final = "waiting"
BUILDING: Final = "building"
DONE: Final = "done"
FAILED: Final = "failed"

FOLDER: Final = "/exports"
ORDERS: Final = f"{FOLDER}/orders"
"""An order here is a file whose event builds an export: it outlives a crash."""

SILENCE: Final = 90.0
"""Seconds without a sign of progress after which an export is ordered again."""

TRIES: Final = 20

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{40}")

Item = dict[str, Any]


class Kept(Protocol):
    """The records of the exports: `records("exports")`."""

    async def get(self, key: str) -> Item | None:
        """Return an item, or None."""
        ...

    async def put(
        self, key: str, item: Item, *, only_new: bool = False, replaces: Item | None = None
    ) -> bool:
        """Store an item under these conditions; tell whether that was done."""
        ...

    async def query(self, *, index: str, equals: str, limit: int) -> Any:
        """Return a page of the items whose field `index` has this value."""
        ...


class Wrong(Exception):
    """An invalid request; the message is for the client."""


class TooManyQueued(Exception):
    """The caller has as many unfinished exports as are allowed; the message is for the client."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The config, checked; times in seconds."""

    collection: str = "photos"
    field: str = "created"
    owner_field: str | None = None
    owner_kind_field: str | None = None
    answer_within: float = 5.0
    reuse: float = 60.0
    url_seconds: int = 900
    max_days: int = 366
    max_records: int = 1_000_000
    max_queued: int = 4
    expire_after: float | Mapping[str, float] = 86400.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Rules:
        """Read a config. Raises `ValueError` that names the key."""
        unknown = set(config) - set(cls.__slots__)
        if unknown:
            raise ValueError(f"config exports: unknown keys {sorted(unknown)}")
        rules = cls(**config)
        for name in ("answer_within", "reuse", "url_seconds", "max_days", "max_records", "max_queued"):
            _check_number(name, getattr(rules, name))
        for folder, seconds in rules.folders.items():
            _check_number(f"expire_after of {folder}", seconds)
        if rules.kept_for < rules.reuse + rules.url_seconds:
            raise ValueError("config exports: expire_after must be longer than reuse and url_seconds")
        return rules

    @property
    def folders(self) -> Mapping[str, float]:
        """How long files are kept: folder to seconds, that of the exports included."""
        if isinstance(self.expire_after, Mapping):
            return {f"{FOLDER}/": 86400.0, **self.expire_after}
        return {f"{FOLDER}/": self.expire_after}

    @property
    def kept_for(self) -> float:
        """How long an export is kept."""
        return self.folders[f"{FOLDER}/"]


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"config exports: {name} is a number from 0 on")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for some days, first and last included (UTC), and its caller."""

    caller: str
    name: str | None
    kind: str | None
    first: date
    last: date

    def id(self, rules: Rules) -> str:
        """Return the id that equal requests of this caller share."""
        said = [self.caller, str(self.first), str(self.last), rules.collection, rules.field]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:40]


def asked(
    params: Mapping[str, Sequence[str]], principal: Mapping[str, Any] | None, rules: Rules
) -> Asked:
    """Read a query. Raises `Wrong`."""
    first, last = _day(params, "from"), _day(params, "to")
    if last < first:
        raise Wrong(f"to={last} lies before from={first}")
    if (last - first).days >= rules.max_days:
        raise Wrong(f"from={first} to={last} is longer than {rules.max_days} days")
    if last == date.max:
        raise Wrong(f"to={last} is the last possible date")
    known = principal or {}
    return Asked(folder_of(principal), known.get("name"), known.get("kind"), first, last)


def _day(params: Mapping[str, Sequence[str]], name: str) -> date:
    values = params.get(name, [])
    if len(values) != 1:
        raise Wrong(f"{name} is needed, once: a date such as {name}=2026-01-31")
    try:
        if _DATE.fullmatch(values[0]):
            return date.fromisoformat(values[0])
    except ValueError:
        pass
    raise Wrong(f"{name}={values[0][:40]!r} is no date such as 2026-01-31")


def folder_of(principal: Mapping[str, Any] | None) -> str:
    """Return the folder of a caller: readable where that is safe, unique by its hash."""
    if principal is None:
        return "anonymous"
    name = str(principal.get("name"))
    digest = hashlib.sha256(f"{principal.get('kind')}\0{name}".encode("utf-8", "surrogatepass"))
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:24].strip("-")
    return f"{readable or 'caller'}-{digest.hexdigest()[:20]}"


def is_id(text: str) -> bool:
    """Tell whether a text could be the name of an export."""
    return _ID.fullmatch(text) is not None


# -- one export for equal requests


async def share(asked: Asked, rules: Rules, kept: Kept, files: Any) -> Item:
    """Return the export of a request: an existing or running one, else a new one.

    Raises `TooManyQueued`.
    """
    key = asked.id(rules)
    for _ in range(TRIES):
        item = await kept.get(key)
        if item is not None and not is_over(item, rules):
            return item
        await _check_queue(asked, key, rules, kept)
        begun = _begun(asked, item)
        if await (kept.put(key, begun, replaces=item) if item else kept.put(key, begun, only_new=True)):
            try:
                # Again: of requests at the same instant, the one that is stored last sees all others.
                await _check_queue(asked, key, rules, kept)
            except TooManyQueued as busy:
                await _withdraw(key, begun, str(busy), kept)
                raise
            await _order(key, begun, kept, files)
            return {**begun, "key": key}
    raise RuntimeError("this export changes all the time")


async def _check_queue(asked: Asked, key: str, rules: Rules, kept: Kept) -> None:
    """Raise `TooManyQueued` where the caller has `max_queued` other exports that are not finished."""
    limit = int(rules.max_queued)
    page = await kept.query(index="queued", equals=asked.caller, limit=limit + 1)
    if sum(item["key"] != key for item in page.items) >= limit:
        raise TooManyQueued(f"{limit} of your exports are not finished: wait for one of them")


async def revive(item: Item, rules: Rules, kept: Kept, files: Any) -> Item:
    """Return an export as it is; one without progress is ordered again."""
    if item["state"] in (DONE, FAILED) or not is_over(item, rules):
        return item
    first, last = date.fromisoformat(item["from"]), date.fromisoformat(item["to"])
    asked = Asked(item["caller"], item["name"], item["kind"], first, last)
    begun = _begun(asked, item)
    if await kept.put(item["key"], begun, replaces=item):
        await _order(item["key"], begun, kept, files)
    return {**begun, "key": item["key"]}


def is_over(item: Item, rules: Rules) -> bool:
    """Tell whether an export has expired: finished too long ago, or without progress."""
    patience = rules.reuse if item["state"] in (DONE, FAILED) else SILENCE
    return time.time() >= float(item["beat"]) + patience


def _begun(asked: Asked, before: Item | None) -> Item:
    now = time.time()
    return {
        "state": WAITING,
        "run": before["run"] + 1 if before else 1,
        "caller": asked.caller,
        "queued": asked.caller,
        "name": asked.name,
        "kind": asked.kind,
        "from": str(asked.first),
        "to": str(asked.last),
        "ordered": now,
        "beat": now,
        "records": 0,
        "percent": 0,
    }


async def _order(key: str, item: Item, kept: Kept, files: Any) -> None:
    """Store an order. If that fails the export has failed, and the next request may try again."""
    text = json.dumps({"export": key, "run": item["run"]}).encode()
    try:
        await files.save(f"{ORDERS}/{key}-{item['run']}.json", text, mime="application/json")
    except BaseException:
        await _withdraw(key, item, "it could not be ordered", kept)
        raise


async def _withdraw(key: str, item: Item, message: str, kept: Kept) -> None:
    """Record that an export has failed before it was ordered: the next request may try again."""
    told = finished({**item, "state": FAILED, "message": message, "beat": 0.0})
    with contextlib.suppress(Exception):
        await kept.put(key, told, replaces=item)


def finished(item: Item) -> Item:
    """Return an item that no longer counts among the unfinished ones of its caller."""
    return {name: value for name, value in item.items() if name != "queued"}


async def settled(key: str, seconds: float, kept: Kept) -> Item | None:
    """Return an export as soon as it is done or failed, or as it is after so many seconds."""
    until, pause = time.monotonic() + seconds, 0.02
    while True:
        item = await kept.get(key)
        left = until - time.monotonic()
        if item is None or item["state"] in (DONE, FAILED) or left <= 0:
            return item
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.5)


def bounds(item: Item) -> tuple[datetime, datetime]:
    """Return start and end of an export: the end is the midnight after the last day."""
    first, last = date.fromisoformat(item["from"]), date.fromisoformat(item["to"])
    return _midnight(first), _midnight(last + timedelta(days=1))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
