"""Deliveries when the wall clock was wrong: nothing waits because of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from gateway.domain.model import UPLOADED, Delivery, HandlerSpec, RetryPolicy
from gateway.events import claims, ledger, ledger_queries, outbox, queue, relay
from gateway.events.dispatch import RunResult
from gateway.events.journal import Journal
from gateway.events.protocols import NewEvent, Selection, Verb, run_all
from gateway.events.relay import OutgoingDelivery, Relay, RelayContext
from gateway.events.runner import Runner
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    run_sync,
    settle_run,
)

HOUR = 3600.0


class Clock:
    """The wall clock of the journal's modules, `ahead` seconds ahead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        clock = SimpleNamespace(time=lambda: time.time() + self.ahead, monotonic=time.monotonic)
        for module in (claims, ledger, ledger_queries, outbox, queue):
            monkeypatch.setattr(module, "time", clock)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def claimed(journal: Journal, limit: int = 10) -> list[str | None]:
    return [delivery.upload_id for delivery in claim_deliveries(journal, limit=limit)]


def test_what_was_recorded_while_the_clock_was_ahead_is_due_at_once(
    journal: Journal, clock: Clock
) -> None:
    clock.ahead = HOUR
    publish_uploads(journal, "a")
    run_sync(journal.outbox.publish([NewEvent("b", UPLOADED, ("h",), {}, 1.0, upload_id="b")]))
    clock.ahead = 0.0
    assert set(delivery_states(journal).values()) == {"ready"}
    assert sorted(filter(None, claimed(journal))) == ["a", "b"]


@pytest.mark.parametrize("way", ["requeue", "recover", "retry", "replay", "retry of a delayed one"])
def test_what_was_made_due_while_the_clock_was_ahead_is_due_at_once(
    journal: Journal, clock: Clock, way: str
) -> None:
    clock.ahead = HOUR
    publish_uploads(journal, "a")
    delivery = claim_deliveries(journal)[0]
    if way == "requeue":
        run_sync(journal.queue.requeue([delivery]))
    elif way == "recover":
        result_of(journal.queue.recover())
    else:
        outcome = {"retry": "dead", "replay": "done"}.get(way, "retry")
        settle_run(journal, delivery, outcome, delay=60.0)
        verb: Verb = "replay" if way == "replay" else "retry"
        assert run_sync(run_all(journal.ledger, verb, Selection(handler="h"))) == 1
    clock.ahead = 0.0
    assert claimed(journal) == ["a"]


def test_a_retry_of_a_clock_that_was_ahead_waits_for_the_longest_back_off_at_most(
    journal: Journal, clock: Clock
) -> None:
    publish_uploads(journal, "soon", "late")
    settle_run(journal, claim_deliveries(journal)[0], "retry", delay=60.0)
    clock.ahead = HOUR
    settle_run(journal, claim_deliveries(journal)[0], "retry", delay=60.0)
    clock.ahead = 0.0
    assert run_sync(journal.queue.limit_delays("h", 60.0)) == 1
    assert run_sync(journal.queue.limit_delays("h", 60.0)) == 0
    assert claimed(journal) == ["late"]


def test_what_was_delayed_and_what_is_new_take_turns_by_age(journal: Journal) -> None:
    publish_uploads(journal, "first")
    publish_uploads(journal, "second")
    for _ in range(2):
        settle_run(journal, claim_deliveries(journal)[0], "retry", delay=1e-6)
        publish_uploads(journal, f"new{_}")
    assert claimed(journal, 1) == ["first"]
    assert claimed(journal, 2) == ["new0", "second"]


async def test_nothing_is_pruned_in_a_round_in_which_the_clock_was_set(
    journal: Journal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, rounds = asyncio.Queue[None](), asyncio.Queue[None]()
    pruned = asyncio.Queue[float]()

    async def next_round(_: float) -> None:
        waiting.put_nowait(None)
        await rounds.get()

    async def prune(before: float, _: float) -> int:
        pruned.put_nowait(before)
        return 0

    monkeypatch.setattr(ledger, "asyncio", SimpleNamespace(sleep=next_round))
    monkeypatch.setattr(journal.ledger, "prune", prune)
    pruning = asyncio.create_task(journal.ledger.prune_periodically(HOUR, HOUR))
    async with asyncio.timeout(30):
        for ahead in (30 * HOUR, 0.0):
            await waiting.get()
            clock.ahead = ahead
            rounds.put_nowait(None)
        await waiting.get()
        assert pruned.empty()
        rounds.put_nowait(None)
        assert await pruned.get() < time.time()
    pruning.cancel()


class Engine:
    """A remote engine that takes nothing, and then everything."""

    def __init__(self) -> None:
        self.takes = False
        self.refused, self.taken = asyncio.Event(), asyncio.Event()

    async def wait_ready(self) -> None:
        """Be ready."""

    async def send(self, deliveries: Sequence[OutgoingDelivery]) -> list[Exception | None]:
        (self.taken if self.takes else self.refused).set()
        return [None if self.takes else ValueError("too large") for _ in deliveries]


async def test_a_relay_sends_what_a_clock_that_was_ahead_had_delayed(
    journal: Journal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "DEPTH_INTERVAL", 0.01)

    async def no_etags(_: Sequence[str]) -> dict[str, str]:
        return {}

    engine = Engine()
    context = RelayContext(lambda: "a:1", "http", no_etags, journal.ledger.depth)
    sender = Relay(journal.queue, engine, context)
    clock.ahead = 30 * HOUR
    publish_uploads(journal, "a")
    sender.start()
    async with asyncio.timeout(30):
        await engine.refused.wait()
        while delivery_states(journal)["e-a", "h"] != "delayed":
            await asyncio.sleep(0.005)  # only the journal shows it
        engine.takes = True
        clock.ahead = 0.0
        await engine.taken.wait()
    await sender.stop()


class Dispatcher:
    """Runs every delivery well."""

    def __init__(self) -> None:
        self.ran = asyncio.Event()

    def submit(self, delivery: Delivery, done: Callable[[RunResult], None]) -> None:
        """Leave it to `run`."""

    async def run(self, delivery: Delivery) -> RunResult:
        self.ran.set()
        return RunResult("succeeded")

    def slots(self, spec: HandlerSpec) -> int:
        return spec.concurrency

    def record_run(self, handler: str, outcome: str, seconds: float) -> None:
        """Count nothing."""


async def test_a_start_delivers_what_a_clock_that_was_ahead_had_delayed(
    journal: Journal, clock: Clock
) -> None:
    clock.ahead = HOUR
    publish_uploads(journal, "a")
    settle_run(journal, claim_deliveries(journal)[0], "retry", delay=60.0)
    clock.ahead = 0.0
    dispatcher = Dispatcher()
    runner = Runner(journal.queue, dispatcher, dispatcher)
    spec = HandlerSpec("h", UPLOADED, timeout=5, retry=RetryPolicy(max_backoff=60.0))
    await runner.start([spec])
    async with asyncio.timeout(30):
        await dispatcher.ran.wait()
    await runner.stop(30)
