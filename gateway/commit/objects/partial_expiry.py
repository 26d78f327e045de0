"""Removes expired partial uploads of a bucket, and what crashes and interrupted ends left.

Gateways may do it at once: a state is marked as removed under the condition that it is as it was read.
The store refuses requests of a gateway whose clock is wrong by more than minutes (Amazon S3 API
reference, `RequestTimeTooSkewed`), so such a clock removes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.commit.objects.open_partial import PartialServices
from gateway.commit.objects.partial_locks import PartialLocks
from gateway.commit.partials import PartialBusy
from gateway.domain.model import created_at
from gateway.domain.partial import COMPLETED_TTL, MAX_PARTIAL_AGE, PARTIAL_TTL, PartialStatus
from gateway.domain.upload_fields import is_upload_id
from gateway.storage.s3.partial_objects import HOLD_CLAIM


class ObjectPartialExpiry:
    """Sweeps the partial uploads of a bucket. On the server's event loop."""

    def __init__(self, services: PartialServices, locks: PartialLocks) -> None:
        self._services = services
        self._store = services.ends.store
        self._locks = locks

    async def sweep(self, now: float) -> AsyncIterator[PartialStatus]:
        """Remove what is expired at `now` and not open; yield what was removed. Raises `Refusal`."""
        latest = ""
        async for entry in self._store.objects.list():
            name, age = entry.name, now - entry.modified
            if is_upload_id(name):
                latest = name
                if age > PARTIAL_TTL or now - created_at(name) > MAX_PARTIAL_AGE:
                    removed = await self._remove_expired(name, now)
                    if removed is not None:
                        yield removed
            elif age > COMPLETED_TTL and name.startswith("r-"):
                await self._remove_identity(name)
            elif age > PARTIAL_TTL and name.rpartition(".")[0] not in {"", latest}:
                await self._store.objects.delete(name)  # its state is gone

    async def _remove_expired(self, upload_id: str, now: float) -> PartialStatus | None:
        """Remove an upload that is expired and not open; return what it was."""
        try:
            await self._locks.acquire(upload_id)
        except PartialBusy:
            return None
        try:
            return await self._remove_locked(upload_id, now)
        finally:
            await self._locks.release(upload_id)

    async def _remove_locked(self, upload_id: str, now: float) -> PartialStatus | None:
        ends, stored = self._services.ends, await self._store.read(upload_id)
        if stored is None:
            return None
        state, head = stored.state, await self._store.head(upload_id)
        if head is None or state.removed:  # a creation or an end was interrupted
            await ends.remove(upload_id, only=stored.etag)
            return None
        status = PartialStatus(head, state.offset, state.length, state.latest)
        if state.claim is not None:
            # The gateway that claimed it finds out whether it is published, also after days.
            is_held = state.claim.startswith(HOLD_CLAIM)
            is_late = now > status.expires + MAX_PARTIAL_AGE and not is_held
            if await ends.is_published(upload_id, state.path):
                if is_late or await self._services.committer.has_settled(upload_id):
                    await ends.completed(head, staged=state.staged)
                return None
            if not is_late:
                return None
        if now < status.expires or not await ends.remove(upload_id, only=stored.etag):
            return None
        self._services.counts.remove(upload_id)
        return status

    async def _remove_identity(self, name: str) -> None:
        """Remove the name of an upload that has ended."""
        upload_id = await self._store.resolve(name.removeprefix("r-"))
        if upload_id is None or await self._store.describe(upload_id) is None:
            await self._store.objects.delete(name)
