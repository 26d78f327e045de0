"""Files that count for quotas: looked at, removed, moved, and counted anew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from gateway.domain.quotas import SCRIPT_PREFIX, BoundQuota
from gateway.errors import RecordsUnavailable, Refusal
from gateway.limits.quota_operations import PresentFile, SettleResult, replace_file
from gateway.limits.quota_rows import CountedFile, read_file
from gateway.limits.quota_rules import QuotaRules
from gateway.limits.quota_statements import Operation, Steps
from gateway.storage.protocols import Storage
from gateway.storage.s3.encoding import UPLOAD_ID_NAME
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.quotas")
T = TypeVar("T")

STORE_TIMEOUT: Final = 15.0
"""Seconds that a request waits for one operation."""

MAX_ATTEMPTS: Final = 8
"""Looks at a path that others change at the same time, before it is left to the next scan."""


class RunOperations(Protocol):
    """Where quotas are counted: `records.quota_store.QuotaStore`."""

    async def run(self, operation: Operation[T]) -> T:
        """Return the result of an operation that is committed. Raises `RecordsUnavailable`."""

    def exists(self) -> bool:
        """Tell whether anything has ever been counted."""


@dataclass(slots=True, frozen=True)
class QuotaPlace:
    """Where the files are that count, and which process of which gateway counts them.

    `name` is the same for all gateways that store into the same place; `in_bucket`: that is a bucket.
    """

    name: str
    node: str
    slot: int
    in_bucket: bool = False


@dataclass(slots=True, frozen=True)
class QuotaFiles:
    """The files of a place. May be called from any event loop."""

    rules: QuotaRules
    store: RunOperations
    place: QuotaPlace
    storage: Storage

    def are_counted(self) -> bool:
        """Tell whether any file may count."""
        return bool(self.rules.counted) or self.store.exists()

    async def run(self, operation: Callable[[], Steps[T]]) -> T:
        """Return the result of an operation. Raises `Refusal("records_unavailable")`."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                return await self.store.run(operation)
        except (RecordsUnavailable, TimeoutError) as error:
            message = "what is left of the quotas is not known now: try again later"
            raise Refusal("records_unavailable", message) from error

    async def removed(self, path: str) -> None:
        """Give back what the file of a path counted for, if nothing is there any more. Never raises."""
        if not self.are_counted():
            return
        try:
            await self.recount(path)
        except Exception as error:  # the next scan finds it
            log.warning(
                "the quotas of a removed file are not up to date: %s",
                error,
                extra=event("quotas.unsettled", path=path),
            )

    async def recount(self, path: str) -> bool:
        """Let a path count for what it holds now; tell whether that has changed what is counted.

        A file that no upload of this gateway has stored counts for prefixes only. Raises `GatewayError`.
        """
        for _ in range(MAX_ATTEMPTS):
            before = await self.run(partial(read_file, self.place.name, path))
            current = await self.find(path)
            after = self._counted(path, before, current)
            if before == after:
                return False
            change = partial(replace_file, self.place.name, path, before, after)
            if await self.run(change) is SettleResult.DONE:
                return True
        return False

    async def moved(self, source: str, target: str) -> None:
        """Let a file that was renamed count at its new path, for whom it counted. Never raises."""
        if not self.are_counted():
            return
        try:
            file = await self.run(partial(read_file, self.place.name, source))
            if file is not None:
                await self._move(file, target)
        except Exception as error:
            log.warning(
                "the quotas of a moved file are not up to date: %s",
                error,
                extra=event("quotas.unsettled", path=target),
            )
        await self.removed(source)
        await self.removed(target)

    async def _move(self, file: CountedFile, target: str) -> None:
        quotas = self.rules.of_file(file.owner, target)
        moved = CountedFile(file.upload_id, file.version, file.bytes, file.owner, stored_keys(quotas))
        for _ in range(MAX_ATTEMPTS):
            before = await self.run(partial(read_file, self.place.name, target))
            change = partial(replace_file, self.place.name, target, before, moved)
            if await self.run(change) is SettleResult.DONE:
                return

    def _counted(
        self, path: str, before: CountedFile | None, current: PresentFile | None
    ) -> CountedFile | None:
        """Return how a path counts that holds `current`, and counted as `before`."""
        if current is None:
            return None
        owner: Mapping[str, str] = {}
        upload_id = ""
        if before is not None and before.version == current.version:
            owner, upload_id = before.owner, before.upload_id
        keys = stored_keys(self.rules.of_file(owner, path))
        if before is not None and before.version == current.version:
            kept = [key for key in before.keys if key not in keys and key.startswith(SCRIPT_PREFIX)]
            keys = (*keys, *kept)
        return CountedFile(upload_id, current.version, current.bytes, owner, keys) if keys else None

    async def find(self, path: str) -> PresentFile | None:
        """Return what a path holds now. Raises `Refusal` where the storage is unavailable."""
        try:
            stat = await self.storage.stat(path)
        except Refusal as refusal:
            if refusal.code in {"not_found", "bad_path", "forbidden", "conflict"}:
                return None
            raise
        version = stat.etag
        if self.place.in_bucket:
            version = stat.metadata.get(UPLOAD_ID_NAME) or version
        return PresentFile(version, stat.bytes)


def stored_keys(quotas: Sequence[BoundQuota]) -> tuple[str, ...]:
    """Return the keys of quotas that count what is stored."""
    return tuple(dict.fromkeys(quota.key for quota in quotas if quota.limits.counts_stored))
