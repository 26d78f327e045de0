"""Publishes a tick of each `Schedule` handler when it is due.

The event id of a tick follows from handler and time alone: whichever gateway publishes it, and however
often, it is delivered once. Between two checks at most one tick of a handler is published, the latest:
neither a long stop nor a clock that jumps makes a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.domain.event_bodies import tick_body
from gateway.domain.model import SCHEDULE
from gateway.domain.schedules import Schedule
from gateway.errors import EventEngineUnavailable
from gateway.events.database import Database
from gateway.events.loop_bridge import LoopBridge
from gateway.events.protocols import Ledger, NewEvent, Outbox
from gateway.storage.waiting import cancel_and_wait
from gateway.telemetry.logs import event

MAX_DELAY: Final = 60.0
"""Seconds after which a tick counts as missed: a quick restart must not lose the one it fell into."""

CHECK_INTERVAL: Final = 60.0
"""Seconds after which the clock is read in any case: it may have been set."""

RETRY_DELAY: Final = 1.0
"""Seconds until a tick is tried again while the event engine is unavailable."""

MAX_WAITING: Final = 10
"""Ticks of a handler that wait to be claimed; further ones are left out until it has caught up."""

_FACT: Final = "timetable"

LastTicks = Mapping[str, tuple[str, float]]
"""By handler: its schedule as text, and the Unix time up to which its ticks are handled."""

log = logging.getLogger("gateway.scheduler")


class ScheduleState:
    """The last tick of each schedule, in the journal. Methods raise `EventEngineUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._bridge = LoopBridge(database)

    async def load(self) -> LastTicks:
        """Return what `save` was given last; nothing in a new journal."""

        def operation(db: sqlite3.Connection) -> LastTicks:
            row = db.execute("SELECT value FROM facts WHERE name = ?", (_FACT,)).fetchone()
            stored = json.loads(row[0]) if row else {}
            return {handler: (str(text), float(seen)) for handler, (text, seen) in stored.items()}

        return await self._bridge.run(operation)

    async def save(self, last_ticks: LastTicks) -> None:
        """Replace what is stored, durably."""
        values = _FACT, json.dumps(last_ticks)
        await self._bridge.write("REPLACE INTO facts VALUES (?, ?)", values)

    async def count_waiting(self, handler: str, limit: int) -> int:
        """Count deliveries of a handler that are due and not claimed, up to `limit`."""

        def operation(db: sqlite3.Connection) -> int:
            (count,) = db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM deliveries"
                " WHERE handler = ? AND state = 'ready' AND due <= ? LIMIT ?)",
                (handler, time.time(), limit),
            ).fetchone()
            return int(count)

        return await self._bridge.run(operation)


@dataclass(slots=True)
class _ScheduledHandler:
    """A handler's schedule, and how far its ticks are handled.

    `seen`: no tick up to here is published any more. `checked`, `due`: nothing happens between them.
    `pending`: a tick that was begun in time and could not be published yet.
    """

    schedule: Schedule
    seen: float
    checked: float = 0.0
    due: float = 0.0
    pending: int | None = None


class Scheduler:
    """Ticks for one installation; on every node one process has it (slot 0). Lives on the server's loop.

    `ledger` shows whether another node has published a tick that is made up for late. `clock` returns
    Unix time.
    """

    def __init__(
        self,
        outbox: Outbox,
        state: ScheduleState,
        *,
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._state = state
        self._ledger = ledger
        self._clock = clock
        self._schedules: Mapping[str, Schedule] = {}
        self._handlers: dict[str, _ScheduledHandler] = {}
        self._saved: LastTicks | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, schedules: Mapping[str, Schedule]) -> None:
        """Begin to publish the ticks of `schedules`, by handler."""
        self.refresh(schedules)
        self._task = asyncio.create_task(self._run())

    def refresh(self, schedules: Mapping[str, Schedule]) -> None:
        """Follow a reload: new and changed schedules tick from now on, removed ones no more."""
        self._schedules = dict(schedules)
        self._changed.set()

    async def stop(self) -> None:
        """Publish nothing more."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                delay = await self.publish_due()
            except Exception:
                # A defect of the gateway; it must not end the ticks to come.
                log.exception("the scheduler failed, retrying", extra=event("scheduler.failed"))
                delay = CHECK_INTERVAL
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    async def publish_due(self) -> float | None:
        """Publish what is due; return the seconds until the next check, None for never."""
        try:
            await self._update_handlers()
        except EventEngineUnavailable as error:
            log.warning(
                "the last ticks cannot be read, retrying: %s", error, extra=event("journal.unavailable")
            )
            return RETRY_DELAY
        published = [await self._try_handler(*item) for item in list(self._handlers.items())]
        if not all(published) or not await self._save():
            return RETRY_DELAY
        if not self._handlers:
            return None
        upcoming = min(handler.due for handler in self._handlers.values()) - self._clock()
        return min(max(upcoming, 0.001), CHECK_INTERVAL)

    async def _update_handlers(self) -> None:
        """Bring the handlers in line with the schedules. Saved ticks count at the start only."""
        starting = self._saved is None
        if self._saved is None:
            self._saved = await self._state.load()
        now = self._clock()
        schedules = self._schedules
        for name in self._handlers.keys() - schedules.keys():
            del self._handlers[name]
        for name, schedule in schedules.items():
            handler = self._handlers.get(name)
            if handler is None or handler.schedule != schedule:
                text, seen = self._saved.get(name, ("", now)) if starting else ("", now)
                seen = min(seen, now) if text == str(schedule) else now
                self._handlers[name] = _ScheduledHandler(schedule, seen)

    async def _save(self) -> bool:
        """Save how far all ticks are handled; return whether that could be done now."""
        last_ticks = {name: (str(h.schedule), h.seen) for name, h in self._handlers.items()}
        if last_ticks != self._saved:
            try:
                await self._state.save(last_ticks)
            except EventEngineUnavailable as error:
                unsaved = "the last ticks cannot be saved, retrying: %s"
                log.warning(unsaved, error, extra=event("journal.unavailable"))
                return False
            self._saved = last_ticks
        return True

    async def _try_handler(self, name: str, handler: _ScheduledHandler) -> bool:
        """Publish for one handler; an error in its schedule must not stop the others."""
        try:
            return await self._publish_latest(name, handler)
        except Exception:
            log.exception(
                "the schedule of %s failed, retrying", name, extra=event("schedule.failed", handler=name)
            )
            handler.checked = self._clock()
            handler.due = handler.checked + CHECK_INTERVAL
            return True

    async def _publish_latest(self, name: str, handler: _ScheduledHandler) -> bool:
        """Publish the latest tick of a handler if it is new; return whether all is handled."""
        now = self._clock()
        if handler.checked <= now < handler.due:
            return True
        if now < handler.checked:  # the clock was set back; ticks that come again have the same ids
            handler.seen = min(handler.seen, now)
        latest = handler.schedule.latest(now)
        if latest > handler.seen:
            in_time = now - latest <= MAX_DELAY or latest == handler.pending
            if in_time or handler.schedule.catch_up:
                handler.pending = latest
                try:
                    await self._publish(name, handler.schedule, latest, now)
                except EventEngineUnavailable as error:
                    delayed = "a tick of %s cannot be published, retrying: %s"
                    log.warning(delayed, name, error, extra=event("tick.delayed", handler=name))
                    return False
            else:
                tick = handler.schedule.local(latest)
                missed = "%s missed its tick at %s"
                log.warning(missed, name, tick, extra=event("tick.missed", handler=name))
            handler.seen = latest
        handler.pending, handler.checked = None, now
        handler.due = handler.schedule.next(now) or float("inf")
        return True

    async def _publish(self, name: str, schedule: Schedule, tick: int, now: float) -> None:
        """Publish a tick unless another node did or too many wait. Raises `EventEngineUnavailable`."""
        new_event = tick_event(name, schedule, tick, now)
        late = now - tick > MAX_DELAY
        if late and self._ledger is not None and await self._ledger.history(new_event.id) is not None:
            return
        if await self._state.count_waiting(name, MAX_WAITING) >= MAX_WAITING:
            tick_time = new_event.body["scheduled_iso"]
            skipped = "%s is behind: its tick at %s is left out"
            log.warning(skipped, name, tick_time, extra=event("tick.skipped", handler=name))
            return
        await self._outbox.publish([new_event])


def tick_event(handler: str, schedule: Schedule, tick: int, now: float) -> NewEvent:
    """Return the event of a handler's tick; every gateway makes the same one of it."""
    body = tick_body(handler, schedule, tick)
    return NewEvent(f"tick.{handler}.{tick}", SCHEDULE, (handler,), body, created=now)
