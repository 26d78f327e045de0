"""What the journal remembers of the timetable.

One row of facts holds, for every `Schedule` handler, its schedule in words and the last tick that
was dealt with.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from typing import Final

from gateway.events.database import Database
from gateway.events.loop_bridge import LoopBridge

Memory = Mapping[str, tuple[str, float]]
"""By handler: the schedule in words, and the Unix time up to which it is dealt with."""

_FACT: Final = "timetable"


class ScheduleState:
    """The timetable, from the journal's point of view. Every method raises `EventEngineUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._crossing = LoopBridge(database)

    async def remembered(self) -> Memory:
        """Return what `remember` was given last; nothing in a new journal."""

        def operation(db: sqlite3.Connection) -> Memory:
            row = db.execute("SELECT value FROM facts WHERE name = ?", (_FACT,)).fetchone()
            stored = json.loads(row[0]) if row else {}
            return {handler: (str(words), float(seen)) for handler, (words, seen) in stored.items()}

        return await self._crossing.run(operation)

    async def remember(self, memory: Memory) -> None:
        """Keep `memory`, durably, in the place of what was there."""
        text = json.dumps(memory)

        def operation(db: sqlite3.Connection) -> None:
            db.execute("REPLACE INTO facts VALUES (?, ?)", (_FACT, text))

        await self._crossing.run(operation)

    async def waiting(self, handler: str, limit: int) -> int:
        """Count deliveries of a handler that are due and not yet claimed, up to `limit`."""

        def operation(db: sqlite3.Connection) -> int:
            (count,) = db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM deliveries"
                " WHERE handler = ? AND state = 'ready' AND due <= ? LIMIT ?)",
                (handler, time.time(), limit),
            ).fetchone()
            return int(count)

        return await self._crossing.run(operation)
