"""What uploads do with their quotas: reserve, settle, free; and what happens to files that count.

Each operation is one transaction, see `quota_statements`. None of them may be applied twice with
another effect: after a crash they are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from gateway.domain.quotas import BoundQuota, Measure, QuotaLeft
from gateway.limits.quota_rows import (
    DAILY,
    MAX_SHARED,
    STORED,
    CountedFile,
    PathState,
    QuotaReservation,
    Usage,
    add_ever,
    delete_reservation,
    difference,
    mark_stale,
    read_path,
    read_reservation,
    write_file,
    write_reservation,
)
from gateway.limits.quota_statements import (
    Lock,
    Statement,
    Steps,
    add_to_day,
    add_usage,
    read_day,
    read_usage,
)


class PresentFile(NamedTuple):
    """What a path holds now: which version, of how many bytes."""

    version: str
    bytes: int


class Exceeded(NamedTuple):
    """A quota that an upload does not fit into: nothing was changed. `used` is without this upload."""

    quota: BoundQuota
    measure: Measure
    used: int


class SettleResult(Enum):
    """What the caller of an operation does next."""

    RETRY = "retry"
    """Find out again what the path holds, and repeat: it may have changed since."""

    DONE = "done"


@dataclass(slots=True, frozen=True)
class StoredVersion:
    """An upload that was published: its path, the version and the size of its file."""

    upload_id: str
    path: str
    version: str
    bytes: int


NO_FILES: Final = PathState(None, ())


def reserve(
    place: str, wanted: QuotaReservation, quotas: Sequence[BoundQuota]
) -> Steps[list[QuotaLeft] | Exceeded]:
    """Reserve what an upload needs, or what it needs now: one that it has already changes.

    What is reserved already counts; only what grows has to fit.
    """
    before = yield from read_reservation(wanted.upload_id)
    if before is not None:
        wanted = replace(wanted, day=before.day)  # an upload counts for the day on which it began
    paths = {wanted.path} if before is None else {wanted.path, before.path}
    yield Lock([f"{place} {path}" for path in paths])
    states: dict[str, PathState] = {}
    for path in paths:
        states[path] = yield from read_path(place, path)
    others = states[wanted.path].without(wanted.upload_id).shared
    wanted = replace(wanted, shared=wanted.shared and len(others) < MAX_SHARED, stale=False)
    changes = _moved(states, before, wanted)
    keys = set(wanted.keys) | set(before.keys if before is not None else ())
    yield Lock(sorted(keys | changes.keys()))
    days = _day_changes(before, wanted)
    left: list[QuotaLeft] = []
    for quota in quotas:
        outcome = yield from _fit(
            quota, changes.get(quota.key, (0, 0)), days.get(quota.key, 0), wanted.day
        )
        if isinstance(outcome, Exceeded):
            return outcome
        left.append(outcome)
    yield from add_usage(changes)
    if before is not None:
        yield from add_to_day(before.keys_with(DAILY), before.day, -before.bytes)
    yield from add_to_day(wanted.keys_with(DAILY), wanted.day, wanted.bytes)
    yield from write_reservation(place, wanted)
    return left


def _moved(
    states: dict[str, PathState], before: QuotaReservation | None, after: QuotaReservation
) -> Usage:
    """Return how much more is counted once a reservation has changed."""
    changes: Usage = {}
    for path, state in states.items():
        old = [before] if before is not None and before.path == path and not before.shared else []
        new = [after] if after.path == path and not after.shared else []
        rest = state.without(after.upload_id)
        changed = rest.having(after) if after.path == path else rest
        for key, (size, files) in difference(state.usage(old), changed.usage(new)).items():
            others = changes.get(key, (0, 0))
            changes[key] = others[0] + size, others[1] + files
    if before is not None:
        add_ever(changes, before, -before.bytes, -1)
    add_ever(changes, after, after.bytes, 1)
    return changes


def _day_changes(before: QuotaReservation | None, after: QuotaReservation) -> dict[str, int]:
    """Return how much more is counted on the day of a reservation once it has changed."""
    changes = dict.fromkeys(after.keys_with(DAILY), after.bytes)
    if before is not None:
        for key in before.keys_with(DAILY):
            changes[key] = changes.get(key, 0) - before.bytes
    return changes


def _fit(
    quota: BoundQuota, more: tuple[int, int], more_on_day: int, day: int
) -> Steps[QuotaLeft | Exceeded]:
    """Tell what a quota has left after a change, or that the change does not fit."""
    used: dict[Measure, int] = {}
    increases: dict[Measure, int] = {}
    if quota.limits.counts_stored:
        used["bytes"], used["files"] = yield from read_usage(quota.key)
        increases["bytes"], increases["files"] = more
    if quota.limits.counts_days:
        used["bytes_per_day"] = yield from read_day(quota.key, day)
        increases["bytes_per_day"] = more_on_day
    for measure, increase in increases.items():
        limit = quota.limits.limit(measure)
        if limit is not None and increase > 0 and used[measure] + increase > limit:
            return Exceeded(quota, measure, used[measure])
        used[measure] += increase
    return QuotaLeft(quota, used)


def settle(place: str, stored: StoredVersion, current: PresentFile | None) -> Steps[SettleResult]:
    """Count the file of an upload that was published instead of its reservation.

    `current` is what its path holds. Where that is another version the file has been replaced or removed
    since, and counts no more.
    """
    reservation = yield from read_reservation(stored.upload_id)
    if reservation is None:
        return SettleResult.DONE
    if reservation.path != stored.path:
        wanted = replace(reservation, path=stored.path, shared=False)
        yield from reserve(place, wanted, ())
        return SettleResult.RETRY
    yield Lock([f"{place} {stored.path}"])
    state = yield from read_path(place, stored.path)
    reservation = yield from read_reservation(stored.upload_id)
    if reservation is None:
        return SettleResult.DONE
    if reservation.stale:
        yield from write_reservation(place, replace(reservation, stale=False))
        return SettleResult.RETRY
    after = state.without(stored.upload_id)
    if current is not None and current.version == stored.version:
        keys = tuple(reservation.keys_with(STORED))
        file = CountedFile(stored.upload_id, stored.version, stored.bytes, reservation.owner, keys)
        after = replace(after, file=file)
        yield from write_file(place, stored.path, file, 0)
    private = [] if reservation.shared else [reservation]
    changes = difference(state.usage(private), after.usage())
    add_ever(changes, reservation, stored.bytes - reservation.bytes, 0)
    yield from _change(changes)
    yield from add_to_day(
        reservation.keys_with(DAILY), reservation.day, stored.bytes - reservation.bytes
    )
    yield from delete_reservation(stored.upload_id)
    yield from mark_stale(place, stored.path)
    return SettleResult.DONE


def free(place: str, upload_id: str, holder: tuple[str, int] | None = None) -> Steps[None]:
    """Give back what an upload has reserved that is not stored. A second call does nothing.

    With `holder`, a node and its slot, only if it is this one's to settle.
    """
    reservation = yield from read_reservation(upload_id)
    if reservation is None:
        return
    yield Lock([f"{place} {reservation.path}"])
    state = yield from read_path(place, reservation.path)
    reservation = yield from read_reservation(upload_id)
    if reservation is None or holder not in {None, (reservation.node, reservation.slot)}:
        return
    private = [] if reservation.shared else [reservation]
    changes = difference(state.usage(private), state.without(upload_id).usage())
    add_ever(changes, reservation, -reservation.bytes, -1)
    yield from _change(changes)
    yield from add_to_day(reservation.keys_with(DAILY), reservation.day, -reservation.bytes)
    yield from delete_reservation(upload_id)


def replace_file(
    place: str, path: str, before: CountedFile | None, after: CountedFile | None, seen: int = 0
) -> Steps[SettleResult]:
    """Let a path count for another file than the one that was read before, or for none.

    A file that nobody has counted yet is left to the upload that is on its way there, if there is one.
    """
    yield Lock([f"{place} {path}"])
    state = yield from read_path(place, path)
    if state.file != before:
        return SettleResult.RETRY
    if after is not None and state.shared and (before is None or before.version != after.version):
        return SettleResult.DONE
    changed = replace(state, file=after)
    yield from _change(difference(state.usage(), changed.usage()))
    if after is None:
        yield Statement("DELETE FROM quota_files WHERE place = ? AND path = ?", (place, path))
    else:
        yield from write_file(place, path, after, seen)
    if before is None or after is None or before.version != after.version:
        yield from mark_stale(place, path)
    return SettleResult.DONE


def _change(changes: Usage) -> Steps[None]:
    yield Lock(sorted(changes))
    yield from add_usage(changes)
