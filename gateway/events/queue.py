"""The journal as a queue: deliveries are claimed, run, and end done or dead.

            (a commit) --v
    ready --claim--> running --ack----------> done
      ^                 |------dead_letter--> dead
      |                 |------mark_relayed-> relayed (a remote engine has it)
      |------retry------|  (due later, the attempt is used)
      +-----requeue-----+  (as if it had not been claimed)

An attempt is counted when it is claimed, or recorded as running, so a handler that kills the process
cannot loop for ever. The settlements that wait together become one statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

from gateway.domain.model import Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events import queue_statements as statements
from gateway.events.claims import (
    ANY_HANDLER,
    WAITING_HANDLERS,
    ClaimResult,
    Wakeups,
    claim_any_due,
    claim_due,
)
from gateway.events.database import Database, packed
from gateway.events.loop_bridge import BatchWriter, LoopBridge
from gateway.events.memory_queue import MemoryQueue
from gateway.events.protocols import RunOutput
from gateway.events.unpublished import UnpublishedEvents

MAX_LIMITED: Final = 500
"""Deliveries whose delay one operation ends."""

MAX_ORPHANS: Final = 500
"""Deliveries without a handler that one operation makes dead: some 6 ms."""

MAX_CLAIMED: Final = 100
"""Deliveries that one operation claims, with their bodies: 2 ms, with 32 KiB of headers each 20 ms."""

RunSettlement = tuple[int, int, int, str, float, str | None, float, str, str | None, str]
"""The end of a run: row, round, attempt; the new state, the delay, the error; its seconds, its outcome,
its result as JSON; the handler."""


class JournalQueue:
    """The deliveries of the journal. `node` is written beside every run."""

    lease: float | None = None
    """A claimed delivery belongs to this process until it ends; the next start revives it."""

    def __init__(
        self,
        database: Database,
        unpublished: UnpublishedEvents,
        memory: MemoryQueue,
        wakeups: Wakeups,
        node: str,
    ) -> None:
        self.memory: MemoryQueue | None = memory
        self.holding: frozenset[str] = frozenset()
        """Handlers that decide about held uploads: their deliveries are not for `claim_any`."""
        self._database = database
        self._unpublished = unpublished
        self._wakeups = wakeups
        self._has_stale_runs = False
        self._reviving = asyncio.Lock()
        self._bridge = LoopBridge(database)
        self._settlements = BatchWriter[RunSettlement](
            self._bridge, lambda db, batch: settle_runs(db, batch, node), self._notify_retried
        )

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        """Claim up to `limit` due deliveries of `handler`; wait up to `wait` seconds for the first."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            generation = self._wakeups.generation(handler)
            claimed = await self._claim_now(handler, min(limit, MAX_CLAIMED))
            remaining = until - loop.time()
            if claimed.deliveries or remaining <= 0:
                return claimed.deliveries
            if claimed.next_due is not None:
                remaining = min(remaining, max(claimed.next_due - time.time(), 0.0))
            await self._wakeups.wait(handler, generation, remaining)

    async def claim_any(self, limit: int, wait: float) -> list[Delivery]:
        """Claim for the relay to a remote engine: of all handlers, paused ones too.

        What decides about held uploads stays in the journal.
        """
        return await self.claim(ANY_HANDLER, limit, wait)

    async def extend_leases(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: there is no lease."""

    def ack(
        self, delivery: Delivery, duration: float, result: RunOutput | None = None
    ) -> asyncio.Future[None]:
        """Settle a delivery as done."""
        return self._settle_run(delivery, "done", "done", duration, None, result)

    async def retry(
        self,
        delivery: Delivery,
        delay: float,
        error: str,
        duration: float,
        result: RunOutput | None = None,
    ) -> None:
        """Settle a run as failed: due again in `delay` seconds."""
        await self._settle_run(delivery, "ready", "retry", duration, error, result, delay)

    async def dead_letter(
        self, delivery: Delivery, error: str, duration: float, result: RunOutput | None = None
    ) -> None:
        """Make a delivery dead, until an operator decides."""
        await self._settle_run(delivery, "dead", "dead", duration, error, result)

    async def requeue(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Return running deliveries unharmed, due in `delay` seconds: no attempt is used."""
        rows = packed([run_of(delivery) for delivery in deliveries])
        await self._bridge.write(statements.REQUEUE, {"now": time.time(), "delay": delay, "rows": rows})
        self._wakeups.notify({delivery.handler for delivery in deliveries})

    def requeue_soon(self, deliveries: Sequence[Delivery]) -> Future[None]:
        """Return running deliveries unharmed, as `requeue`; from any thread, for those that wait."""
        values = {"now": time.time(), "delay": 0.0, "rows": packed(list(map(run_of, deliveries)))}
        handlers = {delivery.handler for delivery in deliveries}
        future = self._database.write(statements.REQUEUE, values)
        future.add_done_callback(lambda _: self._wakeups.notify(handlers))
        return future

    async def mark_relayed(self, deliveries: Sequence[Delivery]) -> None:
        """Mark deliveries that a remote engine has: they stay for a replay until they are pruned."""
        rows = packed([run_of(delivery) for delivery in deliveries])
        await self._bridge.write(statements.RELAYED, {"now": time.time(), "rows": rows})

    def recover(self) -> Future[tuple[int, int]]:
        """After a start: make ready what ran, hold nothing. Returns how many are due, and ran.

        On a full disk that is done with the first claim: downloads need no disk space.
        """
        self._unpublished.clear()
        recovered: Future[tuple[int, int]] = Future()

        def count(db: sqlite3.Connection) -> tuple[int, int]:
            (due,) = db.execute(statements.COUNT_DUE, (time.time(),)).fetchone()
            (ran,) = db.execute(statements.COUNT_RUNNING).fetchone()
            return int(due), int(ran)

        def finish(revived: Future[None]) -> None:
            error = revived.exception() or counted.exception()
            self._has_stale_runs = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
            if error is None or self._has_stale_runs:
                recovered.set_result(counted.result())
            else:
                recovered.set_exception(error)

        counted = self._database.submit(count)
        self._database.write(statements.REVIVE, ()).add_done_callback(finish)
        return recovered

    async def _revive_stale_runs(self) -> None:
        """Make ready what ran in an earlier process, if that could not be done at the start."""
        async with self._reviving:
            if self._has_stale_runs:
                await self._bridge.write(statements.REVIVE, ())
                self._has_stale_runs = False

    async def limit_delays(self, handler: str, longest: float) -> int:
        """Make some deliveries due that would wait for more than `longest` seconds; return how many."""

        def operation(db: sqlite3.Connection) -> int:
            now = time.time()
            values = {"now": now, "handler": handler, "latest": now + longest, "limit": MAX_LIMITED}
            return db.execute(statements.LIMIT_DELAYS, values).rowcount

        count = await self._bridge.run(operation)
        if count:
            self._wakeups.notify([handler])
        return count

    async def dead_letter_orphans(self, handlers: Sequence[str]) -> int:
        """Make some waiting deliveries of handlers that are not in `handlers` dead; return how many.

        Those of held uploads have a queue of their own.
        """
        if self._has_stale_runs:
            await self._revive_stale_runs()
        loaded = frozenset(handlers)

        def operation(db: sqlite3.Connection) -> int:
            waiting = [name for (name,) in db.execute(WAITING_HANDLERS)]
            names = [name for name in waiting if name not in loaded and name not in self.holding]
            now, held, count = time.time(), packed(self._unpublished.event_ids()), 0
            for name in names:
                values = (now, name, held, MAX_ORPHANS - count)
                count += db.execute(statements.DEAD_LETTER_ORPHANS, values).rowcount
                if count == MAX_ORPHANS:
                    break
            return count

        return await self._bridge.run(operation)

    async def _claim_now(self, handler: str, limit: int) -> ClaimResult:
        def operation(db: sqlite3.Connection) -> ClaimResult:
            held = self._unpublished.event_ids()
            if handler == ANY_HANDLER:
                return claim_any_due(db, limit, held, self.holding)
            claimed = claim_due(db, handler, limit, held)
            self._note_state(handler, claimed)
            return claimed

        if self._has_stale_runs:
            await self._revive_stale_runs()
        claim = self._bridge.run(operation)
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            with contextlib.suppress(EventEngineUnavailable):
                claimed = await claim
                if claimed.deliveries:
                    await self.requeue(claimed.deliveries)
            raise

    def _note_state(self, handler: str, claimed: ClaimResult) -> None:
        """Tell the queue in memory whether it may go before what the journal has."""
        if self.memory is None or claimed.deliveries:
            return
        if claimed.paused:
            self.memory.pause(handler)
        else:
            self.memory.caught_up(handler)

    def _settle_run(
        self,
        delivery: Delivery,
        state: str,
        outcome: str,
        duration: float,
        error: str | None,
        result: RunOutput | None,
        delay: float = 0.0,
    ) -> asyncio.Future[None]:
        run, text = run_of(delivery), None if result is None else json.dumps(result)
        settlement = (*run, state, delay, error, duration, outcome, text, delivery.handler)
        return self._settlements.submit(settlement)

    def _notify_retried(self, batch: list[RunSettlement]) -> None:
        if handlers := {settlement[-1] for settlement in batch if settlement[3] == "ready"}:
            self._wakeups.notify(handlers)


def run_of(delivery: Delivery) -> tuple[int, int, int]:
    """Return what identifies a run: row, round, attempt."""
    if not isinstance(delivery.token, int):
        raise TypeError("this delivery was claimed from another engine")
    return delivery.token, delivery.round, delivery.attempt


def settle_runs(db: sqlite3.Connection, batch: list[RunSettlement], node: str) -> None:
    """Write the ended runs and the new states of their deliveries; a late settlement changes nothing."""
    values = {"now": time.time(), "node": node, "rows": packed(batch)}
    db.execute(statements.RUN_ENDED, values)
    db.execute(statements.SETTLE, values)
