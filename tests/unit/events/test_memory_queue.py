"""Deliveries that are recorded as running: which ones, what becomes of them, and what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.domain.model import Delivery
from gateway.events import handler_consumer, memory_queue
from gateway.events.dispatch import RunResult
from gateway.events.journal import Journal
from gateway.events.outbox import UploadRecord
from gateway.events.protocols import Selection, run_all
from tests.support.harness import wait_until
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    run_sync,
    upload_record,
)
from tests.support.runner_bench import SECONDS, RunnerBench, spec


def record(journal: Journal, *names: str, handlers: tuple[str, ...] = ("h",)) -> None:
    """Record uploads that are not published yet."""
    result_of(journal.outbox.record_uploads([upload_record(name, handlers) for name in names]))


def born(journal: Journal, name: str) -> dict[str, str]:
    """Record an upload for the handlers h and i; return their states before it is published."""
    record(journal, name, handlers=("h", "i"))
    states = delivery_states(journal)
    return {handler: states[f"e-{name}", handler] for handler in ("h", "i")}


class Gate:
    """A handler that waits until it is let go on; `begun` are its deliveries."""

    def __init__(self) -> None:
        self.begun: list[Delivery] = []
        self.open = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.begun.append(delivery)
        await self.open.wait()


async def until(condition: Callable[[], bool]) -> None:
    async def reached() -> bool:
        return condition()

    await wait_until(reached)


# -- which ones


async def test_an_upload_of_a_handler_that_waits_for_work_is_recorded_as_running(
    bench: RunnerBench,
) -> None:
    await bench.start(spec("h"))
    record(bench.journal, "a")
    row = bench.story("a").row
    assert (row.state, row.attempt) == ("running", 1)
    assert bench.outcomes == []
    bench.journal.outbox.release_events(["e-a"])
    await bench.ended(1)
    await bench.stop()
    story = bench.story("a")
    assert (story.row.state, story.row.attempt, story.row.error) == ("done", 1, None)
    assert [(run.attempt, run.outcome) for run in story.runs] == [(1, "done")]


async def test_a_handler_with_one_attempt_claims_because_a_crash_would_bury_its_event(
    bench: RunnerBench,
) -> None:
    await bench.start(spec("h"), spec("i", attempts=1))
    assert born(bench.journal, "a") == {"h": "running", "i": "ready"}


async def test_a_handler_that_is_not_loaded_here_claims(bench: RunnerBench) -> None:
    await bench.start(spec("h"))
    assert born(bench.journal, "a") == {"h": "running", "i": "ready"}


async def test_without_a_runner_on_the_journal_all_is_claimed(journal: Journal) -> None:
    assert born(journal, "a") == {"h": "ready", "i": "ready"}


async def test_a_paused_handler_claims_until_it_is_resumed_and_has_caught_up(
    bench: RunnerBench,
) -> None:
    await bench.journal.ledger.pause("h")
    await bench.start(spec("h"), spec("i"))
    assert born(bench.journal, "a") == {"h": "ready", "i": "running"}
    await bench.journal.ledger.pause("i")
    assert born(bench.journal, "b") == {"h": "ready", "i": "ready"}
    bench.journal.outbox.release_events(["e-a", "e-b"])
    await bench.journal.ledger.resume("h")
    await bench.ended(2)
    await until(lambda: born(bench.journal, f"c{len(delivery_states(bench.journal))}")["h"] == "running")


async def test_what_waits_in_the_journal_goes_first(bench: RunnerBench) -> None:
    gate = Gate()
    bench.deliver = gate
    bench.publish("old")
    await bench.runner.start([spec("h", concurrency=1)])
    await until(lambda: bool(gate.begun))
    assert born(bench.journal, "new")["h"] == "ready"
    gate.open.set()


async def test_no_more_than_the_share_of_a_handler_waits_in_memory(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_queue, "MAX_WAITING", 4)
    await bench.start(spec("h"), spec("i"))
    record(bench.journal, "a", "b")
    record(bench.journal, "c")
    states = delivery_states(bench.journal)
    assert [states[f"e-{name}", "h"] for name in "abc"] == ["running", "running", "ready"]
    assert born(bench.journal, "d") == {"h": "ready", "i": "running"}
    bench.journal.outbox.release_events([f"e-{name}" for name in "abcd"])
    await bench.ended(5)
    await until(lambda: born(bench.journal, f"x{len(delivery_states(bench.journal))}")["h"] == "running")


async def test_large_events_wait_in_the_journal(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_queue, "MAX_WAITING_BYTES", 1000)
    await bench.start(spec("h"), spec("i"))
    large = upload_record("large", ("h",), body={"text": "x" * 600})
    result_of(bench.journal.outbox.record_uploads([large]))
    assert delivery_states(bench.journal)["e-large", "h"] == "ready"
    assert born(bench.journal, "small")["i"] == "running"


async def test_an_object_that_is_not_complete_is_claimed_after_its_publication(
    bench: RunnerBench,
) -> None:
    await bench.start(spec("h"))
    pending = upload_record("a")._replace(pending=True, place={"key": "a"})
    result_of(bench.journal.outbox.record_uploads([pending]))
    assert delivery_states(bench.journal) == {("e-a", "h"): "ready"}


# -- the run


async def test_the_delivery_is_the_one_that_a_claim_returns(bench: RunnerBench, tmp_path: Path) -> None:
    body = {
        "tuple": (1, 2.5, None),
        "nested": {"ü\u0000": [True, "\ud800"], "big": 2**60},
        3: "a number as a key",
        "path": "/before",
    }
    wanted = upload_record("a", path="/upload/moved", body=body)  # type: ignore[arg-type]  # on purpose
    other = Journal(tmp_path / "other.db", full=False)
    other.open()
    try:
        result_of(other.outbox.record_uploads([wanted]))
        other.outbox.release_events(["e-a"])
        [claimed] = claim_deliveries(other)
    finally:
        other.close()
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h"))
    result_of(bench.journal.outbox.record_uploads([wanted]))
    bench.journal.outbox.release_events(["e-a"])
    await until(lambda: bool(gate.begun))
    gate.open.set()
    [own] = gate.begun
    fields = (
        "event_id",
        "upload_id",
        "event",
        "handler",
        "attempt",
        "body",
        "holder",
        "round",
        "origin",
    )
    assert [getattr(own, name) for name in fields] == [getattr(claimed, name) for name in fields]
    assert list(own.body) == list(claimed.body)


async def test_an_upload_that_got_another_name_is_delivered_with_it(bench: RunnerBench) -> None:
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h"))
    record(bench.journal, "a")
    result_of(bench.journal.outbox.move_upload("a", "/upload/a-1"))
    bench.journal.outbox.release_events(["e-a"])
    await until(lambda: bool(gate.begun))
    assert gate.begun[0].body["path"] == "/upload/a-1"
    gate.open.set()


async def test_handlers_of_one_event_do_not_share_its_values(bench: RunnerBench) -> None:
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h"), spec("i"))
    made = upload_record("a", ("h", "i"), body={"headers": {"a": "b"}})
    result_of(bench.journal.outbox.record_uploads([made]))
    bench.journal.outbox.release_events(["e-a"])
    await until(lambda: len(gate.begun) == 2)
    gate.begun[0].body["headers"]["a"] = "changed"
    assert gate.begun[1].body["headers"] == {"a": "b"}
    gate.open.set()


async def test_slots_are_shared_with_what_is_claimed(bench: RunnerBench) -> None:
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h", concurrency=3, attempts=2))
    bench.publish("a", "b")  # from memory, while a claim for three waits
    await until(lambda: len(gate.begun) == 2)
    bench.journal.queue.memory.fall_behind("h")  # type: ignore[union-attr]  # a journal has one
    bench.publish("c", "d", "e")
    await until(lambda: len(gate.begun) == 3)
    await bench.journal.queue.claim("stranger", 1, 0.0)
    assert len(gate.begun) == 3
    gate.open.set()
    await bench.ended(5)


async def test_a_run_that_fails_is_claimed_again_and_ends_dead(bench: RunnerBench) -> None:
    attempts: list[int] = []

    async def deliver(delivery: Delivery) -> RunResult:
        attempts.append(delivery.attempt)
        return RunResult("failed", "no")

    bench.deliver = deliver
    await bench.start(spec("h", attempts=3))
    bench.publish("a")
    await bench.ended(3)
    await bench.stop()
    assert attempts == [1, 2, 3]
    assert [run.outcome for run in bench.story("a").runs] == ["retry", "retry", "dead"]


async def test_what_ends_together_is_settled_in_one_operation(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h", concurrency=64))
    bench.publish(*(f"u{number}" for number in range(64)))
    await until(lambda: len(gate.begun) == 64)
    real, operations = bench.journal._database.submit, 0

    def counted(operation):  # type: ignore[no-untyped-def]  # passed on
        nonlocal operations
        operations += 1
        return real(operation)

    monkeypatch.setattr(bench.journal._database, "submit", counted)
    gate.open.set()
    await bench.stop()
    assert operations == 1
    assert set(delivery_states(bench.journal).values()) == {"done"}


# -- what does not run


async def test_a_commit_that_is_undone_runs_nothing_and_makes_room(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_queue, "MAX_WAITING", 1)
    await bench.start(spec("h"))
    record(bench.journal, "a")
    result_of(bench.journal.outbox.forget_uploads(["a"]))
    bench.journal.outbox.release_events(["e-a"])
    bench.publish("b")
    await bench.ended(1)
    await bench.stop()
    assert delivery_states(bench.journal) == {("e-b", "h"): "done"}


async def test_a_commit_that_cannot_be_recorded_makes_room(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_queue, "MAX_WAITING", 2)
    await bench.start(spec("h"))
    twice: list[UploadRecord] = [upload_record("a"), upload_record("a")]
    assert bench.journal.outbox.record_uploads(twice).exception(SECONDS) is not None
    await bench.journal.queue.claim("stranger", 1, 0.0)
    record(bench.journal, "b", "c")
    assert set(delivery_states(bench.journal).values()) == {"running"}


async def test_an_upload_whose_outcome_is_unknown_is_not_run_before_a_start(
    bench: RunnerBench,
) -> None:
    await bench.start(spec("h"))
    record(bench.journal, "a")
    await bench.stop()
    assert bench.outcomes == []
    assert delivery_states(bench.journal) == {("e-a", "h"): "running"}
    assert result_of(bench.journal.queue.recover()) == (0, 1)
    assert bench.story("a").row.attempt == 1


async def test_a_start_after_a_crash_syncs_the_file_system_for_what_had_not_begun(
    bench: RunnerBench,
) -> None:
    await bench.start(spec("h"))
    record(bench.journal, "a")
    assert result_of(bench.journal.outbox.has_unclaimed())


# -- what is given back


async def test_what_has_not_begun_at_the_end_uses_no_attempt(bench: RunnerBench) -> None:
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h", concurrency=1))
    bench.publish("a", "b", "c")
    await until(lambda: bool(gate.begun))
    await bench.stop(grace=0)
    assert set(delivery_states(bench.journal).values()) == {"ready"}
    assert [bench.story(name).row.attempt for name in "abc"] == [0, 0, 0]


async def test_what_is_published_after_the_runner_has_stopped_waits_for_the_next_start(
    bench: RunnerBench,
) -> None:
    await bench.start(spec("h"))
    record(bench.journal, "a")
    await bench.stop()
    bench.journal.outbox.release_events(["e-a"])
    record(bench.journal, "b")
    rows = [bench.story(name).row for name in "ab"]
    assert [(row.state, row.attempt) for row in rows] == [("ready", 0), ("ready", 0)]


async def test_what_waits_too_long_for_a_slot_is_given_back(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_consumer, "MAX_WAIT", 0.01)
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h", concurrency=1))
    bench.publish("a", "b", "c")
    await until(lambda: list(delivery_states(bench.journal).values()).count("ready") == 2)
    assert born(bench.journal, "d")["h"] == "ready"
    bench.journal.outbox.release_events(["e-d"])
    gate.open.set()
    await bench.ended(4)
    await bench.stop()
    assert [delivery.event_id for delivery in gate.begun] == ["e-a", "e-b", "e-c", "e-d"]
    assert {delivery.attempt for delivery in gate.begun} == {1}


async def test_a_pause_gives_back_what_has_not_begun(bench: RunnerBench) -> None:
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h", concurrency=1))
    bench.publish("a", "b")
    record(bench.journal, "c")
    await until(lambda: bool(gate.begun))
    await bench.journal.ledger.pause("h")
    bench.journal.outbox.release_events(["e-c"])
    await until(lambda: bench.story("b").row.state == bench.story("c").row.state == "ready")
    gate.open.set()
    await bench.ended(1)
    dropped = run_sync(run_all(bench.journal.ledger, "drop", Selection(state="ready", handler="h")))
    assert dropped == 2
    assert [delivery.event_id for delivery in gate.begun] == ["e-a"]


async def test_a_reload_without_the_handler_makes_dead_what_has_not_begun(bench: RunnerBench) -> None:
    gate = Gate()
    bench.deliver = gate
    await bench.start(spec("h", concurrency=1))
    bench.publish("a", "b")
    record(bench.journal, "c")
    await until(lambda: bool(gate.begun))
    await bench.runner.refresh([spec("other")])
    bench.journal.outbox.release_events(["e-c"])
    await until(lambda: bench.story("c").row.state == "dead")
    gate.open.set()
    await bench.ended(1)
    await bench.stop()
    assert [bench.story(name).row.state for name in "abc"] == ["done", "dead", "dead"]
    await run_all(bench.journal.ledger, "retry", Selection(handler="h"))
    assert bench.story("b").row.state == "ready"


async def test_a_handler_that_replaces_another_in_a_reload_gets_what_came_meanwhile(
    bench: RunnerBench,
) -> None:
    await bench.start(spec("old"))
    record(bench.journal, "a", handlers=("old",))
    bench.publish("b", handlers=("new",))
    reload = asyncio.create_task(bench.runner.refresh([spec("new")]))
    await asyncio.sleep(0)  # the old one has no consumer any more, the new one has none yet
    bench.journal.outbox.release_events(["e-a"])
    await reload
    await until(lambda: bench.story("a").row.state == "dead")
    await until(lambda: bench.story("b").row.state == "done")


async def test_an_event_that_was_run_from_memory_can_be_replayed(bench: RunnerBench) -> None:
    await bench.start(spec("h"))
    bench.publish("a")
    await bench.ended(1)
    await until(lambda: bench.story("a").row.state == "done")
    assert await run_all(bench.journal.ledger, "replay", Selection(handler="h")) == 1
    await bench.ended(2)
    await until(lambda: [run.outcome for run in bench.story("a").runs] == ["done", "done"])


async def test_a_stale_run_of_an_earlier_process_is_revived_before_anything_is_kept_in_memory(
    bench: RunnerBench,
) -> None:
    publish_uploads(bench.journal, "old")
    claim_deliveries(bench.journal)
    bench.journal.queue._has_stale_runs = True  # as after a start on a full disk
    await bench.start(spec("h"))
    bench.publish("new")
    await bench.ended(2)
    await bench.stop()
    assert [len(bench.story(name).runs) for name in ("old", "new")] == [1, 1]
    assert bench.story("old").row.attempt == 2
