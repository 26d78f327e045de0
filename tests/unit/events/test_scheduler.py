"""Tests of gateway.events.scheduler: ticks reach the journal once, in time, and never in heaps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.domain.schedules import Cron, Every, Schedule
from gateway.errors import EventEngineUnavailable
from gateway.events.journal import Journal
from gateway.events.protocols import Ledger, NewEvent
from gateway.events.scheduler import (
    CHECK_INTERVAL,
    MAX_DELAY,
    MAX_WAITING,
    RETRY_DELAY,
    Scheduler,
    tick_event,
)
from gateway.storage import waiting
from tests.support.harness import TIMEOUT
from tests.support.records import result_of as result

HOUR = 3600
START = 1_767_225_600.0
"""2026-01-01T00:00:00Z, a Thursday."""

NIGHTLY = Cron("5 3 * * *")
AT_NIGHT = int(START) + 3 * HOUR + 300


@dataclass
class Clock:
    """A wall clock that the test sets."""

    time: float = START

    def __call__(self) -> float:
        return self.time


class Moody:
    """The journal's outbox; raises `EventEngineUnavailable` while it is `away`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.away = False
        self.published = asyncio.Event()

    async def publish(self, events: Sequence[NewEvent]) -> None:
        if self.away:
            raise EventEngineUnavailable("gone for lunch")
        await self._journal.outbox.publish(events)
        self.published.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(journal: Journal) -> Moody:
    return Moody(journal)


Make = Callable[..., Scheduler]


@pytest.fixture
def make(journal: Journal, outbox: Moody, clock: Clock) -> Make:
    """Make a timetable that has taken its schedules over, but looks only when told to."""

    def make(ledger: Ledger | None = None, **schedules: Schedule) -> Scheduler:
        timetable = Scheduler(outbox, journal.schedule_state, ledger=ledger, clock=clock)
        timetable.refresh(schedules)
        return timetable

    return make


def rows(journal: Journal, statement: str) -> list[Any]:
    def operation(db: sqlite3.Connection) -> list[Any]:
        return db.execute(statement).fetchall()

    return result(journal._database.submit(operation))


def told(journal: Journal) -> list[str]:
    return [row[0] for row in rows(journal, "SELECT event_id FROM deliveries ORDER BY seq")]


def finish(journal: Journal) -> None:
    rows(journal, "UPDATE deliveries SET state = 'done'")


async def test_a_tick_is_published_when_it_is_due_and_once(
    make: Make, journal: Journal, clock: Clock
) -> None:
    timetable = make(nightly=NIGHTLY)
    assert await timetable.publish_due() == CHECK_INTERVAL
    clock.time = AT_NIGHT - 0.5
    assert await timetable.publish_due() == 0.5
    clock.time = AT_NIGHT + 0.01
    await timetable.publish_due()
    clock.time += 1
    await timetable.publish_due()
    assert told(journal) == [f"tick.nightly.{AT_NIGHT}"]


async def test_a_tick_says_when_it_was_meant(make: Make, journal: Journal, clock: Clock) -> None:
    event = tick_event("nightly", Cron("5 3 * * *", "Europe/Rome"), AT_NIGHT, START)
    assert (event.id, event.type, event.handlers) == (
        f"tick.nightly.{AT_NIGHT}",
        "Schedule",
        ("nightly",),
    )
    assert event.body == {
        "handler": "nightly",
        "scheduled": AT_NIGHT,
        "scheduled_iso": "2026-01-01T04:05:00+01:00",
    }


async def test_two_timetables_make_one_delivery_of_a_tick(
    make: Make, journal: Journal, clock: Clock
) -> None:
    both = [make(often=Every(10)), make(often=Every(10))]
    for _ in range(3):
        for timetable in both:
            await timetable.publish_due()
        clock.time += 10
    assert len(told(journal)) == 2


async def test_nothing_is_made_up_for_when_a_handler_is_first_seen(
    make: Make, journal: Journal, clock: Clock
) -> None:
    clock.time = AT_NIGHT + 7 * HOUR
    await make(nightly=Cron("5 3 * * *", catch_up=True)).publish_due()
    assert told(journal) == []


