"""Deliveries are claimed, tried, and end done or dead.

    ready --claim--> running --ack--> done
      ^                 |------dead--> dead
      |                 |------relayed--> relayed (a remote engine has it)
      |------retry------|  (due later, the attempt is used)
      +----hand_back----+  (as if it had not been claimed)

The rule: an attempt is counted when it is claimed, so a handler that kills the process cannot loop
for ever. What waits together becomes one statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

from gateway.domain.model import Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events import wakeups as bell
from gateway.events.claims import ClaimResult, take
from gateway.events.database import Database, packed
from gateway.events.loop_bridge import BatchWriter, LoopBridge
from gateway.events.unpublished import UnpublishedEvents
from gateway.events.wakeups import Wakeups

_IS_CLAIMED: Final = (
    "d.seq = json_extract(value, '$[0]') AND d.round = json_extract(value, '$[1]')"
    " AND d.attempt = json_extract(value, '$[2]') AND +d.state = 'running'"
)
"""That a delivery is still in the very run that wants to settle it. (The `+` keeps SQLite from going
through all that run, by the index of states, for each of them.)"""


_SETTLE: Final = (
    "UPDATE deliveries AS d SET state = json_extract(value, '$[3]'), updated = :now,"  # noqa: S608 (ours)
    " due = :now + json_extract(value, '$[4]'), error = json_extract(value, '$[5]')"
    f" FROM json_each(:rows) WHERE {_IS_CLAIMED}"
)
_RUN_ENDED: Final = (
    "INSERT OR IGNORE INTO runs SELECT d.seq, :now, d.attempt, :node,"  # noqa: S608
    " json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[5]')"
    f" FROM json_each(:rows) CROSS JOIN deliveries d WHERE {_IS_CLAIMED}"
)
_HAND_BACK: Final = (
    "UPDATE deliveries AS d SET state = 'ready', attempt = attempt - 1, updated = :now,"  # noqa: S608
    " due = CASE WHEN :delay > 0 THEN :now + :delay ELSE due END"
    f" FROM json_each(:rows) WHERE {_IS_CLAIMED}"
)
_COUNT_DUE: Final = (
    "SELECT count(*) FROM deliveries INDEXED BY deliveries_ready WHERE state = 'ready' AND due <= ?"
)
_REVIVE: Final = (
    "UPDATE deliveries SET state = 'ready', due = ?,"
    " error = 'the gateway stopped while the handler ran' WHERE state = 'running'"
)
_RELAYED: Final = (
    "UPDATE deliveries AS d SET state = 'relayed', updated = :now"  # noqa: S608
    f" FROM json_each(:rows) WHERE {_IS_CLAIMED}"
)


_Settlement = tuple[int, int, int, str, float, str | None, float, str, str]
"""The end of a run: row, round, attempt; the state it goes to, the pause, the error; the seconds that
it took, its outcome, the handler."""


class JournalQueue:
    """Deliveries, from the runner's point of view. `node` is written beside every run."""

    lease: float | None = None
    """A claimed delivery belongs to this process until it ends; the next start revives it."""

    def __init__(self, database: Database, held: UnpublishedEvents, rung: Wakeups, node: str) -> None:
        self._database = database
        self._held = held
        self._bell = rung
        self._crossing = LoopBridge(database)
        self._settlements: BatchWriter[_Settlement] = BatchWriter(
            self._crossing, lambda db, batch: _settle(db, batch, node), self._ended
        )

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        """Take up to `limit` due deliveries of `handler`; wait up to `wait` seconds for the first.

        A claim that is cancelled gives back what it would have brought. Raises `EventEngineUnavailable`.
        """
        return await self._claim(handler, limit, wait)

    async def claim_any(self, limit: int, wait: float) -> list[Delivery]:
        """Take due deliveries of all handlers, paused ones too: for the relay to a remote engine."""
        return await self._claim(bell.ANY, limit, wait)

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing to do: there is no lease."""

    async def ack(self, delivery: Delivery, duration: float) -> None:
        """The run succeeded: done."""
        await self._settled(delivery, "done", 0.0, None, duration, "done")

    async def retry(self, delivery: Delivery, delay: float, error: str, duration: float) -> None:
        """The run failed: due again in `delay` seconds."""
        await self._settled(delivery, "ready", delay, error, duration, "retry")

    async def dead(self, delivery: Delivery, error: str, duration: float) -> None:
        """Given up: waits until somebody decides."""
        await self._settled(delivery, "dead", 0.0, error, duration, "dead")

    async def hand_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Give running deliveries back unharmed, due in `delay` seconds: no attempt is used."""
        rows = packed([_run_of(delivery) for delivery in deliveries])

        def operation(db: sqlite3.Connection) -> None:
            db.execute(_HAND_BACK, {"now": time.time(), "delay": delay, "rows": rows})

        await self._crossing.run(operation)
        self._bell.ring({delivery.handler for delivery in deliveries})

    async def relayed(self, deliveries: Sequence[Delivery]) -> None:
        """A remote engine has them: they stay for a replay until they are pruned."""
        rows = packed([_run_of(delivery) for delivery in deliveries])

        def operation(db: sqlite3.Connection) -> None:
            db.execute(_RELAYED, {"now": time.time(), "rows": rows})

        await self._crossing.run(operation)

    def wake(self) -> None:
        """Let waiting claims look again: rows were made ready. From any thread."""
        self._bell.ring_all()

    def resume(self) -> Future[tuple[int, int]]:
        """After a start: what ran is ready again, nothing is held. Return how many are due, and ran."""
        self._held.clear()

        def operation(db: sqlite3.Connection) -> tuple[int, int]:
            now = time.time()
            (due,) = db.execute(_COUNT_DUE, (now,)).fetchone()
            ran = db.execute(_REVIVE, (now,)).rowcount
            return int(due), ran

        return self._database.submit(operation)

    async def dead_letter_orphans(self, handlers: Sequence[str]) -> int:
        """Make waiting deliveries of handlers that are not in `handlers` dead; return how many."""

        def operation(db: sqlite3.Connection) -> int:
            return db.execute(
                "UPDATE deliveries SET state = 'dead', updated = ?,"
                " error = 'no plugin has a handler of this name' WHERE state = 'ready'"
                " AND handler NOT IN (SELECT value FROM json_each(?))"
                " AND event_id NOT IN (SELECT value FROM json_each(?))",
                (time.time(), packed(list(handlers)), packed(self._held.event_ids())),
            ).rowcount

        return await self._crossing.run(operation)

    # -- the parts

    async def _claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            seen = self._bell.rings(handler)
            found = await self._take(handler, limit)
            left = until - loop.time()
            if found.deliveries or left <= 0:
                return found.deliveries
            if found.next_due is not None:
                left = min(left, max(found.next_due - time.time(), 0.0))
            await self._bell.wait(handler, seen, left)

    async def _take(self, handler: str, limit: int) -> ClaimResult:
        whose = None if handler == bell.ANY else handler
        taking = self._crossing.run(lambda db: take(db, whose, limit, self._held.event_ids()))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            with contextlib.suppress(EventEngineUnavailable):
                found = await taking
                if found.deliveries:
                    await self.hand_back(found.deliveries)
            raise

    async def _settled(
        self,
        delivery: Delivery,
        state: str,
        delay: float,
        error: str | None,
        duration: float,
        outcome: str,
    ) -> None:
        run = _run_of(delivery)
        await self._settlements.put((*run, state, delay, error, duration, outcome, delivery.handler))

    def _ended(self, batch: list[_Settlement]) -> None:
        if again := {ended[-1] for ended in batch if ended[3] == "ready"}:
            self._bell.ring(again)


def _run_of(delivery: Delivery) -> tuple[int, int, int]:
    """Return what names this very run: row, round, attempt."""
    if not isinstance(delivery.token, int):
        raise TypeError("this delivery was handed out by another engine")
    return delivery.token, delivery.round, delivery.attempt


def _settle(db: sqlite3.Connection, batch: list[_Settlement], node: str) -> None:
    """Write the runs that end and what becomes of their deliveries; a late one changes nothing."""
    asked = {"now": time.time(), "node": node, "rows": packed(batch)}
    db.execute(_RUN_ENDED, asked)
    db.execute(_SETTLE, asked)
