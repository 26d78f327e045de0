"""Settles the uploads whose ends were not written to their quotas: a process was killed in between.

Each process settles its own: what its journal has is stored, what is kept as a partial or a held upload
stays reserved, and everything else was never stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Final

from gateway.commit.partials import PartialStore
from gateway.commit.quotas.quotas import Quotas
from gateway.domain.quotas import day_of
from gateway.errors import GatewayError, Refusal
from gateway.events.journal import Journal
from gateway.events.upload_states import UploadState
from gateway.limits.quota_operations import StoredVersion, free
from gateway.limits.quota_rows import QuotaReservation
from gateway.limits.quota_sweeps import prune_days, prune_requests, reservations_page, take_over_slots
from gateway.telemetry.logs import event

SETTLE_INTERVAL: Final = 60.0
"""Seconds between two tries to write ends of uploads that could not be written."""

ROUNDS: Final = 60
"""Tries after which all reservations of this process are looked at again."""

PRUNE_INTERVAL: Final = 1800.0
PRUNE_PAUSE: Final = 0.01
"""Seconds between two pieces of that: uploads come in between."""

KEPT_DAYS: Final = 9
"""Days that are kept: a partial upload counts for the day on which it began, a week ago at most."""

log = logging.getLogger("gateway.quotas")


class QuotaRecovery:
    """Settles the reservations of one process. On the server's event loop."""

    def __init__(self, quotas: Quotas, journal: Journal, partials: PartialStore | None) -> None:
        self._quotas = quotas
        self._journal = journal
        self._partials = partials

    async def take_over(self, processes: int) -> None:
        """Take over the reservations of slots that no process serves any more. Raises `GatewayError`."""
        await self._quotas.files.run(partial(take_over_slots, self._quotas.files.place.node, processes))

    async def settle_all(self) -> int:
        """Settle what has ended; return how many that were. Raises `GatewayError`."""
        await self._quotas.write_unsettled()
        place, after, settled = self._quotas.files.place, "", 0
        while page := await self._quotas.files.run(
            partial(reservations_page, place.node, place.slot, after)
        ):
            after = page[-1].upload_id
            idle = [item for item in page if item.upload_id not in self._quotas.active]
            states = await asyncio.wrap_future(
                self._journal.upload_states.find([item.upload_id for item in idle])
            )
            for item in idle:
                settled += await self._settle(item, states.get(item.upload_id))
        if settled:
            log.info(
                "%d uploads of an earlier run were settled with their quotas",
                settled,
                extra=event("quotas.settled", count=settled),
            )
        return settled

    async def settle_periodically(self) -> None:
        """Settle late ends from time to time, until cancelled. What fails is tried again later."""
        rounds = 0
        while True:
            await asyncio.sleep(SETTLE_INTERVAL)
            rounds += 1
            if not self._quotas.files.are_counted():
                continue
            try:
                if self._quotas.files.place.node:
                    await self._quotas.files.run(prune_requests)
                await self._quotas.write_unsettled()
                if rounds % ROUNDS == 0:
                    await self.settle_all()
            except (GatewayError, OSError) as error:
                log.warning(
                    "ends of uploads cannot be written to their quotas now: %s",
                    error,
                    extra=event("quotas.unsettled"),
                )

    async def prune_periodically(self) -> None:
        """Forget days that are long over, until cancelled.

        A wall clock may jump: a day is over once it was over a while ago too, by a clock that is never
        set.
        """
        earlier: int | None = None
        while True:
            today = day_of(self._quotas.now())
            files = self._quotas.files
            if earlier is not None and files.place.slot == 0 and files.are_counted():
                with contextlib.suppress(GatewayError):
                    await self._prune(min(today, earlier) - KEPT_DAYS)
            earlier = today
            await asyncio.sleep(PRUNE_INTERVAL)

    async def _prune(self, before: int) -> None:
        has_more = True
        while has_more:
            has_more = await self._quotas.files.run(partial(prune_days, before))
            await asyncio.sleep(PRUNE_PAUSE)

    async def _settle(self, reservation: QuotaReservation, state: UploadState | None) -> bool:
        """Settle one upload that nobody works on here; tell whether it has ended."""
        upload_id, place = reservation.upload_id, self._quotas.files.place
        if state is not None and state.waits:
            return False
        if state is not None:
            identity = state.identity
            version = upload_id if place.in_bucket else identity.etag
            await self._quotas.settle_version(
                StoredVersion(upload_id, state.path, version, identity.size)
            )
            return True
        if await self._is_partial(upload_id) or upload_id in self._quotas.active:
            return False
        holder = place.node, place.slot
        await self._quotas.files.run(partial(free, place.name, upload_id, holder))
        return True

    async def _is_partial(self, upload_id: str) -> bool:
        """Tell whether an upload goes on, as far as that is known."""
        if self._partials is None:
            return False
        try:
            return await self._partials.status(upload_id) is not None
        except Refusal:
            return True


async def settle_at_start(recovery: QuotaRecovery, processes: int, slot: int) -> None:
    """Settle what an earlier run left, before the port opens. What cannot be done now comes later."""
    try:
        if slot == 0:
            await recovery.take_over(processes)
        await recovery.settle_all()
    except (GatewayError, OSError) as error:
        log.warning(
            "what an earlier run has reserved of quotas stays reserved for now: %s",
            error,
            extra=event("quotas.unsettled"),
        )
