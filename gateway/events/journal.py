"""Events room: the embedded journal of one slot, put together.

One file, three points of view: `outbox` for the commit and recovery, `queue` for the runner,
`ledger` for those who watch. May import `errors` and its own room.
"""

from __future__ import annotations

from pathlib import Path

from gateway.events import schema
from gateway.events.database import Database
from gateway.events.ledger import Ledger
from gateway.events.outbox import Outbox
from gateway.events.queue import Queue


class Journal:
    """SQLite journal: whatever one of its futures has resolved is durable.

    `full` covers power loss as well as the death of the process.
    """

    def __init__(self, path: Path, *, full: bool = True) -> None:
        self._database = Database(path, full=full)
        self.outbox = Outbox(self._database)
        self.queue = Queue(self._database)
        self.ledger = Ledger(self._database)

    def open(self) -> None:
        """Open, create or migrate the file. Raises `ConfigError`."""
        self._database.open(schema.migrate)

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._database.close()
