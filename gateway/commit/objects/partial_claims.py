"""Claims of partial uploads in a bucket: which commit may publish one, or which gateway holds it.

A claim stands in the state of the upload. While it does, no request opens the upload: who has claimed it
publishes it, holds it, or withdraws the claim, also after a crash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from gateway.commit.objects.open_partial import PartialServices
from gateway.commit.objects.partial_locks import PartialLocks
from gateway.domain.partial import PartialHead
from gateway.errors import GatewayError
from gateway.storage.s3.partial_body import PartialBody
from gateway.storage.s3.partial_objects import StoredState


class PartialClaims:
    """Settles claims after a crash: for the reconciler of commits, and for held uploads.

    `body_of` returns the body of a stored state.
    """

    def __init__(
        self,
        services: PartialServices,
        locks: PartialLocks,
        body_of: Callable[[PartialHead, StoredState], PartialBody],
    ) -> None:
        self._ends = services.ends
        self._store = services.ends.store
        self._counts = services.counts
        self._locks = locks
        self._body_of = body_of

    async def has_claim(self, upload_id: str, claim: str) -> bool:
        """See `ClaimedUploads.has_claim`."""
        state = await self._store.describe(upload_id)
        return state is not None and state.claim == claim

    async def end_claimed(self, upload_id: str) -> None:
        """See `ClaimedUploads.end_claimed`."""
        with contextlib.suppress(GatewayError):  # else a sweep ends it
            head, state = await self._store.head(upload_id), await self._store.describe(upload_id)
            if head is not None and state is not None:
                await self._ends.completed(head, staged=state.staged)

    async def withdraw_claim(self, upload_id: str, claim: str) -> None:
        """See `ClaimedUploads.withdraw_claim`, `HoldClaims.withdraw_claim`."""
        await self._locks.acquire(upload_id)
        try:
            head, stored = await self._store.head(upload_id), await self._store.read(upload_id)
            if head is None or stored is None or stored.state.claim != claim:
                return
            body = self._body_of(head, stored)
            try:
                await body.load(stored.state.writer)
                await body.withdraw()
            finally:
                await body.close()
        finally:
            await self._locks.release(upload_id)

    async def end_held(self, upload_id: str) -> None:
        """See `HoldClaims.end_held`."""
        if (head := await self._store.head(upload_id)) is not None:
            await self._ends.end(head)
        else:  # its head is gone already
            await self._store.delete(upload_id)
        self._counts.remove(upload_id)
