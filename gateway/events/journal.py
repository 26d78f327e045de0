"""The embedded journal of one slot: one SQLite file.

`outbox` is for the commit and the recovery, `queue` for the runner, `ledger` for inspection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

from gateway.domain.model import Delivery
from gateway.events.claims import Wakeups
from gateway.events.database import Database, Row, select
from gateway.events.deletions import DeletionLog
from gateway.events.held_log import HeldLog
from gateway.events.held_uploads import HeldTable
from gateway.events.journal_schema import migrate
from gateway.events.ledger import JournalLedger
from gateway.events.memory_queue import MemoryQueue
from gateway.events.outbox import JournalOutbox
from gateway.events.pending_uploads import PendingUploads
from gateway.events.private_objects import PrivateObjectLog
from gateway.events.published_notes import PublishedNotes
from gateway.events.queue import JournalQueue
from gateway.events.scheduler import ScheduleState
from gateway.events.unpublished import UnpublishedEvents
from gateway.events.upload_log import UploadLog
from gateway.events.upload_states import UploadStates


class Journal:
    """SQLite journal: what a resolved future stands for is durable.

    `full` covers power loss as well as the death of the process. `node` is written beside every run,
    to tell the gateways of an installation apart.
    """

    def __init__(self, path: Path, *, full: bool = True, node: str = "") -> None:
        self._database = Database(path, full=full)
        unpublished, wakeups = UnpublishedEvents(), Wakeups()
        memory = MemoryQueue(self._requeue)
        self.queue = JournalQueue(self._database, unpublished, memory, wakeups, node)
        self.outbox = JournalOutbox(self._database, unpublished, memory, wakeups)
        self.pending_uploads = PendingUploads(self._database, unpublished)
        self.private_objects = PrivateObjectLog(self._database)
        self.deletions = DeletionLog(self._database, unpublished, wakeups)
        self.published_notes = PublishedNotes(self._database)
        self.uploads = UploadLog(self._database)
        self.held_log = HeldLog(self._database)
        self.held_uploads = HeldTable(self._database, unpublished, wakeups, node)
        self.upload_states = UploadStates(self._database)
        self.schedule_state = ScheduleState(self._database)
        self.ledger = JournalLedger(self._database, memory, wakeups)

    def open(self) -> None:
        """Open, create or migrate the file. Raises `ConfigError`."""
        self._database.open(migrate)

    def _requeue(self, deliveries: Sequence[Delivery]) -> Future[None]:
        return self.queue.requeue_soon(deliveries)

    def copy_from(self, other: Journal) -> int:
        """Copy all that `other` holds, durably; return how many deliveries it holds. Blocking.

        A row that exists already stays as it is, so a copy that broke off is simply repeated. Only the
        numbers of deliveries change: they belong to the file.
        """
        source, target = other._database, self._database
        for table, key in _KEYED:
            _copy_table(source, target, table, key)
        count = 0
        for rows in _row_chunks(source, "deliveries", "seq", 0):
            runs = source.submit(partial(_runs_of, deliveries=rows)).result()
            target.submit(partial(_insert_deliveries, deliveries=rows, runs=runs)).result()
            count += len(rows)
        return count

    def copy_pauses(self, other: Journal) -> int:
        """Pause the handlers that `other` has paused, durably; return how many there are."""
        return _copy_table(other._database, self._database, "paused", "handler")

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._database.close()


_COPY_CHUNK: Final = 500

_KEYED: Final = (
    ("uploads", "id"),
    ("events", "id"),
    ("held", "id"),
    ("deletions", "id"),
    ("private_objects", "id"),
    ("paused", "handler"),
)
"""Tables whose rows keep their keys, each with that key. Deliveries and runs come after them."""


def _copy_table(source: Database, target: Database, table: str, key: str) -> int:
    """Copy the rows of a table, durably; return how many there are. Blocking."""
    count = 0
    for rows in _row_chunks(source, table, key, ""):
        target.submit(partial(_insert_rows, table=table, rows=rows)).result()
        count += len(rows)
    return count


def _row_chunks(source: Database, table: str, key: str, after: Any) -> Iterator[list[Row]]:
    statement = f"SELECT * FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {_COPY_CHUNK}"  # noqa: S608 (names are ours)
    while rows := source.submit(partial(select, statement=statement, values=(after,))).result():
        yield rows
        after = rows[-1][key]


def _runs_of(db: sqlite3.Connection, deliveries: Sequence[Row]) -> list[Row]:
    return [
        {**run, "event_id": delivery["event_id"], "handler": delivery["handler"]}
        for delivery in deliveries
        for run in select(db, "SELECT * FROM runs WHERE delivery = ?", (delivery["seq"],))
    ]


def _insert_deliveries(db: sqlite3.Connection, deliveries: Sequence[Row], runs: Sequence[Row]) -> None:
    _insert_rows(db, "deliveries", [{k: v for k, v in row.items() if k != "seq"} for row in deliveries])
    for run in runs:
        event_id, handler = run.pop("event_id"), run.pop("handler")
        (run["delivery"],) = db.execute(
            "SELECT seq FROM deliveries WHERE event_id = ? AND handler = ?", (event_id, handler)
        ).fetchone()
    _insert_rows(db, "runs", runs)


def _insert_rows(db: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    if rows:
        names = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        db.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({values})", rows)  # noqa: S608 (names are ours)