@pytest.mark.parametrize(
    ("catch_up", "schedule"),
    [(True, Cron("5 3 * * *", catch_up=True)), (False, NIGHTLY)],
    ids=["with catch_up", "without"],
)
async def test_after_a_stop_only_the_latest_missed_tick_is_made_up_for(
    make: Make, journal: Journal, clock: Clock, catch_up: bool, schedule: Schedule
) -> None:
    await make(nightly=schedule).publish_due()
    clock.time = AT_NIGHT + 40 * 24 * HOUR + 600
    await make(nightly=schedule).publish_due()
    await make(nightly=schedule).publish_due()
    assert told(journal) == ([f"tick.nightly.{AT_NIGHT + 40 * 24 * HOUR}"] if catch_up else [])


async def test_a_quick_restart_does_not_lose_the_tick_it_fell_into(
    make: Make, journal: Journal, clock: Clock
) -> None:
    clock.time = AT_NIGHT - 1
    await make(nightly=NIGHTLY).publish_due()
    clock.time = AT_NIGHT + MAX_DELAY
    await make(nightly=NIGHTLY).publish_due()
    assert told(journal) == [f"tick.nightly.{AT_NIGHT}"]


async def test_a_schedule_that_was_changed_meanwhile_makes_up_for_nothing(
    make: Make, journal: Journal, clock: Clock
) -> None:
    await make(nightly=Cron("5 3 * * *", catch_up=True)).publish_due()
    clock.time = START + 5 * HOUR
    await make(nightly=Cron("5 4 * * *", catch_up=True)).publish_due()
    assert told(journal) == []


async def test_a_clock_that_jumps_ahead_publishes_one_tick_and_goes_on(
    make: Make, journal: Journal, clock: Clock
) -> None:
    timetable = make(often=Every(10, catch_up=True))
    await timetable.publish_due()
    clock.time += 1000 * HOUR + 3
    await timetable.publish_due()
    clock.time += 10
    await timetable.publish_due()
    assert told(journal) == [f"tick.often.{int(START) + 1000 * HOUR + more}" for more in (0, 10)]


async def test_a_clock_that_is_set_back_repeats_no_tick_and_keeps_ticking(
    make: Make, journal: Journal, clock: Clock
) -> None:
    timetable = make(often=Every(10))
    await timetable.publish_due()
    clock.time += 20
    await timetable.publish_due()
    clock.time -= 15
    for _ in range(3):
        assert await timetable.publish_due() == 5
        clock.time += 5
        await timetable.publish_due()
        clock.time += 5
    assert told(journal) == [f"tick.often.{int(START) + more}" for more in (20, 10, 30)]


async def test_a_clock_that_was_years_ahead_does_not_silence_a_handler(
    make: Make, journal: Journal, clock: Clock
) -> None:
    clock.time = START + 30_000 * HOUR
    await make(often=Every(10)).publish_due()
    clock.time = START
    timetable = make(often=Every(10))
    await timetable.publish_due()
    clock.time += 10
    await timetable.publish_due()
    assert told(journal) == [f"tick.often.{int(START) + 10}"]


async def test_while_the_engine_is_away_a_tick_is_tried_until_the_next_is_due(
    make: Make, journal: Journal, clock: Clock, outbox: Moody
) -> None:
    timetable = make(hourly=Every(HOUR))
    await timetable.publish_due()
    outbox.away = True
    clock.time = START + HOUR
    assert await timetable.publish_due() == RETRY_DELAY
    clock.time += HOUR - 1
    assert await timetable.publish_due() == RETRY_DELAY
    outbox.away = False
    await timetable.publish_due()
    assert told(journal) == [f"tick.hourly.{int(START) + HOUR}"]
    outbox.away = True
    clock.time += 1
    await timetable.publish_due()
    clock.time += HOUR
    await timetable.publish_due()
    outbox.away = False
    await timetable.publish_due()
    assert told(journal)[1:] == [f"tick.hourly.{int(START) + 3 * HOUR}"]


async def test_a_handler_whose_tick_cannot_be_published_holds_up_no_other(
    make: Make, journal: Journal, clock: Clock
) -> None:
    class Away:
        async def history(self, event_id: str) -> None:
            raise EventEngineUnavailable("gone for lunch")

    schedules: Mapping[str, Schedule] = {"a": Every(HOUR, catch_up=True), "b": Every(HOUR)}
    await make(**schedules).publish_due()
    clock.time = START + HOUR + MAX_DELAY + 1
    timetable = make(ledger=Away(), **schedules)
    assert await timetable.publish_due() == RETRY_DELAY
    clock.time = START + 2 * HOUR
    await timetable.publish_due()
    assert told(journal) == [f"tick.{name}.{int(START) + 2 * HOUR}" for name in "ab"]


