"""The runner with a real journal: who runs when, how often, and what becomes of it at the end."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import runner as runner_module
from gateway.events.journal import Journal
from gateway.events.queue import Claim
from gateway.events.runner import LONGEST_SLEEP, MAX_ERROR, Runner, pause
from gateway.hooks import HandlerFailed, HandlerGone
from gateway.model import UPLOADED, Delivery, HandlerSpec, RetryPolicy
from tests.records import now, ready, record, states

SECONDS = 30.0
Deliver = Callable[[Delivery, dict[str, Any]], Awaitable[None]]


def spec(
    name: str = "h", concurrency: int = 4, attempts: int = 3, backoff: float = 0.001
) -> HandlerSpec:
    return HandlerSpec(name, UPLOADED, 10.0, concurrency, RetryPolicy(attempts, backoff, backoff))


class Bench:
    """A runner with a journal, counting how its runs end; `deliver` is the test's."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.deliver: Deliver = self.nothing
        self.outcomes: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        self.runner = Runner(
            journal.queue,
            journal.ledger,
            deliver=self._deliver,
            complete=lambda delivery: {**delivery.body, "attempt": delivery.attempt},
            observe=self._observe,
            retention=3600.0,
        )

    async def nothing(self, delivery: Delivery, event: dict[str, Any]) -> None:
        """Be a handler that succeeds."""

    async def _deliver(self, delivery: Delivery, event: dict[str, Any]) -> None:
        await self.deliver(delivery, event)

    def _observe(self, handler: str, outcome: str, seconds: float) -> None:
        self.outcomes.append((handler, outcome))
        self._changed.set()

    def publish(self, *names: str, handlers: tuple[str, ...] = ("h",)) -> None:
        ready(self.journal, *names, handlers=handlers)
        self.runner.wake()

    async def ended(self, count: int) -> None:
        """Wait until `count` runs have ended."""
        async with asyncio.timeout(SECONDS):
            while len(self.outcomes) < count:
                self._changed.clear()
                await self._changed.wait()

    async def stop(self, grace: float = SECONDS) -> None:
        async with asyncio.timeout(SECONDS):
            await self.runner.stop(grace)


@pytest.fixture
async def bench(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(runner_module, "LONGEST_SLEEP", 1e6)
    monkeypatch.setattr(runner_module, "JOURNAL_PAUSE", 0.001)
    made = Bench(journal)
    yield made
    await made.stop(0)


async def test_it_is_woken_by_new_work_and_needs_no_clock(bench: Bench) -> None:
    await bench.runner.start([spec()])
    for count in range(1, 6):
        bench.publish(f"u{count}")
        await bench.ended(count)
    await bench.stop()
    assert set(states(bench.journal).values()) == {"done"}
    assert bench.outcomes == [("h", "done")] * 5


async def test_work_that_comes_while_it_looks_is_not_overlooked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer, real = asyncio.Event(), Future[Claim](), bench.journal.queue.claim

    def claim(handler: str, limit: int) -> Future[Claim]:
        if asked.is_set():
            return real(handler, limit)
        asked.set()
        return answer

    monkeypatch.setattr(bench.journal.queue, "claim", claim)
    await bench.runner.start([spec()])
    await asked.wait()
    bench.publish("a")
    answer.set_result(Claim([], None))
    await bench.ended(1)


async def test_work_that_waits_at_the_start_is_done(bench: Bench) -> None:
    bench.publish("a", "b")
    await bench.runner.start([spec()])
    await bench.ended(2)


async def test_the_slots_of_a_handler_are_all_used_and_never_exceeded(bench: Bench) -> None:
    running = highest = 0
    full, go_on = asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        if running == 3:
            full.set()
        await go_on.wait()
        await asyncio.sleep(0)
        running -= 1

    bench.deliver = deliver
    bench.publish(*(f"u{number}" for number in range(20)))
    await bench.runner.start([spec(concurrency=3)])
    async with asyncio.timeout(SECONDS):
        await full.wait()
    assert sorted(states(bench.journal).values()) == ["ready"] * 17 + ["running"] * 3
    go_on.set()
    await bench.ended(20)
    assert highest == 3


async def test_a_slow_handler_does_not_hold_up_another(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def deliver(delivery: Delivery, _: dict[str, Any]) -> None:
        if delivery.handler == "slow":
            await go_on.wait()

    bench.deliver = deliver
    bench.publish(*"abcdefgh", handlers=("slow", "quick"))
    await bench.runner.start([spec("slow", concurrency=1), spec("quick", concurrency=1)])
    await bench.ended(8)
    assert {handler for handler, _ in bench.outcomes} == {"quick"}
    go_on.set()
    await bench.ended(16)


async def test_a_failing_handler_runs_again_until_its_attempts_are_used_up(bench: Bench) -> None:
    attempts: list[int] = []

    async def deliver(delivery: Delivery, event: dict[str, Any]) -> None:
        attempts.append(event["attempt"])
        raise HandlerFailed(f"no {delivery.attempt}", "the traceback")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=3)])
    await bench.ended(3)
    await bench.stop()
    assert attempts == [1, 2, 3]
    assert [outcome for _, outcome in bench.outcomes] == ["retry", "retry", "dead"]
    history = now(bench.journal.ledger.history("e-a"))
    assert history is not None
    (delivery,) = history["handlers"]
    assert (delivery["state"], delivery["error"]) == ("dead", "no 3\nthe traceback")
    assert [run["error"][:4] for run in delivery["runs"]] == ["no 1", "no 2", "no 3"]


