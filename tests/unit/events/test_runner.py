"""The runner with a real journal: who runs when, how often, and what becomes of it at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.model import Delivery, RetryPolicy
from gateway.errors import EventEngineUnavailable
from gateway.events import queue, runs
from gateway.events.dispatch import RunResult
from gateway.events.handler_consumer import EngineBackoff
from gateway.events.journal import Journal
from gateway.events.protocols import Queue
from gateway.events.settlement import MAX_ERROR_LENGTH, retry_delay
from tests.support.records import claim_deliveries, delivery_states, publish_uploads, result_of
from tests.support.runner_bench import SECONDS, RunnerBench, spec


async def test_it_is_woken_by_new_work_and_needs_no_clock(bench: RunnerBench) -> None:
    await bench.runner.start([spec()])
    for count in range(1, 6):
        bench.publish(f"u{count}")
        await bench.ended(count)
    await bench.stop()
    assert set(delivery_states(bench.journal).values()) == {"done"}
    assert bench.outcomes == [("h", "done")] * 5


async def test_work_that_waits_at_the_start_is_done(bench: RunnerBench) -> None:
    bench.publish("a", "b")
    await bench.runner.start([spec()])
    await bench.ended(2)


async def test_the_slots_of_a_handler_are_all_used_and_never_exceeded(bench: RunnerBench) -> None:
    running = highest = 0
    full, go_on = asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery) -> None:
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
    assert sorted(delivery_states(bench.journal).values()) == ["ready"] * 17 + ["running"] * 3
    go_on.set()
    await bench.ended(20)
    assert highest == 3


async def test_a_slow_handler_does_not_hold_up_another(bench: RunnerBench) -> None:
    go_on = asyncio.Event()

    async def deliver(delivery: Delivery) -> None:
        if delivery.handler == "slow":
            await go_on.wait()

    bench.deliver = deliver
    bench.publish(*"abcdefgh", handlers=("slow", "quick"))
    await bench.runner.start([spec("slow", concurrency=1), spec("quick", concurrency=1)])
    await bench.ended(8)
    assert {handler for handler, _ in bench.outcomes} == {"quick"}
    go_on.set()
    await bench.ended(16)


async def test_more_runs_than_slots_are_under_way_where_the_dispatcher_allows_it(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "slots", lambda spec: 5)
    begun: list[Delivery] = []
    go_on = asyncio.Event()

    async def deliver(delivery: Delivery) -> None:
        begun.append(delivery)
        await go_on.wait()

    bench.deliver = deliver
    await bench.start(spec(concurrency=2))
    bench.publish(*"abcdefg")
    await bench.journal.queue.claim("stranger", 1, 0.0)
    await asyncio.sleep(0)
    assert len(begun) == 5
    go_on.set()
    await bench.ended(7)


async def test_a_failing_handler_runs_again_until_its_attempts_are_used_up(bench: RunnerBench) -> None:
    attempts: list[int] = []

    async def deliver(delivery: Delivery) -> RunResult:
        attempts.append(delivery.attempt)
        return RunResult("failed", f"no {delivery.attempt}\nthe traceback")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=3)])
    await bench.ended(3)
    await bench.stop()
    assert attempts == [1, 2, 3]
    assert [outcome for _, outcome in bench.outcomes] == ["retry", "retry", "dead"]
    story = bench.story("a")
    assert (story.row.state, story.row.error) == ("dead", "no 3\nthe traceback")
    assert [(run.error or "")[:4] for run in story.runs] == ["no 1", "no 2", "no 3"]


async def test_what_the_latest_run_left_for_the_client_is_kept_however_it_ended(
    bench: RunnerBench,
) -> None:
    async def deliver(delivery: Delivery) -> RunResult:
        ended: Literal["succeeded", "failed"] = "succeeded" if delivery.event_id == "e-a" else "failed"
        return RunResult(ended, result={"tries": delivery.attempt})

    bench.deliver = deliver
    bench.publish("a", "b")
    await bench.runner.start([spec(attempts=2)])
    await bench.ended(3)
    await bench.stop()
    assert (bench.story("a").row.state, bench.story("a").result) == ("done", {"tries": 1})
    assert (bench.story("b").row.state, bench.story("b").result) == ("dead", {"tries": 2})


async def test_an_error_is_kept_bounded(bench: RunnerBench) -> None:
    async def deliver(_: Delivery) -> RunResult:
        return RunResult("failed", "x" * 100_000)

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=1)])
    await bench.ended(1)
    await bench.stop()
    assert len(bench.story("a").row.error or "") == MAX_ERROR_LENGTH


async def test_a_handler_that_recovers_is_done(bench: RunnerBench) -> None:
    async def deliver(delivery: Delivery) -> RunResult | None:
        if delivery.attempt < 3:
            return RunResult("failed", "not yet")
        return None

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=3)])
    await bench.ended(3)
    await bench.stop()
    assert delivery_states(bench.journal) == {("e-a", "h"): "done"}


async def test_a_handler_that_is_gone_means_a_dead_delivery_at_once(bench: RunnerBench) -> None:
    async def deliver(_: Delivery) -> RunResult:
        return RunResult("gone", "no such handler")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec()])
    await bench.ended(1)
    assert bench.outcomes == [("h", "dead")]


async def test_our_own_mistake_counts_as_a_failed_attempt(bench: RunnerBench) -> None:
    async def deliver(_: Delivery) -> None:
        raise KeyError("secret-value")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=2)])
    await bench.ended(2)
    await bench.stop()
    assert bench.story("a").row.error == "the gateway failed: KeyError"


async def test_an_attempt_beyond_the_last_is_not_run(bench: RunnerBench) -> None:
    publish_uploads(bench.journal, "a")
    for _ in range(2):  # two processes died with it
        claim_deliveries(bench.journal)
        result_of(bench.journal.queue.recover())
    told: list[Delivery] = []

    async def deliver(delivery: Delivery) -> None:
        told.append(delivery)

    bench.deliver = deliver
    await bench.runner.start([spec(attempts=2)])
    await bench.ended(1)
    assert (bench.outcomes, told) == ([("h", "dead")], [])


# -- an engine that is away for a while


class Failing:
    """A queue whose method `method` fails the first `times` calls, as on a full disk."""

    def __init__(self, real: Queue, method: str, times: int) -> None:
        self._real = real
        self._method = method
        self.left = times

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name != self._method:
            return real

        async def failing(*arguments: Any) -> Any:
            if self.left:
                self.left -= 1
                raise EventEngineUnavailable("database or disk is full")
            return await real(*arguments)

        return failing


@pytest.mark.parametrize("method", ["ack", "claim"])
async def test_an_engine_that_is_away_for_a_while_loses_nothing_and_is_told_of_once(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(EngineBackoff, "MIN_DELAY", 0.001)
    monkeypatch.setattr(logging.getLogger("gateway"), "propagate", True)
    caplog.set_level("INFO", "gateway.runner")
    failing = Failing(journal.queue, method, 3)
    bench = RunnerBench(journal, failing)
    await bench.runner.start([spec(concurrency=1)])
    bench.publish("a", "b", "c")
    await bench.ended(3)
    await bench.stop()
    assert failing.left == 0
    assert set(delivery_states(journal).values()) == {"done"}
    assert bench.outcomes == [("h", "done")] * 3
    lines = [line for line in caplog.messages if "the event engine is" in line]
    assert lines[0] == "the event engine is unavailable, retrying: database or disk is full"
    assert all(first != second for first, second in pairwise(lines))  # lost and recovered alternate


async def test_a_claim_that_breaks_by_our_own_mistake_is_tried_again(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineBackoff, "MIN_DELAY", 0.001)
    real, broken = bench.journal.queue.claim, [KeyError("mistake"), ValueError("mistake")]

    async def claim(handler: str, limit: int, wait: float) -> list[Delivery]:
        if broken:
            raise broken.pop()
        return await real(handler, limit, wait)

    monkeypatch.setattr(bench.journal.queue, "claim", claim)
    bench.publish("a")
    await bench.runner.start([spec()])
    await bench.ended(1)
    assert broken == []


async def test_an_outcome_that_cannot_be_written_yet_holds_up_no_other_run(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineBackoff, "MIN_DELAY", 0.001)
    monkeypatch.setattr(EngineBackoff, "MAX_DELAY", 0.001)
    failing = Failing(journal.queue, "ack", 10**9)
    bench = RunnerBench(journal, failing)
    await bench.runner.start([spec(concurrency=1)])
    bench.publish("a", "b", "c")
    await bench.ended(3)
    assert set(delivery_states(journal).values()) == {"running"}
    failing.left = 0
    await bench.stop()
    assert set(delivery_states(journal).values()) == {"done"}


async def test_a_holder_that_is_away_uses_up_no_attempts(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "POSTPONE_POLICY", RetryPolicy(1, 0.001, 0.001))
    attempts: list[int] = []

    async def deliver(delivery: Delivery) -> RunResult | None:
        attempts.append(delivery.attempt)
        if len(attempts) < 10:
            return RunResult("postponed", "no connection to host:1")
        return None

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec(attempts=2)])
    await bench.ended(1)
    await bench.stop()
    assert attempts == [1] * 10
    assert bench.outcomes == [("h", "done")]


class Leased:
    """A queue with leases; what is touched is written down."""

    lease = 0.003

    def __init__(self, real: Queue) -> None:
        self._real = real
        self.touched: list[str] = []
        self.again = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def extend_leases(self, deliveries: Sequence[Delivery]) -> None:
        """Write it down."""
        self.touched += [delivery.event_id for delivery in deliveries]
        if len(self.touched) > 3:
            self.again.set()


async def test_what_runs_keeps_its_lease(journal: Journal) -> None:
    queue = Leased(journal.queue)
    bench, go_on = RunnerBench(journal, queue), asyncio.Event()  # type: ignore[arg-type]  # as above

    async def deliver(_: Delivery) -> None:
        await go_on.wait()

    bench.deliver = deliver
    await bench.runner.start([spec()])
    bench.publish("a")
    async with asyncio.timeout(SECONDS):
        await queue.again.wait()
    go_on.set()
    await bench.stop()
    assert set(queue.touched) == {"e-a"}


# -- the end


async def test_stopping_waits_for_runs_and_claims_nothing_more(bench: RunnerBench) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery) -> None:
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
    assert sorted(delivery_states(bench.journal).values()) == ["done", "ready", "ready"]


async def test_what_does_not_end_in_time_is_handed_back_without_using_an_attempt(
    bench: RunnerBench,
) -> None:
    started = asyncio.Event()

    async def deliver(_: Delivery) -> None:
        started.set()
        await asyncio.Event().wait()

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec()])
    await started.wait()
    await bench.stop(grace=0)
    row = bench.story("a").row
    assert (row.state, row.attempt) == ("ready", 0)
    assert result_of(bench.journal.queue.recover()) == (1, 0)


async def test_a_claim_that_is_on_its_way_when_the_end_comes_is_given_back(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = bench.journal.queue.claim, asyncio.Event()

    async def claim(handler: str, limit: int, wait: float) -> list[Delivery]:
        asyncio.get_running_loop().call_soon(asked.set)
        return await real(handler, limit, wait)

    monkeypatch.setattr(bench.journal.queue, "claim", claim)
    bench.publish("a")
    await bench.runner.start([spec()])
    await asked.wait()
    await bench.stop()
    assert bench.outcomes == []
    assert delivery_states(bench.journal) == {("e-a", "h"): "ready"}
    assert claim_deliveries(bench.journal)[0].attempt == 1


class Deaf:
    """A queue whose claims return something when they are cancelled, as a library may do."""

    def __init__(self, real: Queue) -> None:
        self._real = real
        self.asked = asyncio.Event()
        self.pending = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        self.asked.set()
        self.pending += 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        self.pending -= 1
        return await self._real.claim(handler, limit, 0.0)


@pytest.mark.parametrize("how", ["the end", "a reload"])
async def test_a_claim_that_drops_its_cancellation_is_the_last_one(journal: Journal, how: str) -> None:
    queue = Deaf(journal.queue)
    bench = RunnerBench(journal, queue)
    await bench.runner.start([spec(concurrency=3)])
    async with asyncio.timeout(SECONDS):
        await queue.asked.wait()
        bench.publish("a")
        if how == "a reload":
            await bench.runner.refresh([spec(concurrency=2)])
            await bench.ended(1)
            assert queue.pending == 1
        await bench.stop()
    assert queue.pending == 0
    assert delivery_states(journal) == {("e-a", "h"): "done"}


# -- a reload


async def test_after_a_reload_the_new_handler_gets_deliveries_and_the_removed_one_none(
    bench: RunnerBench,
) -> None:
    await bench.runner.start([spec("old")])
    bench.publish("a", handlers=("old",))
    await bench.ended(1)
    await bench.runner.refresh([spec("new")])
    bench.publish("b", handlers=("old", "new"))
    await bench.ended(2)
    await bench.stop()
    assert [handler for handler, _ in bench.outcomes] == ["old", "new"]
    assert delivery_states(bench.journal)["e-b", "old"] == "ready"


async def test_deliveries_of_a_removed_handler_wait_dead(bench: RunnerBench) -> None:
    publish_uploads(bench.journal, "a", handlers=("gone",))
    await bench.runner.start([spec("here")])
    assert delivery_states(bench.journal) == {("e-a", "gone"): "dead"}


async def test_many_deliveries_of_a_removed_handler_hold_up_nobody(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MAX_ORPHANS", 2)
    gone = [f"a{number}" for number in range(9)]
    publish_uploads(bench.journal, *gone, handlers=("gone",))
    await bench.runner.start([spec("here")])
    assert list(delivery_states(bench.journal).values()).count("dead") < len(gone)
    assert bench.runner._orphans is not None
    await bench.runner._orphans
    assert set(delivery_states(bench.journal).values()) == {"dead"}


async def test_a_run_of_a_removed_handler_is_finished_and_not_tried_again(bench: RunnerBench) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery) -> RunResult:
        started.set()
        await go_on.wait()
        return RunResult("failed", "too late")

    bench.deliver = deliver
    bench.publish("a")
    await bench.runner.start([spec()])
    await started.wait()
    await bench.runner.refresh([])
    go_on.set()
    await bench.ended(1)
    await bench.stop()
    assert delivery_states(bench.journal) == {("e-a", "h"): "dead"}


async def test_a_reload_to_fewer_slots_is_kept_by_the_claim_on_its_way(bench: RunnerBench) -> None:
    running, highest, go_on = 0, 0, asyncio.Event()

    async def deliver(_: Delivery) -> None:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await go_on.wait()
        running -= 1

    bench.deliver = deliver
    await bench.runner.start([spec(concurrency=4)])
    await bench.journal.queue.claim("h", 1, 0.0)  # the runner waits in its claim by now
    await bench.runner.refresh([spec(concurrency=1)])
    bench.publish(*"abcd")
    await bench.journal.queue.claim("stranger", 1, 0.0)
    go_on.set()
    await bench.ended(4)
    assert highest == 1


async def test_a_reload_changes_the_number_of_slots(bench: RunnerBench) -> None:
    running, four, go_on = 0, asyncio.Event(), asyncio.Event()

    async def deliver(_: Delivery) -> None:
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


# -- the pause


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(1, 10_000))
def test_the_pause_doubles_up_to_its_bound_and_half_of_it_is_random(
    backoff: float, longest: float, attempt: int
) -> None:
    policy = RetryPolicy(8, backoff, longest)
    full = min(backoff * 2.0 ** min(attempt - 1, 100), longest)
    for _ in range(5):
        seconds = retry_delay(policy, attempt)
        assert full / 2 <= seconds <= full


def test_pauses_differ() -> None:
    assert len({retry_delay(RetryPolicy(), 3) for _ in range(20)}) > 1


async def test_an_engine_is_asked_again_after_growing_pauses_that_all_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    clock, real = [100.0], asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        await real(0)

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    backoff, error = EngineBackoff(), EventEngineUnavailable("gone")
    for _ in range(7):
        await asyncio.gather(backoff.wait(error), backoff.wait(error))
        clock[0] += 20
    assert slept[::2] == slept[1::2] == [0.5, 1, 2, 4, 8, 15, 15]
    backoff.reset()
    await backoff.wait(error)
    assert slept[-1] == 0.5
