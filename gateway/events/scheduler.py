"""Publishes a tick of each `Schedule` handler when it is due.

The rule: a tick's event id follows from handler and time alone, so whoever publishes it, and
however often, it is delivered once. Between two looks at most one tick of a handler is published,
the latest: neither a long stop nor a clock that jumps makes a thousand. Lives on the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.domain.event_bodies import tick_body
from gateway.domain.model import SCHEDULE
from gateway.domain.schedules import Schedule
from gateway.errors import EventEngineUnavailable
from gateway.events.protocols import Ledger, NewEvent, Outbox
from gateway.events.schedule_state import Memory, ScheduleState

LATE: Final = 60.0
"""Seconds after which a tick counts as missed: a quick restart must not lose the one it fell into."""

LONGEST_SLEEP: Final = 60.0
"""Seconds after which the clock is looked at in any case: somebody may have set it."""

AWAY_PAUSE: Final = 1.0
"""Seconds until a tick is tried again when the engine of events is away."""

MOST_WAITING: Final = 10
"""Ticks of a handler that wait to be claimed; further ones are left out until it has caught up."""

log = logging.getLogger("gateway.timetable")


@dataclass(slots=True)
class _ScheduledHandler:
    """A handler's schedule, and how far it has been dealt with.

    `seen`: no tick up to here is published any more. `looked`, `due`: nothing happens between
    them. `trying`: a tick that was begun in time and could not be published yet.
    """

    schedule: Schedule
    seen: float
    looked: float = 0.0
    due: float = 0.0
    trying: int | None = None


class Scheduler:
    """Ticks for one installation; on every node one process has it (slot 0).

    `ledger` is asked whether somebody else has published a tick that is made up for late. `clock`
    returns Unix time.
    """

    def __init__(
        self,
        outbox: Outbox,
        ticks: ScheduleState,
        *,
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._ticks = ticks
        self._ledger = ledger
        self._clock = clock
        self._schedules: Mapping[str, Schedule] = {}
        self._entries: dict[str, _ScheduledHandler] = {}
        self._memory: Memory | None = None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, schedules: Mapping[str, Schedule]) -> None:
        """Begin to publish the ticks of `schedules`, by handler."""
        self.refresh(schedules)
        self._task = asyncio.create_task(self._run())

    def refresh(self, schedules: Mapping[str, Schedule]) -> None:
        """Follow a reload: what is new or changed ticks from now on, what is gone no more."""
        self._schedules = dict(schedules)
        self._woken.set()

    async def stop(self) -> None:
        """Publish nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                pause = await self.look()
            except Exception:
                # Our own mistake; the other ticks to come must not end with it.
                log.exception("the timetable failed, trying again")
                pause = LONGEST_SLEEP
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def look(self) -> float | None:
        """Publish what is due; return in how many seconds to look again, None for never."""
        try:
            await self._follow()
        except EventEngineUnavailable as fault:
            log.warning("the last ticks are not known, trying again: %s", fault)
            return AWAY_PAUSE
        published = [await self._attend(name, entry) for name, entry in list(self._entries.items())]
        if not all(published) or not await self._remember():
            return AWAY_PAUSE
        if not self._entries:
            return None
        upcoming = min(entry.due for entry in self._entries.values()) - self._clock()
        return min(max(upcoming, 0.001), LONGEST_SLEEP)

    async def _follow(self) -> None:
        """Bring the entries in line with the schedules. What is remembered counts at the start only."""
        first = self._memory is None
        if self._memory is None:
            self._memory = await self._ticks.remembered()
        now = self._clock()
        schedules = self._schedules
        for name in self._entries.keys() - schedules.keys():
            del self._entries[name]
        for name, schedule in schedules.items():
            entry = self._entries.get(name)
            if entry is None or entry.schedule != schedule:
                words, seen = self._memory.get(name, ("", now)) if first else ("", now)
                seen = min(seen, now) if words == str(schedule) else now
                self._entries[name] = _ScheduledHandler(schedule, seen)

    async def _remember(self) -> bool:
        """Keep how far all is dealt with; say whether that could be done now."""
        memory = {name: (str(entry.schedule), entry.seen) for name, entry in self._entries.items()}
        if memory != self._memory:
            try:
                await self._ticks.remember(memory)
            except EventEngineUnavailable as fault:
                log.warning("the last ticks cannot be kept, trying again: %s", fault)
                return False
            self._memory = memory
        return True

    async def _attend(self, name: str, entry: _ScheduledHandler) -> bool:
        """Look at one handler; what is wrong with its schedule must not silence the others."""
        try:
            return await self._look_at(name, entry)
        except Exception:
            log.exception("the schedule of %s failed, trying again", name)
            entry.looked = self._clock()
            entry.due = entry.looked + LONGEST_SLEEP
            return True

    async def _look_at(self, name: str, entry: _ScheduledHandler) -> bool:
        """Publish the latest tick of a handler if it is new; say whether all is dealt with."""
        now = self._clock()
        if entry.looked <= now < entry.due:
            return True
        if now < entry.looked:  # the clock was set back; ticks that come again are known by their ids
            entry.seen = min(entry.seen, now)
        latest = entry.schedule.latest(now)
        if latest > entry.seen:
            in_time = now - latest <= LATE or latest == entry.trying
            if in_time or entry.schedule.catch_up:
                entry.trying = latest
                try:
                    await self._publish(name, entry.schedule, latest, now)
                except EventEngineUnavailable as fault:
                    log.warning("a tick of %s cannot be published, trying again: %s", name, fault)
                    return False
            else:
                log.warning("%s missed its tick at %s", name, entry.schedule.local(latest))
            entry.seen = latest
        entry.trying, entry.looked = None, now
        entry.due = entry.schedule.next(now) or float("inf")
        return True

    async def _publish(self, name: str, schedule: Schedule, tick: int, now: float) -> None:
        """Publish a tick, unless others did so long ago or too many wait. Raises
        `EventEngineUnavailable`."""
        event = tick_event(name, schedule, tick, now)
        late = now - tick > LATE
        if late and self._ledger is not None and await self._ledger.history(event.id) is not None:
            return
        if await self._ticks.waiting(name, MOST_WAITING) >= MOST_WAITING:
            log.warning("%s is behind: its tick at %s is left out", name, event.body["scheduled_iso"])
            return
        await self._outbox.publish([event])


def tick_event(handler: str, schedule: Schedule, tick: int, now: float) -> NewEvent:
    """Return the event of a handler's tick; all gateways make the same one of it."""
    return NewEvent(
        id=f"tick.{handler}.{tick}",
        type=SCHEDULE,
        handlers=(handler,),
        body=tick_body(handler, schedule, tick),
        created=now,
    )
