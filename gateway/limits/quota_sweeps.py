"""Operations on the tables of quotas that run in the background, a bounded piece each; and reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.domain.quotas import BoundQuota, Measure, Quota, QuotaLeft
from gateway.limits.quota_rows import CountedFile, QuotaReservation, counted_file, reservations_of
from gateway.limits.quota_statements import Statement, Steps, read_day, read_usage

PAGE: Final = 200
"""Rows of one operation: a few milliseconds."""

DAYS_PAGE: Final = 1000
"""Counters of days that one operation deletes."""

MAX_DAY_ROWS: Final = 500_000
"""Counters of bytes a day, some 50 MB. Of more the smallest go, the oldest days first."""

_RESERVATION: Final = "upload_id, node, slot, path, shared, stale, bytes, day, owner, keys"


class PlacedFile(NamedTuple):
    """A file that counts, and its path."""

    path: str
    file: CountedFile


class FilesPage(NamedTuple):
    """Those of some files that were not seen; `reached` is the last path of all, None at the end."""

    unseen: list[PlacedFile]
    reached: str | None


def files_page(place: str, after: str, seen_before: int) -> Steps[FilesPage]:
    """Read the next `PAGE` files by path; return those that no scan from `seen_before` on has seen."""
    rows = yield Statement(
        "SELECT path, seen, upload_id, version, bytes, owner, keys FROM quota_files"
        " WHERE place = ? AND path > ? ORDER BY path LIMIT ?",
        (place, after, PAGE),
    )
    unseen = [PlacedFile(row[0], counted_file(row[2:])) for row in rows if int(row[1]) < seen_before]
    return FilesPage(unseen, rows[-1][0] if rows else None)


def see_files(place: str, files: Sequence[tuple[str, int]], seen: int) -> Steps[list[str]]:
    """Mark the files of these paths and sizes as seen; return the paths of those that differ."""
    unknown: list[str] = []
    for path, size in files:
        rows = yield Statement(
            "SELECT bytes FROM quota_files WHERE place = ? AND path = ?", (place, path)
        )
        if not rows or int(rows[0][0]) != size:
            unknown.append(path)
            continue
        yield Statement(
            "UPDATE quota_files SET seen = ? WHERE place = ? AND path = ?", (seen, place, path)
        )
    return unknown


def reservations_page(node: str, slot: int, after: str) -> Steps[list[QuotaReservation]]:
    """Return the next reservations of a slot, in the order of their uploads."""
    rows = yield Statement(
        f"SELECT {_RESERVATION} FROM quota_reservations"  # noqa: S608
        " WHERE node = ? AND slot = ? AND upload_id > ? ORDER BY upload_id LIMIT ?",
        (node, slot, after, PAGE),
    )
    return reservations_of(rows)


def take_over_slots(node: str, count: int) -> Steps[None]:
    """Give the reservations of slots from `count` on to slot 0, which has their journals."""
    yield Statement("UPDATE quota_reservations SET slot = 0 WHERE node = ? AND slot >= ?", (node, count))


def take_over_upload(upload_id: str, node: str, slot: int) -> Steps[None]:
    """Let a slot settle an upload: it is about to commit it."""
    yield Statement(
        "UPDATE quota_reservations SET node = ?, slot = ? WHERE upload_id = ?", (node, slot, upload_id)
    )


def read_fact(name: str) -> Steps[str | None]:
    """Return a small fact."""
    rows = yield Statement("SELECT value FROM quota_facts WHERE name = ?", (name,))
    return str(rows[0][0]) if rows else None


def write_fact(name: str, value: str) -> Steps[None]:
    """Write a small fact."""
    yield Statement(
        "INSERT INTO quota_facts (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def prune_days(before: int) -> Steps[bool]:
    """Delete some counters of earlier days, or the smallest of too many; tell whether there are more."""
    (row,) = yield Statement("SELECT count(*) FROM quota_days")
    too_many = max(int(row[0]) - MAX_DAY_ROWS, 0)
    rows = yield Statement("SELECT key, day FROM quota_days ORDER BY day, bytes LIMIT ?", (DAYS_PAGE,))
    ended = sum(int(day) < before for _, day in rows)
    count = min(max(ended, too_many), DAYS_PAGE)
    for key, day in rows[:count]:
        yield Statement("DELETE FROM quota_days WHERE key = ? AND day = ?", (key, day))
    return count == DAYS_PAGE


def left_of(quotas: Sequence[BoundQuota], day: int) -> Steps[list[QuotaLeft]]:
    """Return what is left of quotas now."""
    result: list[QuotaLeft] = []
    for quota in quotas:
        used: dict[Measure, int] = {}
        if quota.limits.counts_stored:
            used["bytes"], used["files"] = yield from read_usage(quota.key)
        if quota.limits.counts_days:
            used["bytes_per_day"] = yield from read_day(quota.key, day)
        result.append(QuotaLeft(quota, used))
    return result


def usage_of(keys: Sequence[str]) -> Steps[dict[str, tuple[int, int]]]:
    """Return the bytes and the files that are counted of some keys."""
    used: dict[str, tuple[int, int]] = {}
    for key in keys:
        used[key] = yield from read_usage(key)
    return used


class CountedKey(NamedTuple):
    """What is counted of a key: stored bytes and files, and the bytes of a day."""

    key: str
    bytes: int
    files: int
    bytes_today: int


def largest(limit: int, day: int) -> Steps[list[CountedKey]]:
    """Return the keys with the most stored bytes, and those with the most bytes of a day."""
    stored = yield Statement(
        "SELECT key, bytes, files FROM quota_usage ORDER BY bytes DESC, key LIMIT ?", (limit,)
    )
    today = yield Statement(
        "SELECT key, bytes FROM quota_days WHERE day = ? ORDER BY bytes DESC LIMIT ?", (day, limit)
    )
    keys = dict.fromkeys([row[0] for row in (*stored, *today)])
    result = []
    for key in keys:
        size, files = yield from read_usage(key)
        on_day = yield from read_day(key, day)
        result.append(CountedKey(key, size, files, on_day))
    return result


_NEAR: Final = {
    "bytes": "SELECT key, bytes FROM quota_usage WHERE bytes >= ? AND key >= ? AND key < ?"
    " ORDER BY bytes DESC LIMIT ?",
    "files": "SELECT key, files FROM quota_usage WHERE files >= ? AND key >= ? AND key < ?"
    " ORDER BY files DESC LIMIT ?",
    "bytes_per_day": "SELECT key, bytes FROM quota_days WHERE bytes >= ? AND key >= ? AND key < ?"
    " AND day = ? ORDER BY bytes DESC LIMIT ?",
}


def near_limit(
    quota: Quota, measure: Measure, least: int, day: int, limit: int
) -> Steps[list[tuple[str, int]]]:
    """Return keys of a quota that use at least so much, the most first, and how much."""
    # Keys of a scope with `per` have a blank behind it, and `!` comes next to that.
    first = f"{quota.scope} " if quota.per else quota.scope
    behind = f"{quota.scope}!" if quota.per else f"{quota.scope} "
    days = (day,) if measure == "bytes_per_day" else ()
    rows = yield Statement(_NEAR[measure], (least, first, behind, *days, limit))
    return [(key, int(used)) for key, used in rows]


def count_request(key: str, limit: int, seconds: float) -> Steps[tuple[int, float]]:
    """Count a request; return the count in its window, and the seconds left of that.

    For PostgreSQL: its clock is the same for all nodes. A clock that was set back leaves no window
    longer than `seconds`. A count stops above its limit.
    """
    rows = yield Statement(
        "INSERT INTO quota_requests AS r (key, requests, ends)"
        " VALUES (?, 1, extract(epoch FROM clock_timestamp())::float8 + ?::float8)"
        " ON CONFLICT (key) DO UPDATE SET"
        " requests = CASE WHEN r.ends <= excluded.ends - ?::float8 OR r.ends > excluded.ends"
        " THEN 1 ELSE least(r.requests + 1, ?) END,"
        " ends = CASE WHEN r.ends <= excluded.ends - ?::float8 OR r.ends > excluded.ends"
        " THEN excluded.ends ELSE r.ends END"
        " RETURNING requests, ends - extract(epoch FROM clock_timestamp())::float8",
        (key, seconds, seconds, limit + 1, seconds),
    )
    return int(rows[0][0]), max(float(rows[0][1]), 0.0)


def prune_requests() -> Steps[None]:
    """Delete windows of requests that have ended (PostgreSQL)."""
    yield Statement(
        "DELETE FROM quota_requests WHERE ends < extract(epoch FROM clock_timestamp())::float8"
    )
