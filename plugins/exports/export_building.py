"""Plugin exports: builds an ordered export, ends it as done or failed, and sweeps what has expired.

An order may come twice and its builder may be killed at any moment. The builder that holds the record
builds, and stops when another one has taken it over. A file is removed when it is older than the config
allows, whatever the records say.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import IO, Any, Final

from export_asking import (
    BUILDING,
    DONE,
    FAILED,
    FOLDER,
    ORDERS,
    WAITING,
    Item,
    Kept,
    Rules,
    bounds,
    finished,
    revive,
)
from export_files import PIECE, Spool

LEASE: Final = 30.0
"""Seconds without a heartbeat after which another builder may take over."""

BEAT: Final = 1.0
PAGE: Final = 250
SWEEP_PAGE: Final = 200

_ORDER: Final = re.compile(re.escape(f"{ORDERS}/") + r"([0-9a-f]{40})-(\d{1,9})\.json")


class Lost(Exception):
    """Another builder has taken the export over."""


class TooMany(Exception):
    """More records than an export may have."""


async def build(
    event: Mapping[str, Any], last: bool, rules: Rules, kept: Kept, source: Any, files: Any, logger: Any
) -> None:
    """Build the export of an order; `last`: there is no further attempt. Raises what went wrong."""
    found = _ORDER.fullmatch(event["path"] or "")
    if found is None:
        return
    job = await _claim(found[1], int(found[2]), event["id"], kept)
    if job is not None:
        try:
            await _make(job, rules, source, files)
            logger.info("export %s is done: %d records", found[1], job.item["records"])
        except Lost:
            logger.info("export %s was taken over by another builder", found[1])
        except TooMany as fault:
            await job.tell(state=FAILED, message=str(fault))
        except Exception as fault:
            if last:
                logger.error("export %s has failed: %s", found[1], type(fault).__name__)
                await job.tell(state=FAILED, message="it could not be built; the log has details")
            raise
    with contextlib.suppress(Exception):  # what stays is swept with the exports
        await files.delete(event["path"])


class Job:
    """An export that is ours to build."""

    def __init__(self, key: str, item: Item, kept: Kept) -> None:
        self.key = key
        self.item = item
        self._kept = kept

    async def tell(self, **news: Any) -> None:
        """Record changes. Raises `Lost` if another builder has the export."""
        changed = {**self.item, **news, "beat": time.time()}
        if changed["state"] in (DONE, FAILED):
            changed = finished(changed)
        if not await self._kept.put(self.key, changed, replaces=self.item):
            raise Lost
        self.item = changed

    async def beat(self, **news: Any) -> None:
        """Record a heartbeat, once a second at most."""
        if time.time() >= self.item["beat"] + BEAT:
            await self.tell(**news)


async def _claim(key: str, run: int, event_id: str, kept: Kept) -> Job | None:
    """Take an export over. None: it is not wanted any more, or another builder works on it."""
    item = await kept.get(key)
    if item is None or item["run"] != run or item["state"] in (DONE, FAILED):
        return None
    ours = item.get("by", event_id) == event_id
    if item["state"] == BUILDING and not ours and time.time() < item["beat"] + LEASE:
        return None
    job = Job(key, item, kept)
    try:
        await job.tell(state=BUILDING, by=event_id, records=0, percent=0)
    except Lost:
        return None
    return job


async def _make(job: Job, rules: Rules, source: Any, files: Any) -> None:
    item = job.item
    name = f"{rules.collection}_{item['from']}_{item['to']}"
    path = f"{FOLDER}/{item['caller']}/{name}_{job.key[:12]}-{item['run']}.zip"
    spool = Spool()
    try:
        async for items, percent in _pages(item, rules, source):
            await asyncio.to_thread(spool.add, items)
            if spool.count > rules.max_records:
                raise TooMany(f"there are more than {rules.max_records} records: ask for fewer days")
            await job.beat(records=spool.count, percent=percent)
        made = await asyncio.to_thread(spool.zipped, name)
        await job.tell(records=spool.count, percent=99)
        stored = await files.save(path, _pieces(made, job), mime="application/zip")
    finally:
        await asyncio.to_thread(spool.close)
    await job.tell(
        state=DONE,
        percent=100,
        path=path,
        bytes=stored.bytes,
        finished=time.time(),
        filename=f"{name}.zip",
    )


async def _pages(item: Item, rules: Rules, source: Any) -> AsyncIterator[tuple[list[Item], int]]:
    """Yield the records of the range page by page, and the percentage done."""
    start, end = bounds(item)
    length = (end - start).total_seconds()
    for since, until in _ranges(item):
        cursor = None
        while True:
            page = await source.query(
                index=rules.field, since=since, until=until, limit=PAGE, cursor=cursor
            )
            found = [one for one in page.items if _is_his(one, item, rules)]
            at = _seconds(page.items[-1][rules.field], start) if page.items else 0.0
            yield found, max(0, min(98, int(98 * at / length)))
            cursor = page.cursor
            if cursor is None:
                break


def _ranges(item: Item) -> Iterator[tuple[float, float] | tuple[str, str]]:
    """The range as Unix seconds, and as ISO text in UTC: a field may hold either."""
    start, end = bounds(item)
    yield start.timestamp(), end.timestamp()
    yield start.date().isoformat(), end.date().isoformat()


def _is_his(one: Item, item: Item, rules: Rules) -> bool:
    """Owners with one name, one of a token and one of an issuer, are different owners."""
    named = rules.owner_field is None or one.get(rules.owner_field) == item["name"]
    known = rules.owner_kind_field is None or one.get(rules.owner_kind_field) == item["kind"]
    return named and known


def _seconds(value: float | str, start: Any) -> float:
    """Return how many seconds after the start a record lies, 0 if unknown."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float((type(start).fromisoformat(value[:10]).date() - start.date()).days * 86400)
        return 0.0
    return value - float(start.timestamp())


async def _pieces(made: IO[bytes], job: Job) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(made.read, PIECE):
        yield piece
        await job.beat()


async def sweep(rules: Rules, kept: Any, files: Any, logger: Any) -> None:
    """Remove what has expired, order stalled exports again, and log both."""
    for folder, seconds in rules.folders.items():
        removed = await files.expire(folder, seconds)
        logger.info("%d files removed from %s, older than %g s", removed, folder, seconds)
    forgotten = await _forget(time.time() - rules.kept_for, kept)
    revived = await _revive(rules, kept, files)
    logger.info("exports: %d records forgotten, %d ordered again", forgotten, revived)


async def _forget(before: float, kept: Any) -> int:
    count = 0
    while items := (await kept.query(index="beat", until=before, limit=SWEEP_PAGE)).items:
        for item in items:
            await kept.delete(item["key"])
            count += 1
    return count


async def _revive(rules: Rules, kept: Any, files: Any) -> int:
    count = 0
    for state in (WAITING, BUILDING):
        cursor = None
        while True:
            page = await kept.query(index="state", equals=state, limit=SWEEP_PAGE, cursor=cursor)
            for item in page.items:
                count += (await revive(item, rules, kept, files))["run"] != item["run"]
            cursor = page.cursor
            if cursor is None:
                break
    return count