async def test_an_error_is_kept_bounded(bench: Bench) -> None:
    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        raise HandlerFailed("x" * 100_000, "")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=1)])
    await bench.ended(1)
    await bench.stop()
    (row,) = now(bench.journal.ledger.page("dead", None, 0, 1))
    assert len(row["error"]) == MAX_ERROR


async def test_a_handler_that_recovers_is_done(bench: Bench) -> None:
    async def deliver(delivery: Delivery, _: dict[str, Any]) -> None:
        if delivery.attempt < 3:
            raise HandlerFailed("not yet", "")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=3)])
    await bench.ended(3)
    await bench.stop()
    assert states(bench.journal) == {("e-a", "h"): "done"}


async def test_a_handler_that_is_gone_means_a_dead_delivery_at_once(bench: Bench) -> None:
    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        raise HandlerGone("no such handler")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec()])
    await bench.ended(1)
    assert bench.outcomes == [("h", "dead")]


async def test_our_own_mistake_counts_as_a_failed_attempt(bench: Bench) -> None:
    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        raise KeyError("secret-value")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=2)])
    await bench.ended(2)
    await bench.stop()
    (row,) = now(bench.journal.ledger.page("dead", None, 0, 1))
    assert row["error"] == "the gateway failed: KeyError"


async def test_an_attempt_beyond_the_last_is_not_run(bench: Bench) -> None:
    ready(bench.journal, "a")
    for _ in range(2):  # two processes died with it
        now(bench.journal.queue.claim("h", 1))
        now(bench.journal.queue.resume())
    told: list[Delivery] = []

    async def deliver(delivery: Delivery, _: dict[str, Any]) -> None:
        told.append(delivery)

    bench.deliver = deliver
    await bench.runner.start([spec(attempts=2)])
    await bench.ended(1)
    assert (bench.outcomes, told) == ([("h", "dead")], [])


# -- a journal that fails for a while


class Failing:
    """Fails the first `times` calls of a method as a full disk would, then works."""

    def __init__(self, real: Callable[..., Future[Any]], times: int) -> None:
        self._real = real
        self.left = times

    def __call__(self, *arguments: Any) -> Future[Any]:
        if self.left:
            self.left -= 1
            future: Future[Any] = Future()
            future.set_exception(sqlite3.OperationalError("database or disk is full"))
            return future
        return self._real(*arguments)


@pytest.mark.parametrize("method", ["settle", "claim"])
async def test_a_journal_that_fails_for_a_while_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    failing = Failing(getattr(bench.journal.queue, method), 2)
    monkeypatch.setattr(bench.journal.queue, method, failing)
    await bench.runner.start([spec()])
    bench.publish("a", "b", "c")
    await bench.ended(3)
    await bench.stop()
    assert failing.left == 0
    assert set(states(bench.journal).values()) == {"done"}
    assert bench.outcomes == [("h", "done")] * 3


# -- the end


