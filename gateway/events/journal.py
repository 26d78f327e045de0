"""The embedded journal of one slot, put together.

One file, three points of view: `outbox` for the commit and recovery, `queue` for the runner,
`ledger` for those who watch.
"""

from __future__ import annotations

from pathlib import Path

from gateway.events import journal_copy as moving
from gateway.events import schema
from gateway.events.database import Database
from gateway.events.ledger import JournalLedger
from gateway.events.outbox import JournalOutbox
from gateway.events.pending_uploads import PendingUploads
from gateway.events.queue import JournalQueue
from gateway.events.schedule_state import ScheduleState
from gateway.events.unpublished import UnpublishedEvents
from gateway.events.wakeups import Wakeups


class Journal:
    """SQLite journal: whatever one of its futures has resolved is durable.

    `full` covers power loss as well as the death of the process. `node` is written beside every
    run, for those who look at the runs of several gateways.
    """

    def __init__(self, path: Path, *, full: bool = True, node: str = "") -> None:
        self._database = Database(path, full=full)
        held, bell = UnpublishedEvents(), Wakeups()
        self.queue = JournalQueue(self._database, held, bell, node)
        self.outbox = JournalOutbox(self._database, held, bell.ring)
        self.unsettled = PendingUploads(self._database, held, bell.ring)
        self.ticks = ScheduleState(self._database)
        self.ledger = JournalLedger(self._database, self.queue.wake)

    def open(self) -> None:
        """Open, create or migrate the file. Raises `ConfigError`."""
        self._database.open(schema.migrate)

    def take_over(self, other: Journal) -> int:
        """Copy all that `other` holds, durably; return how many deliveries. May be repeated."""
        return moving.copy(other._database, self._database)

    def pause_like(self, other: Journal) -> int:
        """Pause the handlers that `other` has paused, durably; return how many there are."""
        return moving.copy_paused(other._database, self._database)

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._database.close()
