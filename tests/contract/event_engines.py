"""What every engine of events must do: one suite, held to `gateway.events.protocols`.

An engine is tested by a subclass of `Conformance` (named `Test...`) in a module of its own, with a
fixture `engine` that gives an `Engine`. A test that an engine cannot meet is overridden there, with
the reason. Nothing here knows which engine it is.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from gateway.domain.model import Delivery
from gateway.events.error_groups import change_group, group_errors
from gateway.events.protocols import (
    DeliveryRow,
    Depth,
    Ledger,
    NewEvent,
    Outbox,
    Queue,
    RunOutput,
    Selection,
    run_all,
)
from tests.support.harness import wait_until

SECONDS = 30.0
"""How long the suite waits for what must come."""

_numbers = itertools.count(1)


@dataclass
class Engine:
    """An engine under test. `quiet` is how long (seconds) to wait before "nothing came" is believed.

    `crash()` lets the process that claimed die, as seen from the engine, and returns when
    its deliveries may be claimed again (those of an engine with leases: when they have ended).
    """

    outbox: Outbox
    queue: Queue
    ledger: Ledger
    crash: Callable[[], Awaitable[None]]
    quiet: float = 0.0

    async def publish(self, *handlers: str, count: int = 1) -> list[NewEvent]:
        """Publish new events for these handlers (`h`, if none is named)."""
        events = [_event(handlers or ("h",)) for _ in range(count)]
        await self.outbox.publish(events)
        return events

    async def claim(self, handler: str = "h", limit: int = 1) -> list[Delivery]:
        """Claim what must come."""
        return await self.queue.claim(handler, limit, SECONDS)

    async def claim_one(self, handler: str = "h") -> Delivery:
        (delivery,) = await self.claim(handler)
        return delivery

    async def nothing_for(self, handler: str = "h") -> bool:
        """Whether nothing can be claimed now."""
        return await self.queue.claim(handler, 10, self.quiet) == []

    async def row(self, event: NewEvent, handler: str = "h") -> DeliveryRow | None:
        """Return what the ledger shows of a delivery."""
        page = await self.ledger.page(Selection(handler=handler, events=(event.id,)), None, 10)
        return page.rows[0] if page.rows else None

    async def state(self, event: NewEvent, handler: str = "h") -> str | None:
        row = await self.row(event, handler)
        return row.state if row else None


async def becomes(engine: Engine, event: NewEvent, state: str | None, handler: str = "h") -> None:
    """Wait until the ledger shows a delivery in a state (None: not at all)."""

    async def reached() -> bool:
        return await engine.state(event, handler) == state

    await wait_until(reached)


def _event(handlers: tuple[str, ...]) -> NewEvent:
    number = next(_numbers)
    body = {"number": number, "text": "ü\n\x00", "list": [1, None, {"a": 1.5}]}
    return NewEvent(f"event-{number:06}", "APIGW.OnSomething", handlers, body, time.time())


class Conformance:
    """The suite."""

    # -- in and out

    async def test_a_published_event_is_claimed_as_it_was_told(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        delivery = await engine.claim_one()
        assert (delivery.event_id, delivery.event, delivery.handler) == (event.id, event.type, "h")
        assert (delivery.attempt, delivery.upload_id, delivery.body) == (1, None, event.body)

    async def test_an_event_with_a_file_tells_upload_path_and_holder(self, engine: Engine) -> None:
        plain = _event(("h",))
        event = replace(plain, upload_id="u-1", path="/upload/ü", holder="host:1")
        await engine.outbox.publish([event])
        delivery = await engine.claim_one()
        assert (delivery.upload_id, delivery.holder) == ("u-1", "host:1")
        assert delivery.body == {**event.body, "path": "/upload/ü"}
        row = await engine.row(event)
        assert row is not None
        assert (row.upload_id, row.path) == ("u-1", "/upload/ü")

    async def test_the_same_event_twice_is_one_delivery_to_each_handler(self, engine: Engine) -> None:
        (event,) = await engine.publish("h", "i")
        await engine.outbox.publish([event, replace(event, handlers=("h",))])
        assert [d.event_id for d in await engine.claim("h", 10)] == [event.id]
        assert [d.event_id for d in await engine.claim("i", 10)] == [event.id]
        assert await engine.nothing_for("h")
        await engine.outbox.publish([event])
        assert await engine.nothing_for("h")

    async def test_publishing_nothing_is_nothing(self, engine: Engine) -> None:
        await engine.outbox.publish([])
        await engine.outbox.publish([replace(_event(("h",)), handlers=())])
        assert await engine.nothing_for("h")

    async def test_a_delivery_is_claimed_by_one_only_and_only_for_its_handler(
        self, engine: Engine
    ) -> None:
        await engine.publish("h", count=3)
        assert await engine.nothing_for("stranger")
        first = await engine.claim("h", 2)
        second = await engine.claim("h", 2)
        assert (len(first), len(second)) == (2, 1)
        assert len({delivery.event_id for delivery in first + second}) == 3
        assert await engine.nothing_for("h")

    async def test_a_claim_that_waits_is_woken_by_what_comes(self, engine: Engine) -> None:
        waiting = asyncio.create_task(engine.claim())
        assert await engine.nothing_for("i")
        (event,) = await engine.publish()
        assert [delivery.event_id for delivery in await waiting] == [event.id]

    async def test_a_claim_waits_no_longer_than_it_was_told(self, engine: Engine) -> None:
        async with asyncio.timeout(SECONDS):
            assert await engine.queue.claim("h", 1, 0.05) == []

    async def test_a_claim_that_is_cancelled_takes_nothing_with_it(self, engine: Engine) -> None:
        waiting = asyncio.create_task(engine.claim())
        assert await engine.nothing_for("i")  # it is waiting by now
        publishing = asyncio.create_task(engine.publish())
        await asyncio.sleep(0)
        waiting.cancel()
        (event,) = await publishing
        await asyncio.wait([waiting])
        if waiting.cancelled():
            delivery = await engine.claim_one()
            assert (delivery.event_id, delivery.attempt) == (event.id, 1)

    async def test_hundreds_of_events_go_through_once_each(self, engine: Engine) -> None:
        events = await engine.publish("h", "i", count=300)
        seen: dict[str, list[str]] = {"h": [], "i": []}
        for handler, told in seen.items():
            while len(told) < len(events):
                claimed = await engine.claim(handler, 64)
                await asyncio.gather(*(engine.queue.ack(delivery, 0.0) for delivery in claimed))
                told += [delivery.event_id for delivery in claimed]
        assert {name: sorted(told) for name, told in seen.items()} == dict.fromkeys(
            "hi", sorted(event.id for event in events)
        )
        assert await engine.nothing_for("h")

    # -- how it ends

    @pytest.mark.leases_end
    async def test_what_is_done_does_not_come_again(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        await engine.queue.ack(await engine.claim_one(), 0.25)
        assert await engine.nothing_for()
        await engine.crash()
        assert await engine.nothing_for()
        await becomes(engine, event, "done")

    async def test_attempts_are_counted_and_pauses_kept(self, engine: Engine) -> None:
        await engine.publish()
        attempts, ended = [], time.monotonic()
        for delay in (0.2, 0.4, 0.0):
            delivery = await engine.claim_one()
            attempts.append((delivery.attempt, round(time.monotonic() - ended, 1)))
            ended = time.monotonic()  # before it: the pause begins somewhere within the call
            await engine.queue.retry(delivery, delay, "not yet", 0.1)
        assert [attempt for attempt, _ in attempts] == [1, 2, 3]
        assert attempts[1][1] >= 0.2
        assert attempts[2][1] >= 0.4

    async def test_a_failing_handler_does_not_touch_another(self, engine: Engine) -> None:
        (event,) = await engine.publish("h", "i")
        await engine.queue.dead_letter(await engine.claim_one("h"), "no way", 0.1)
        delivery = await engine.claim_one("i")
        assert (delivery.event_id, delivery.attempt) == (event.id, 1)
        await engine.queue.ack(delivery, 0.1)
        await becomes(engine, event, "dead", "h")
        await becomes(engine, event, "done", "i")

    async def test_what_is_dead_waits(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        await engine.queue.dead_letter(await engine.claim_one(), "no\nway", 0.1)
        assert await engine.nothing_for()
        await becomes(engine, event, "dead")
        row = await engine.row(event)
        assert row is not None
        assert (row.attempt, row.error, row.handler, row.event) == (1, "no\nway", "h", event.type)

    async def test_handing_back_uses_no_attempt(self, engine: Engine) -> None:
        await engine.publish(count=2)
        claimed = await engine.claim("h", 2)
        await engine.queue.requeue(claimed)
        again: list[Delivery] = []
        while len(again) < 2:
            again += await engine.claim("h", 2)
        assert [delivery.attempt for delivery in again] == [1, 1]

    async def test_handing_back_for_a_while_keeps_the_pause(self, engine: Engine) -> None:
        await engine.publish()
        claimed = await engine.claim_one()
        started = time.monotonic()
        await engine.queue.requeue([claimed], 0.5)
        assert (await engine.claim_one()).attempt == 1
        assert time.monotonic() - started > 0.45

    # -- what dies

    @pytest.mark.leases_end
    async def test_what_a_dead_process_had_claimed_comes_back_with_its_attempt_used(
        self, engine: Engine
    ) -> None:
        await engine.publish()
        lost = await engine.claim_one()
        await engine.crash()
        again = await engine.claim_one()
        assert (again.event_id, again.attempt) == (lost.event_id, 2)

    async def test_a_second_settlement_changes_nothing(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        delivery = await engine.claim_one()
        await engine.queue.ack(delivery, 0.1)
        await engine.queue.dead_letter(delivery, "twice", 0.1)
        await engine.queue.retry(delivery, 0.0, "thrice", 0.1)
        await engine.queue.requeue([delivery])
        assert await engine.nothing_for()
        await becomes(engine, event, "done")

    @pytest.mark.leases_end
    async def test_a_late_settlement_changes_nothing(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        late = await engine.claim_one()
        await engine.crash()
        current = await engine.claim_one()
        await engine.queue.retry(late, 0.0, "late", 0.1)
        await engine.queue.requeue([late])
        assert await engine.nothing_for()
        await engine.queue.ack(current, 0.1)
        await becomes(engine, event, "done")

    @pytest.mark.leases_end
    async def test_a_lease_is_kept_by_touching_and_lost_without(self, engine: Engine) -> None:
        lease = engine.queue.lease
        if lease is None:
            return
        await engine.publish(count=2)
        kept, left = await engine.claim("h", 2)
        started = time.monotonic()
        while time.monotonic() - started < lease * 1.5:
            await engine.queue.extend_leases([kept])
            await asyncio.sleep(lease / 4)
        again = await engine.claim_one()
        assert (again.event_id, again.attempt) == (left.event_id, 2)
        assert await engine.nothing_for()

    # -- how it is seen

    async def test_a_page_shows_what_is_selected(self, engine: Engine) -> None:
        first, second, third = await engine.publish("h", count=3)
        by_id = {delivery.event_id: delivery for delivery in await engine.claim("h", 3)}
        await engine.queue.dead_letter(by_id[first.id], "no", 0.1)
        await engine.queue.retry(by_id[second.id], 900.0, "later", 0.1)
        await becomes(engine, first, "dead")
        await becomes(engine, second, "delayed")
        await becomes(engine, third, "running")
        for state, event in (("dead", first), ("delayed", second), ("running", third)):
            page = await engine.ledger.page(Selection(state=state, handler="h"), None, 10)  # type: ignore[arg-type]
            assert [row.event_id for row in page.rows] == [event.id]
        assert (await engine.ledger.page(Selection(handler="stranger"), None, 10)).rows == []
        later = Selection(since=time.time() + 60, handler="h")
        assert (await engine.ledger.page(later, None, 10)).rows == []

    async def test_pages_follow_each_other_without_gap_or_overlap(self, engine: Engine) -> None:
        events = await engine.publish(count=25)
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await engine.ledger.page(Selection(), after, 10)
            assert len(page.rows) <= 10
            seen += [row.event_id for row in page.rows]
            after = page.next
            if after is None:
                break
        assert sorted(seen) == sorted(event.id for event in events)

    async def test_depth_counts_all_that_is_not_done(self, engine: Engine) -> None:
        await engine.publish("h", "i", count=4)
        first, second, third = await engine.claim("h", 3)
        await engine.queue.ack(first, 0.1)
        await engine.queue.dead_letter(second, "no", 0.1)
        wanted = {("h", "ready"): 1, ("h", "running"): 1, ("h", "dead"): 1, ("i", "ready"): 4}

        async def counted() -> bool:
            return _counts(await engine.ledger.depth()) == wanted

        await wait_until(counted)
        assert third.handler == "h"

    async def test_a_history_tells_body_handlers_and_runs(self, engine: Engine) -> None:
        (event,) = await engine.publish("h", "i")
        await engine.queue.retry(await engine.claim_one("h"), 0.0, "first", 0.25)
        await engine.queue.dead_letter(await engine.claim_one("h"), "second", 0.5)
        await becomes(engine, event, "dead")
        history = await engine.ledger.history(event.id)
        assert history is not None
        assert (history.id, history.type, history.body) == (event.id, event.type, event.body)
        assert [story.row.handler for story in history.deliveries] == ["h", "i"]
        assert history.deliveries[1].runs == []
        runs = [
            (run.attempt, run.outcome, run.error, run.duration) for run in history.deliveries[0].runs
        ]
        assert runs == [(1, "retry", "first", 0.25), (2, "dead", "second", 0.5)]

    async def test_a_history_has_the_result_of_the_latest_run(self, engine: Engine) -> None:
        (event,) = await engine.publish("h", "i")
        await engine.queue.retry(await engine.claim_one("h"), 0.0, "first", 0.1, {"pages": 1})
        delivery = await engine.claim_one("h")
        assert await _results(engine, event) == {"h": {"pages": 1}, "i": None}
        await engine.queue.ack(delivery, 0.1, {"text": "ü\n\x00", "list": [1, None, {"a": 1.5}]})
        await engine.queue.dead_letter(await engine.claim_one("i"), "no way", 0.1, {})
        await becomes(engine, event, "done", "h")
        await becomes(engine, event, "dead", "i")
        last = {"h": {"text": "ü\n\x00", "list": [1, None, {"a": 1.5}]}, "i": {}}
        assert await _results(engine, event) == last

    async def test_a_run_without_a_result_leaves_none_of_an_earlier_one(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        await engine.queue.retry(await engine.claim_one(), 0.0, "first", 0.1, {"pages": 1})
        await engine.queue.ack(await engine.claim_one(), 0.1)
        await becomes(engine, event, "done")
        assert await _results(engine, event) == {"h": None}

    async def test_nobody_has_a_history_of_what_is_unknown(self, engine: Engine) -> None:
        assert await engine.ledger.history("nobody-knows") is None

    # -- how it is steered

    async def test_a_retry_makes_the_dead_due_with_all_their_attempts(self, engine: Engine) -> None:
        dead, other = await engine.publish(count=2)
        for delivery in await engine.claim("h", 2):
            await engine.queue.dead_letter(delivery, "no", 0.1)
        await becomes(engine, dead, "dead")
        await becomes(engine, other, "dead")
        assert await run_all(engine.ledger, "retry", Selection(state="dead", events=(dead.id,))) == 1
        delivery = await engine.claim_one()
        assert (delivery.event_id, delivery.attempt) == (dead.id, 1)
        assert await engine.nothing_for()
        await engine.queue.ack(delivery, 0.1)
        await becomes(engine, dead, "done")
        assert await run_all(engine.ledger, "retry", Selection(state="dead", events=(dead.id,))) == 0

    async def test_what_is_dropped_is_gone_for_good(self, engine: Engine) -> None:
        dead, done = await engine.publish(count=2)
        by_id = {delivery.event_id: delivery for delivery in await engine.claim("h", 2)}
        await engine.queue.dead_letter(by_id[dead.id], "no", 0.1)
        await engine.queue.ack(by_id[done.id], 0.1)
        await becomes(engine, dead, "dead")
        await becomes(engine, done, "done")
        assert await run_all(engine.ledger, "drop", Selection(state="dead")) == 1
        await becomes(engine, dead, None)
        assert await engine.state(done) == "done"
        assert await engine.nothing_for()

    async def test_dead_ones_are_grouped_by_error_and_a_group_is_changed_alone(
        self, engine: Engine
    ) -> None:
        events = await engine.publish(count=3)
        numbers = {event.id: number for number, event in enumerate(events)}
        for delivery in await engine.claim("h", 3):
            number = numbers[delivery.event_id]
            await engine.queue.dead_letter(delivery, "away" if number == 2 else f"row {number}", 0.1)
        for event in events:
            await becomes(engine, event, "dead")
        groups = await group_errors(engine.ledger, Selection(state="dead"))
        assert [(group.error, group.count) for group in groups.groups] == [("row …", 2), ("away", 1)]
        chunk = await change_group(engine.ledger, "drop", Selection(state="dead"), "row …", None)
        assert chunk.count == 2
        assert [await engine.state(event) for event in events] == [None, None, "dead"]

    async def test_a_replay_delivers_again_what_was_done(self, engine: Engine) -> None:
        (event,) = await engine.publish()
        await engine.queue.ack(await engine.claim_one(), 0.1)
        await becomes(engine, event, "done")
        assert await run_all(engine.ledger, "replay", Selection(events=(event.id,))) == 1
        delivery = await engine.claim_one()
        assert (delivery.event_id, delivery.attempt, delivery.body) == (event.id, 1, event.body)
        await engine.queue.ack(delivery, 0.1)
        assert await engine.nothing_for()

    async def test_a_paused_handler_is_not_claimed_until_it_is_resumed(self, engine: Engine) -> None:
        await engine.ledger.pause("h")
        await engine.ledger.pause("h")
        assert await engine.ledger.paused() == {"h"}
        await engine.publish("h", "i")
        assert await engine.nothing_for("h")
        assert len(await engine.claim("i")) == 1
        waiting = asyncio.create_task(engine.claim("h"))
        assert await engine.nothing_for("i")
        await engine.ledger.resume("h")
        assert len(await waiting) == 1
        assert await engine.ledger.paused() == frozenset()


async def _results(engine: Engine, event: NewEvent) -> dict[str, RunOutput | None]:
    history = await engine.ledger.history(event.id)
    assert history is not None
    return {delivery.row.handler: delivery.result for delivery in history.deliveries}


def _counts(depth: list[Depth]) -> dict[tuple[str, str], int]:
    return {(row.handler, row.state): row.count for row in depth if row.count}
