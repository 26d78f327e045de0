"""Whether the processes of a gateway still react.

Each process reports every `HEARTBEAT_INTERVAL` that its event loop and its journal's thread react. One
that is stopped, hangs in a system call or waits for a dead disk does not: after `HEARTBEAT_TIMEOUT` it
counts as unresponsive, and the supervisor tells the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.events.ledger import JournalLedger
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.supervisor")

HEARTBEAT_INTERVAL: Final = 2.0
"""Seconds between two reports of a process."""

HEARTBEAT_TIMEOUT: Final = 15.0
"""Seconds of silence after which a process is unresponsive."""


@dataclass(slots=True)
class ProcessHealth:
    """What a process knows of the others: the slots of those that do not react."""

    unresponsive: frozenset[int] = frozenset()


class HeartbeatMonitor:
    """The supervisor's view of the processes that have been ready. `clock` returns steady seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[int, float] = {}
        self._checked = clock()
        self.unresponsive: frozenset[int] = frozenset()

    @property
    def delays(self) -> list[float]:
        """The seconds to the next `check`; nothing while there is nobody to be watched."""
        return [HEARTBEAT_INTERVAL] if self._heard else []

    def note_heartbeat(self, slot: int) -> bool:
        """Note that a process reacts; return whether it was unresponsive."""
        self._heard[slot] = self._clock()
        recovered = slot in self.unresponsive
        self.unresponsive -= {slot}
        if recovered:
            log.info("process %d reacts again", slot, extra=event("process.recovered", slot=slot))
        return recovered

    def forget(self, slot: int) -> bool:
        """Watch a process no longer: it has ended. Return whether it was unresponsive."""
        self._heard.pop(slot, None)
        recovered = slot in self.unresponsive
        self.unresponsive -= {slot}
        return recovered

    def check(self) -> list[int]:
        """Log and return the processes that have become unresponsive."""
        now = self._clock()
        if now - self._checked > HEARTBEAT_TIMEOUT / 2:
            # The supervisor itself was stopped, maybe all processes with it: nobody is late yet.
            self._heard = dict.fromkeys(self._heard, now)
        self._checked = now
        late = {slot for slot, heard in self._heard.items() if now - heard > HEARTBEAT_TIMEOUT}
        hanging = sorted(late - self.unresponsive)
        self.unresponsive |= late
        for slot in hanging:
            log.error(
                "process %d has not reacted for %g s; the others go on",
                slot,
                HEARTBEAT_TIMEOUT,
                extra=event("process.unresponsive", slot=slot),
            )
        return hanging


async def report_heartbeats(ledger: JournalLedger, report: Callable[[], None]) -> None:
    """Report again and again that this loop and the journal's thread react, until cancelled."""
    while True:
        with contextlib.suppress(sqlite3.Error):  # it reacts, and `/-/ready` tells what it lacks
            await asyncio.wrap_future(ledger.wait_for_thread())
        report()
        await asyncio.sleep(HEARTBEAT_INTERVAL)