async def test_stopping_waits_for_runs_and_claims_nothing_more(bench: Bench) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        started.set()
        await go_on.wait()

    bench.deliver = deliver
    bench.publish("a", "b")
    await bench.runner.start([spec(concurrency=1)])
    await started.wait()
    stopping = asyncio.create_task(bench.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    go_on.set()
    await stopping
    bench.publish("c")
    assert sorted(states(bench.journal).values()) == ["done", "ready", "ready"]


async def test_what_does_not_end_in_time_is_handed_back_without_using_an_attempt(bench: Bench) -> None:
    started = asyncio.Event()

    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec()])
    await started.wait()
    await bench.stop(grace=0)
    (row,) = now(bench.journal.ledger.page(None, None, 0, 1))
    assert (row["state"], row["attempt"]) == ("ready", 0)
    assert now(bench.journal.queue.resume()) == (0, 0)


async def test_a_claim_that_is_on_its_way_when_the_end_comes_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.journal.queue.claim
    asked, answer = asyncio.Event(), Future[Claim]()

    def claim(handler: str, limit: int) -> Future[Claim]:
        asked.set()
        return answer

    monkeypatch.setattr(bench.journal.queue, "claim", claim)
    bench.publish("a")
    await bench.runner.start([spec()])
    await asked.wait()
    stopping = asyncio.create_task(bench.stop())
    await asyncio.sleep(0)
    answer.set_result(now(real("h", 1)))
    await stopping
    assert bench.outcomes == [("h", "done")]
    assert states(bench.journal) == {("e-a", "h"): "done"}


# -- a reload


async def test_after_a_reload_the_new_handler_gets_deliveries_and_the_removed_one_none(
    bench: Bench,
) -> None:
    await bench.runner.start([spec("old")])
    bench.publish("a", handlers=("old",))
    await bench.ended(1)
    await bench.runner.refresh([spec("new")])
    bench.publish("b", handlers=("old", "new"))
    await bench.ended(2)
    await bench.stop()
    assert [handler for handler, _ in bench.outcomes] == ["old", "new"]
    assert states(bench.journal)["e-b", "old"] == "ready"


async def test_deliveries_of_a_removed_handler_wait_dead(bench: Bench) -> None:
    ready(bench.journal, "a", handlers=("gone",))
    await bench.runner.start([spec("here")])
    assert states(bench.journal) == {("e-a", "gone"): "dead"}


async def test_a_run_of_a_removed_handler_is_finished_and_not_tried_again(bench: Bench) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        started.set()
        await go_on.wait()
        raise HandlerFailed("too late", "")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec()])
    await started.wait()
    await bench.runner.refresh([])
    go_on.set()
    await bench.ended(1)
    await bench.stop()
    assert states(bench.journal) == {("e-a", "h"): "dead"}


async def test_a_reload_changes_the_number_of_slots(bench: Bench) -> None:
    running, four, go_on = 0, asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery, __: dict[str, Any]) -> None:
        nonlocal running
        running += 1
        if running == 4:
            four.set()
        await go_on.wait()

    bench.deliver = deliver
    bench.publish(*"abcd")
    await bench.runner.start([spec(concurrency=1)])
    await bench.runner.refresh([spec(concurrency=4)])
    async with asyncio.timeout(SECONDS):
        await four.wait()
    go_on.set()


# -- keeping house


async def test_what_is_done_and_older_than_the_retention_is_pruned(bench: Bench) -> None:
    old = record("old", ())
    now(bench.journal.outbox.record([old, record("young", ())]))
    long_ago = time.time() - 7200
    now(
        bench.journal._database.submit(
            lambda db: db.execute("UPDATE uploads SET committed = ? WHERE id = 'old'", (long_ago,))
        )
    )
    await bench.runner.start([])
    async with asyncio.timeout(SECONDS):
        while now(bench.journal.ledger.story("old")) is not None:
            await asyncio.sleep(0)
    assert now(bench.journal.ledger.story("young")) is not None


# -- the pause


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(1, 10_000))
def test_the_pause_doubles_up_to_its_bound_and_half_of_it_is_random(
    backoff: float, longest: float, attempt: int
) -> None:
    policy = RetryPolicy(8, backoff, longest)
    full = min(backoff * 2.0 ** min(attempt - 1, 100), longest)
    for _ in range(5):
        seconds = pause(policy, attempt)
        assert full / 2 <= seconds <= full


def test_pauses_differ() -> None:
    assert len({pause(RetryPolicy(), 3) for _ in range(20)}) > 1
    assert LONGEST_SLEEP <= 60
