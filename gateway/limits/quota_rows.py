"""Rows of files and reservations that count for quotas, and what those of one path count together.

Bytes are counted of every file and every reservation: while a file is replaced, both bodies exist. Of
files the names are counted: uploads that will replace what a path holds are one file with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.domain.links import counts_for_ever
from gateway.domain.quotas import BoundQuota
from gateway.limits.quota_statements import Rows, Statement, Steps

STORED: Final = 1
"""A key that counts what is stored."""

DAILY: Final = 2
"""A key that counts what is uploaded on a day."""

EVER: Final = 4
"""A key that counts what is uploaded, whatever becomes of its file."""

MAX_SHARED: Final = 32
"""Reservations of one path that may count as one file: each operation reads all of them."""

_FILE: Final = "upload_id, version, bytes, owner, keys"
_RESERVATION: Final = "upload_id, node, slot, path, shared, stale, bytes, day, owner, keys"

Usage = dict[str, tuple[int, int]]
"""Bytes and files by key."""


@dataclass(slots=True, frozen=True)
class CountedFile:
    """A stored file. `version` tells it from others of its path; `upload_id` is empty if not known."""

    upload_id: str
    version: str
    bytes: int
    owner: Mapping[str, str]
    keys: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class QuotaReservation:
    """An upload on its way. `keys` has `STORED`, `DAILY`, `EVER` by key; `slot` is that of the gateway
    `node` which settles it. See `quota_statements` for `shared`, `stale` and `day`."""

    upload_id: str
    node: str
    slot: int
    path: str
    shared: bool
    bytes: int
    day: int
    owner: Mapping[str, str]
    keys: Mapping[str, int]
    stale: bool = False

    def keys_with(self, flag: int) -> list[str]:
        """Return the keys that have a flag."""
        return [key for key, flags in self.keys.items() if flags & flag]


@dataclass(slots=True, frozen=True)
class PathState:
    """What counts of one path: the stored file and the reservations that will replace it."""

    file: CountedFile | None
    shared: tuple[QuotaReservation, ...]

    def usage(self, extra: Iterable[QuotaReservation] = ()) -> Usage:
        """Return what all count, and `extra` reservations that are not shared."""
        sizes: Counter[str] = Counter()
        names: Counter[str] = Counter()
        together: set[str] = set()
        if self.file is not None:
            together |= set(self.file.keys)
            for key in self.file.keys:
                sizes[key] += self.file.bytes
        for reservation in (*self.shared, *extra):
            stored = reservation.keys_with(STORED)
            for key in stored:
                sizes[key] += reservation.bytes
            if reservation.shared:
                together |= set(stored)
            else:
                names.update(stored)
        names.update(together)
        return {key: (sizes[key], names[key]) for key in names}

    def without(self, upload_id: str) -> PathState:
        """Return the state without a reservation."""
        return replace(self, shared=tuple(r for r in self.shared if r.upload_id != upload_id))

    def having(self, reservation: QuotaReservation) -> PathState:
        """Return the state with a reservation, if it is shared."""
        rest = self.without(reservation.upload_id)
        return replace(rest, shared=(*rest.shared, reservation)) if reservation.shared else rest


def difference(before: Usage, after: Usage) -> Usage:
    """Return how much more is counted of each key."""
    changes: Usage = {}
    for key in before.keys() | after.keys():
        (size, files), (old_size, old_files) = after.get(key, (0, 0)), before.get(key, (0, 0))
        if (size, files) != (old_size, old_files):
            changes[key] = size - old_size, files - old_files
    return changes


def add_ever(changes: Usage, reservation: QuotaReservation, size: int, files: int) -> None:
    """Add bytes and files to the keys of a reservation that count for ever."""
    for key in reservation.keys_with(EVER):
        others = changes.get(key, (0, 0))
        changes[key] = others[0] + size, others[1] + files


def flags_of(quotas: Iterable[BoundQuota]) -> dict[str, int]:
    """Return what each key of some quotas counts."""
    flags: dict[str, int] = {}
    for key, limits in quotas:
        own = (STORED if limits.counts_stored else 0) | (DAILY if limits.counts_days else 0)
        own = EVER if counts_for_ever(key) else own
        flags[key] = flags.get(key, 0) | own
    return {key: own for key, own in flags.items() if own}


def to_json(value: Any) -> str:
    """Return a value as ASCII text: also half a surrogate pair of a header can be written."""
    return json.dumps(value, separators=(",", ":"))


def read_path(place: str, path: str) -> Steps[PathState]:
    """Return what counts of a path."""
    file = yield from read_file(place, path)
    rows = yield Statement(
        f"SELECT {_RESERVATION} FROM quota_reservations WHERE place = ? AND path = ? AND shared = 1",  # noqa: S608
        (place, path),
    )
    return PathState(file, tuple(map(_reservation, rows)))


def read_file(place: str, path: str) -> Steps[CountedFile | None]:
    """Return the file of a path that counts."""
    rows = yield Statement(
        f"SELECT {_FILE} FROM quota_files WHERE place = ? AND path = ?",  # noqa: S608
        (place, path),
    )
    return counted_file(rows[0]) if rows else None


def counted_file(row: tuple[Any, ...]) -> CountedFile:
    """Return a file of its columns: upload_id, version, bytes, owner, keys."""
    upload_id, version, size, owner, keys = row
    return CountedFile(upload_id, version, int(size), json.loads(owner), tuple(json.loads(keys)))


def write_file(place: str, path: str, file: CountedFile, seen: int) -> Steps[None]:
    """Write the file of a path."""
    yield Statement(
        f"INSERT INTO quota_files (place, path, {_FILE}, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
        " ON CONFLICT (place, path) DO UPDATE SET upload_id = excluded.upload_id,"
        " version = excluded.version, bytes = excluded.bytes, owner = excluded.owner,"
        " keys = excluded.keys, seen = excluded.seen",
        (
            place,
            path,
            file.upload_id,
            file.version,
            file.bytes,
            to_json(dict(file.owner)),
            to_json(list(file.keys)),
            seen,
        ),
    )


def read_reservation(upload_id: str) -> Steps[QuotaReservation | None]:
    """Return the reservation of an upload."""
    rows = yield Statement(
        f"SELECT {_RESERVATION} FROM quota_reservations WHERE upload_id = ?",  # noqa: S608
        (upload_id,),
    )
    return _reservation(rows[0]) if rows else None


def write_reservation(place: str, reservation: QuotaReservation) -> Steps[None]:
    """Write the reservation of an upload."""
    columns = "node, slot, path, shared, stale, bytes, day, owner, keys"
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns.split(", "))
    yield Statement(
        f"INSERT INTO quota_reservations (upload_id, place, {columns})"  # noqa: S608
        f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (upload_id) DO UPDATE SET {changed}",
        (
            reservation.upload_id,
            place,
            reservation.node,
            reservation.slot,
            reservation.path,
            int(reservation.shared),
            int(reservation.stale),
            reservation.bytes,
            reservation.day,
            to_json(dict(reservation.owner)),
            to_json(dict(reservation.keys)),
        ),
    )


def delete_reservation(upload_id: str) -> Steps[None]:
    """Delete the reservation of an upload."""
    yield Statement("DELETE FROM quota_reservations WHERE upload_id = ?", (upload_id,))


def mark_stale(place: str, path: str) -> Steps[None]:
    """Note for the uploads of a path that what it holds has changed."""
    yield Statement(
        "UPDATE quota_reservations SET stale = 1 WHERE place = ? AND path = ? AND stale = 0",
        (place, path),
    )


def reservations_of(rows: Rows) -> list[QuotaReservation]:
    """Return reservations of their rows."""
    return [_reservation(row) for row in rows]


def _reservation(row: tuple[Any, ...]) -> QuotaReservation:
    upload_id, node, slot, path, shared, stale, size, day, owner, keys = row
    return QuotaReservation(
        upload_id,
        node,
        int(slot),
        path,
        bool(shared),
        int(size),
        int(day),
        json.loads(owner),
        json.loads(keys),
        bool(stale),
    )
