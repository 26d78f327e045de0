"""Quotas of what is stored: reserved before a body is received, settled once it is published.

What is reserved counts as what is stored does, so that never more is stored than is allowed, however
many uploads run in however many processes. An upload whose end is not known here stays reserved; the
next start settles it (`recovery`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from gateway.commit.quotas.files import MAX_ATTEMPTS, QuotaFiles
from gateway.commit.quotas.refusals import quota_refusal
from gateway.domain.model import Stored, Upload
from gateway.domain.quotas import (
    DAY_SECONDS,
    MEASURES,
    BoundQuota,
    Measure,
    QuotaLeft,
    QuotaLimits,
    day_of,
)
from gateway.domain.units import iso_time
from gateway.errors import GatewayError
from gateway.limits.quota_operations import Exceeded, SettleResult, StoredVersion, free, reserve, settle
from gateway.limits.quota_rows import QuotaReservation, flags_of
from gateway.limits.quota_rules import owner_of
from gateway.limits.quota_sweeps import CountedKey, largest, left_of, near_limit
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.quotas")
T = TypeVar("T")

NEAR: Final = 0.8
"""The part of a limit from which on little is left."""

MAX_UNSETTLED: Final = 10_000
"""Ends that are kept in memory while they cannot be written; the next start finds the others."""


@dataclass(slots=True)
class Quotas:
    """The quotas of one process. On the server's event loop; `files` and `left_of` on any.

    `exceeded` hears of each refusal, by measure.
    """

    files: QuotaFiles
    exceeded: Callable[[str], None] = lambda _measure: None
    now: Callable[[], float] = time.time
    active: set[str] = field(default_factory=set)
    """Uploads whose end this process will write."""

    unsettled: dict[str, StoredVersion | None] = field(default_factory=dict)
    """Ends that could not be written yet: what was stored, or None."""

    def count(self, upload: Upload) -> bool:
        """Tell whether an upload may count."""
        return bool(self.files.rules.counted or upload.quotas)

    # -- on the server's event loop

    async def reserve(self, upload: Upload, size: int) -> list[QuotaLeft]:
        """Reserve `size` bytes and a file for an upload; what it has reserved before changes to that.

        Returns what is left. Raises `Refusal`: `quota_exceeded`, `too_many_requests` for bytes a day,
        `records_unavailable`; what was reserved before stays then.
        """
        outcome = await self._try_to_reserve(upload, size)
        if isinstance(outcome, Exceeded):
            self.exceeded(outcome.measure)
            raise quota_refusal(outcome, size, self.now())
        return outcome

    async def reserve_ahead(self, upload: Upload, size: int, ahead: int) -> int:
        """Reserve what has come of an upload, and `ahead` bytes more if they fit; return the sum.

        Raises as `reserve`.
        """
        if isinstance(await self._try_to_reserve(upload, size + ahead), Exceeded):
            await self.reserve(upload, size)
            return size
        return size + ahead

    async def _try_to_reserve(self, upload: Upload, size: int) -> list[QuotaLeft] | Exceeded:
        quotas, is_new = self.files.rules.of_upload(upload), upload.id not in self.active
        if not quotas and is_new:
            return []
        wanted = QuotaReservation(
            upload_id=upload.id,
            node=self.files.place.node,
            slot=self.files.place.slot,
            path=upload.path,
            shared=upload.on_conflict == "replace" and not upload.must_be_new,
            bytes=size,
            day=day_of(self.now()),
            owner=owner_of(upload.principal, upload.remote, upload.resources),
            keys=flags_of(quotas),
        )
        self.active.add(upload.id)
        try:
            outcome = await self.files.run(lambda: reserve(self.files.place.name, wanted, quotas))
        except BaseException:
            if is_new:  # it may be written although nobody waits any more
                self._write_later(upload.id, None)
            raise
        if is_new and isinstance(outcome, Exceeded):
            self.active.discard(upload.id)
        return outcome

    async def settle(self, upload: Upload, stored: Stored) -> Stored:
        """Count what an upload has stored; return it with what is left of its quotas. Never raises."""
        if stored.upload_id not in self.active:
            return stored  # no quota covers it
        version = self._version(stored)
        try:
            await self.settle_version(version)
            left = await self.left(upload)
        except Exception as error:
            self._unwritten(stored.upload_id, version, error)
            return stored
        self.active.discard(stored.upload_id)
        return stored._replace(quotas=tuple(left))

    async def left(self, upload: Upload) -> list[QuotaLeft]:
        """Return what is left of the quotas of an upload now. Raises `Refusal`."""
        quotas = [quota for quota in self.files.rules.of_upload(upload) if quota.limits.as_dict()]
        return await self.files.run(lambda: left_of(quotas, day_of(self.now())))

    async def free(self, upload_id: str) -> None:
        """Give back what an upload has reserved that is not stored. Never raises."""
        try:
            await self.files.run(partial(free, self.files.place.name, upload_id))
        except Exception as error:
            self._unwritten(upload_id, None, error)
        else:
            self.active.discard(upload_id)

    def leave(self, upload_id: str) -> None:
        """Leave an upload reserved: another request, another process or the next start ends it."""
        self.active.discard(upload_id)

    # -- ends that no request waits for

    async def publishing(self, upload: Upload, size: int) -> None:
        """See `UploadEnds.publishing`: it has to fit where it goes now. Raises as `reserve`."""
        if not self.count(upload):
            return
        self.active.add(upload.id)  # it is reserved already: a failure does not give that back
        try:
            await self.reserve(upload, size)
        finally:
            self.leave(upload.id)

    async def published(self, stored: Stored) -> None:
        """See `UploadEnds.published`."""
        version = self._version(stored)
        try:
            await self.settle_version(version)
        except Exception as error:
            self._unwritten(stored.upload_id, version, error)

    async def ended(self, upload_id: str) -> None:
        """See `UploadEnds.ended`."""
        await self.free(upload_id)

    async def write_unsettled(self) -> None:
        """Try again to write the ends that could not be written. Raises `GatewayError`."""
        for upload_id, version in list(self.unsettled.items()):
            if version is None:
                await self.files.run(partial(free, self.files.place.name, upload_id))
            else:
                await self.settle_version(version)
            self.unsettled.pop(upload_id, None)
            self.active.discard(upload_id)

    # -- reports

    async def left_of(self, key: str, limits: QuotaLimits) -> QuotaLeft:
        """Return what is left of a quota now. Raises `RecordsUnavailable`."""
        quota = BoundQuota(key, limits)
        (left,) = await self.files.store.run(lambda: left_of([quota], day_of(self.now())))
        return left

    async def report(self, limit: int) -> dict[str, Any]:
        """Return what is counted of the keys with the most stored bytes, and the most bytes of today.

        At most `limit` keys; `more` tells that there are others. Raises `Refusal`.
        """
        if not self.files.are_counted():
            return {"quotas": [], "more": False}
        keys = await self.files.run(lambda: largest(limit + 1, day_of(self.now())))
        rows = [self._reported(counted) for counted in keys[:limit]]
        return {"quotas": rows, "more": len(keys) > limit}

    def _reported(self, counted: CountedKey) -> dict[str, Any]:
        limits = self.files.rules.limits_of(counted.key)
        amounts: dict[Measure, int] = {
            "bytes": counted.bytes,
            "files": counted.files,
            "bytes_per_day": counted.bytes_today,
        }
        row: dict[str, Any] = {"quota": counted.key}
        for measure, used in amounts.items():
            limit = limits.limit(measure)
            if used or limit is not None:
                row[measure] = {"used": used, "limit": limit}
        return row

    async def near_limits(self, limit: int = 20) -> list[dict[str, Any]]:
        """Return what is used of the quotas of the settings that have little left, the worst first.

        `resets` is when bytes a day begin anew. Raises `Refusal`.
        """
        today = day_of(self.now())
        near: list[tuple[float, dict[str, Any]]] = []
        for quota in self.files.rules.counted:
            for measure in MEASURES:
                if (most := quota.limits.limit(measure)) is None:
                    continue
                least = max(math.ceil(most * NEAR), 1)
                search = partial(near_limit, quota, measure, least, today, limit)
                for key, used in await self.files.run(search):
                    row = {"rule": key, "what": measure, "used": used, "limit": most}
                    if measure == "bytes_per_day":
                        row["resets"] = iso_time((today + 1) * DAY_SECONDS)
                    near.append((used / max(most, 1), row))
        near.sort(key=lambda item: item[0], reverse=True)
        return [row for _, row in near[:limit]]

    # -- inside

    async def settle_version(self, version: StoredVersion) -> None:
        """Count a file that was published instead of its reservation. Raises `GatewayError`."""
        for _ in range(MAX_ATTEMPTS):
            current = await self.files.find(version.path)
            if (
                await self.files.run(partial(settle, self.files.place.name, version, current))
                is SettleResult.DONE
            ):
                return
        raise GatewayError(f"{version.path} is being replaced again and again")

    def _version(self, stored: Stored) -> StoredVersion:
        version = stored.upload_id if stored.identity is None else stored.identity.etag
        return StoredVersion(stored.upload_id, stored.path, version, stored.bytes)

    def _unwritten(self, upload_id: str, version: StoredVersion | None, error: Exception) -> None:
        log.warning(
            "the end of an upload is not written to its quotas yet: %s",
            error,
            extra=event("quotas.unsettled", upload_id=upload_id),
        )
        self._write_later(upload_id, version)

    def _write_later(self, upload_id: str, version: StoredVersion | None) -> None:
        if len(self.unsettled) < MAX_UNSETTLED:
            self.unsettled[upload_id] = version