async def test_a_tick_that_another_gateway_made_up_for_is_not_published_again(
    make: Make, journal: Journal, clock: Clock
) -> None:
    asked = []

    class Knows:
        async def history(self, event_id: str) -> object:
            asked.append(event_id)
            return "a story"

    schedule = Every(HOUR, catch_up=True)
    await make(hourly=schedule).publish_due()
    clock.time = START + HOUR + MAX_DELAY + 1
    await make(ledger=Knows(), hourly=schedule).publish_due()
    assert asked == [f"tick.hourly.{int(START) + HOUR}"]
    assert told(journal) == []


async def test_a_handler_that_is_behind_gathers_a_few_ticks_only(
    make: Make, journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    timetable = make(often=Every(10))
    with caplog.at_level(logging.WARNING, "gateway.scheduler"):
        for _ in range(MAX_WAITING + 3):
            await timetable.publish_due()
            clock.time += 10
    assert len(told(journal)) == MAX_WAITING
    assert "often is behind" in caplog.text
    finish(journal)
    await timetable.publish_due()
    assert len(told(journal)) == MAX_WAITING + 1


async def test_a_reload_brings_new_schedules_and_ends_those_that_are_gone(
    make: Make, journal: Journal, clock: Clock
) -> None:
    timetable = make(old=Every(10), kept=Every(10))
    await timetable.publish_due()
    timetable.refresh({"kept": Every(10), "new": Every(20)})
    clock.time += 10
    await timetable.publish_due()
    clock.time += 10
    await timetable.publish_due()
    first, second = int(START) + 10, int(START) + 20
    assert told(journal) == [f"tick.kept.{first}", f"tick.kept.{second}", f"tick.new.{second}"]


async def test_a_running_timetable_ticks_by_itself_and_follows_a_reload(
    journal: Journal, outbox: Moody
) -> None:
    timetable = Scheduler(outbox, journal.schedule_state)
    await timetable.start({})
    timetable.refresh({"often": Every(1)})
    async with asyncio.timeout(TIMEOUT):
        await outbox.published.wait()
    await timetable.stop()
    [delivery] = await journal.queue.claim("often", 5, 0)
    assert delivery.event == "Schedule"
    assert delivery.upload_id is None
    assert delivery.body["handler"] == "often"


async def test_it_stops_where_the_engine_drops_the_cancellation(
    journal: Journal, outbox: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def publish(_: Sequence[NewEvent]) -> None:
        if not asked.is_set():
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    monkeypatch.setattr(outbox, "publish", publish)
    monkeypatch.setattr(waiting, "CANCEL_INTERVAL", 0.01)
    timetable = Scheduler(outbox, journal.schedule_state)
    await timetable.start({})
    timetable.refresh({"often": Every(1)})
    async with asyncio.timeout(TIMEOUT):
        await asked.wait()
        await timetable.stop()


async def test_a_schedule_that_fails_silences_no_other(
    make: Make, journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Every):
        def latest(self, now: float) -> int:
            raise ZeroDivisionError

    timetable = make(bad=Broken(1), often=Every(10))
    await timetable.publish_due()
    clock.time += 10
    await timetable.publish_due()
    assert told(journal) == [f"tick.often.{int(START) + 10}"]
    assert "the schedule of bad failed" in caplog.text


async def test_a_crash_between_the_tick_and_its_note_makes_no_second_delivery(
    make: Make, journal: Journal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(memory: object) -> None:
        raise EventEngineUnavailable("gone for lunch")

    await make(often=Every(10)).publish_due()
    clock.time += 10
    with monkeypatch.context() as broken:
        broken.setattr(journal.schedule_state, "save", away)
        assert await make(often=Every(10)).publish_due() == RETRY_DELAY
    finish(journal)
    await make(often=Every(10)).publish_due()
    assert told(journal) == [f"tick.often.{int(START) + 10}"]
