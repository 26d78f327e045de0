"""Removes private objects of uploads that have ended.

An object goes where its row in this journal says that nothing needs it: no held upload, no publishing
that is not settled, no request of this process. Objects without a row here are those of other processes
and gateways, each with a journal of its own, or of partial uploads: they are never touched. So no age
and no clock counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from gateway.errors import GatewayError, Refusal
from gateway.events.private_objects import PrivateObjectLog
from gateway.storage.s3.private_objects import PrivateObjects
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

MAX_REMOVALS: Final = 32
"""Private objects that are removed at once."""

MAX_WAITING: Final = 10_000
"""Ended uploads whose private objects wait to be removed; a sweep finds others."""

SWEEP_INTERVAL: Final = 3600.0
RETRY_INTERVAL: Final = 30.0
"""Seconds to the next sweep where S3 or the journal was unavailable."""


class HoldClaims(Protocol):
    """Partial uploads that are about to become held uploads, or have become some."""

    async def end_held(self, upload_id: str) -> None:
        """Remove what is left of a partial upload that is held, but for its private object.

        Raises `GatewayError`.
        """

    async def withdraw_claim(self, upload_id: str, claim: str) -> None:
        """Let a partial upload go on that was not held, if it has this claim. Raises `GatewayError`."""


class PrivateObjectEnds:
    """Removes what has ended, at once and by sweeps. On the server's event loop.

    `is_in_use` tells whether an upload is on its way, or being settled, in this process.
    """

    def __init__(
        self,
        private: PrivateObjects,
        bucket: str,
        rows: PrivateObjectLog,
        is_in_use: Callable[[str], bool],
    ) -> None:
        self.claims: HoldClaims | None = None
        self._private = private
        self._bucket = bucket
        self._rows = rows
        self._is_in_use = is_in_use
        self._busy: set[str] = set()
        self._slots = asyncio.Semaphore(MAX_REMOVALS)
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    @contextlib.contextmanager
    def in_use(self, upload_id: str) -> Iterator[None]:
        """Keep the object of an upload."""
        self._busy.add(upload_id)
        try:
            yield
        finally:
            self._busy.discard(upload_id)

    def ended(self, upload_id: str) -> None:
        """Remove the object of an upload in the background, if nothing needs it."""
        if upload_id in self._removals:
            self._again.add(upload_id)
        elif len(self._removals) < MAX_WAITING:
            task = asyncio.create_task(self.settle_now(upload_id))
            self._removals[upload_id] = task
            task.add_done_callback(lambda _: self._removed(upload_id))

    def _removed(self, upload_id: str) -> None:
        del self._removals[upload_id]
        if upload_id in self._again:
            self._again.discard(upload_id)
            self.ended(upload_id)

    async def settle_now(self, upload_id: str) -> None:
        """Remove the object of an upload, if nothing needs it. Where that fails a sweep does it."""
        async with self._slots:
            try:
                await self._settle(upload_id)
            except (GatewayError, sqlite3.Error) as error:
                log.warning(
                    "the private object of upload %s could not be removed, a sweep will do it: %s",
                    upload_id,
                    error,
                    extra=event("private_object.left", upload_id=upload_id),
                )

    async def remove(self, upload_id: str) -> None:
        """Remove the object of a held upload that is decided. Raises `GatewayError`, `sqlite3.Error`."""
        if not await self._settle(upload_id):
            raise Refusal("storage_unavailable", "this upload is still in use: try again")

    async def end_claim(self, upload_id: str) -> None:
        """Remove what is left of the partial upload that became this held one, before that one goes.

        Raises `GatewayError`, `sqlite3.Error`.
        """
        row = await asyncio.wrap_future(self._rows.find(upload_id))
        if row is not None and row.claim is not None and self.claims is not None:
            await self.claims.end_held(upload_id)
            await asyncio.wrap_future(self._rows.end_claim(upload_id))

    async def forget(self, upload_id: str) -> None:
        """Answer no longer for an object that is a partial upload's. Raises `sqlite3.Error`."""
        await asyncio.wrap_future(self._rows.remove(upload_id))

    async def _settle(self, upload_id: str) -> bool:
        """Remove an object that nothing needs; False where its upload is in use here.

        Raises `GatewayError`, `sqlite3.Error`.
        """
        if upload_id in self._busy or self._is_in_use(upload_id):
            return False
        # Read after that: of an upload that has ended meanwhile it tells the end.
        row = await asyncio.wrap_future(self._rows.find(upload_id))
        if row is None or row.bucket != self._bucket:
            return True
        if row.claim is not None and not row.was_held:
            # It did not become a held upload: the object is that of the partial upload, which goes on.
            if self.claims is not None:
                await self.claims.withdraw_claim(upload_id, row.claim)
            await self.forget(upload_id)
            return True
        await self.end_claim(upload_id)
        if not row.is_needed:
            await self._private.delete(upload_id)
            await self.forget(upload_id)
        return True

    async def run(self) -> None:
        """Sweep now and every hour, until cancelled."""
        while True:
            delay = SWEEP_INTERVAL
            try:
                await self.sweep()
            except (GatewayError, sqlite3.Error):
                delay = RETRY_INTERVAL
            except Exception:
                log.exception(
                    "the sweep of private objects failed", extra=event("private_object_sweep.failed")
                )
            await asyncio.sleep(delay)

    async def sweep(self) -> None:
        """Remove every object that nothing needs. Raises `GatewayError`, `sqlite3.Error`."""
        after: str | None = ""
        while after is not None:
            window = await asyncio.wrap_future(self._rows.unneeded(after))
            for row in window.rows:
                await self._settle(row.upload_id)
            after = window.last

    async def close(self) -> None:
        """End what runs in the background: the next start goes on with it."""
        removals = list(self._removals.values())
        self._again.clear()
        for removal in removals:
            removal.cancel()
        await asyncio.gather(*removals, return_exceptions=True)
