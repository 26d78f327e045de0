"""The deliveries of `APIGW.OnFileReceived`, for the runner of the process whose journal has them.

They are in the journal whatever engine delivers the rest. A run settles with its decision. What is
claimed of an upload that is decided already, after a replay say, is settled without a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Sequence
from typing import Protocol

from gateway.domain.held import Decision
from gateway.domain.model import RECEIVED, Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events.held_log import HeldUpload
from gateway.events.held_uploads import MAX_UNSETTLED, HeldTable
from gateway.events.memory_queue import MemoryQueue
from gateway.events.protocols import RunOutput
from gateway.events.queue import JournalQueue, run_of

_Run = tuple[int, int, int]


class DecisionTaker(Protocol):
    """Settles runs with their decisions."""

    async def decide(self, delivery: Delivery, decision: Decision, duration: float) -> None:
        """Settle a run with its decision, durably. Raises `EventEngineUnavailable`."""


class HeldQueue:
    """A `Queue` over the journal's, of the deliveries of held uploads."""

    lease: float | None = None
    memory: MemoryQueue | None = None
    """All are claimed: the response to the client does not wait for them anyway."""

    def __init__(self, queue: JournalQueue, uploads: HeldTable, decisions: DecisionTaker) -> None:
        self._queue = queue
        self._uploads = uploads
        self._decisions = decisions
        self._claimed: dict[_Run, HeldUpload] = {}
        self._decided: dict[_Run, Decision] = {}

    def upload_of(self, delivery: Delivery) -> HeldUpload | None:
        """Return the upload that a claimed delivery is about, until it is settled."""
        return self._claimed.get(run_of(delivery))

    def keep_decision(self, delivery: Delivery, decision: Decision) -> None:
        """Note what a run has decided, for `ack`."""
        self._decided[run_of(delivery)] = decision

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        """See `Queue.claim`."""
        claimed = await self._queue.claim(handler, limit, wait)
        if not claimed:
            return []
        try:
            held = await self._find([delivery.upload_id or "" for delivery in claimed])
            deciding = [delivery for delivery in claimed if _decides(delivery, held)]
            await self._settle_others([run for run in claimed if run not in deciding])
        except BaseException as error:
            with contextlib.suppress(EventEngineUnavailable):
                await self._queue.requeue(claimed)
            if isinstance(error, Exception):
                raise EventEngineUnavailable(f"the journal: {error}") from error
            raise
        self._claimed |= {run_of(delivery): held[delivery.upload_id or ""] for delivery in deciding}
        return deciding

    async def _find(self, upload_ids: list[str]) -> dict[str, HeldUpload]:
        held: dict[str, HeldUpload] = {}
        for start in range(0, len(upload_ids), MAX_UNSETTLED):
            chunk = upload_ids[start : start + MAX_UNSETTLED]
            rows = await asyncio.shield(asyncio.wrap_future(self._uploads.find(chunk)))
            held |= rows
        return held

    async def _settle_others(self, deliveries: Sequence[Delivery]) -> None:
        """Settle what decides nothing: it comes too late, or is of a handler that had another event."""
        for delivery in deliveries:
            if delivery.event == RECEIVED:
                await self._queue.ack(delivery, 0.0)
            else:
                error = f"no plugin has a handler of this name for {delivery.event} any more"
                await self._queue.dead_letter(delivery, error, 0.0)

    async def extend_leases(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: there is no lease."""

    def ack(
        self, delivery: Delivery, duration: float, result: RunOutput | None = None
    ) -> Awaitable[None]:
        """Settle a delivery as done, with its decision. One without a decision accepts nothing: dead."""
        run = run_of(delivery)
        decision = self._decided.get(run)
        if decision is None:
            return self.dead_letter(delivery, "the run has ended without a decision", duration, result)
        return self._settled(run, self._decisions.decide(delivery, decision, duration))

    async def retry(
        self,
        delivery: Delivery,
        delay: float,
        error: str,
        duration: float,
        result: RunOutput | None = None,
    ) -> None:
        """See `Queue.retry`."""
        retried = self._queue.retry(delivery, delay, error, duration, result)
        await self._settled(run_of(delivery), retried)

    async def dead_letter(
        self, delivery: Delivery, error: str, duration: float, result: RunOutput | None = None
    ) -> None:
        """See `Queue.dead_letter`: the upload stays held, until an operator decides."""
        dead = self._queue.dead_letter(delivery, error, duration, result)
        await self._settled(run_of(delivery), dead)

    async def requeue(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """See `Queue.requeue`."""
        await self._queue.requeue(deliveries, delay)
        for delivery in deliveries:
            self._forget(run_of(delivery))

    async def limit_delays(self, handler: str, longest: float) -> int:
        """See `Queue.limit_delays`."""
        return await self._queue.limit_delays(handler, longest)

    async def dead_letter_orphans(self, handlers: Sequence[str]) -> int:
        """See `Queue.dead_letter_orphans`."""
        orphaned = self._uploads.dead_letter_orphans(handlers)
        try:
            return await asyncio.shield(asyncio.wrap_future(orphaned))
        except sqlite3.Error as error:
            raise EventEngineUnavailable(f"the journal: {error}") from error

    async def _settled(self, run: _Run, settling: Awaitable[None]) -> None:
        await settling
        self._forget(run)

    def _forget(self, run: _Run) -> None:
        self._claimed.pop(run, None)
        self._decided.pop(run, None)


def _decides(delivery: Delivery, held: dict[str, HeldUpload]) -> bool:
    """Tell whether an upload waits for the decision of this delivery."""
    upload = held.get(delivery.upload_id or "")
    if delivery.event != RECEIVED or upload is None:
        return False
    return upload.state == "undecided" and upload.handlers[:1] == (delivery.handler,)
