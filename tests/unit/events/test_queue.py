"""The journal's queue: what the conformance suite does not ask, and the life of deliveries at random
against a small model."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.domain.model import Delivery
from gateway.errors import EventEngineUnavailable
from gateway.events import claims, queue_statements
from gateway.events.journal import Journal
from gateway.events.protocols import Attempt, DeliveryHistory, DeliveryRow, Selection, run_all
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    run_sync,
    settle_run,
    upload_record,
)


def row_of(journal: Journal, name: str, handler: str = "h") -> DeliveryRow:
    """Return what the ledger shows of a delivery."""
    page = run_sync(journal.ledger.page(Selection(handler=handler), None, 1000))
    (row,) = (row for row in page.rows if row.upload_id == name)
    return row


def runs_of(journal: Journal, name: str) -> list[Attempt]:
    """Return the runs of an upload's only delivery that ended."""
    story = stories_of(journal, name)[0]
    return story.runs


def stories_of(journal: Journal, name: str) -> list[DeliveryHistory]:
    history = run_sync(journal.ledger.history(f"e-{name}"))
    assert history is not None
    return history.deliveries


def test_the_oldest_are_claimed_first_and_no_more_than_asked_for(journal: Journal) -> None:
    for name in "cab":
        publish_uploads(journal, name)
    assert [delivery.upload_id for delivery in claim_deliveries(journal, limit=2)] == ["c", "a"]
    assert [delivery.upload_id for delivery in claim_deliveries(journal, limit=2)] == ["b"]


def test_what_is_not_released_is_not_claimed(journal: Journal) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a"), upload_record("b")]))
    journal.outbox.release_events(["e-b"])
    assert [delivery.upload_id for delivery in claim_deliveries(journal, limit=9)] == ["b"]
    result_of(journal.outbox.forget_uploads(["a"]))
    journal.outbox.release_events(["e-a"])
    assert claim_deliveries(journal, limit=9) == []


async def test_releasing_wakes_a_claim_that_waits(journal: Journal) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a")]))
    waiting = asyncio.create_task(journal.queue.claim("h", 1, 60.0))
    assert await journal.queue.claim("h", 1, 0.0) == []  # theirs has looked before
    await asyncio.to_thread(journal.outbox.release_events, ["e-a"])
    async with asyncio.timeout(30):
        assert [delivery.upload_id for delivery in await waiting] == ["a"]


async def test_waking_lets_every_claim_look_again(journal: Journal) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a", ("h", "i"))]))
    journal.outbox._unpublished.release(["e-a"])  # as whoever makes rows ready behind the queue's back
    waiting = [asyncio.create_task(journal.queue.claim(handler, 1, 60.0)) for handler in "jk"]
    await journal.queue.claim("j", 1, 0.0)
    await run_all(journal.ledger, "replay", Selection())
    journal._database.submit(
        lambda db: db.execute("UPDATE deliveries SET handler = 'j' WHERE handler = 'i'")
    )
    journal._database.submit(
        lambda db: db.execute("UPDATE deliveries SET handler = 'k' WHERE handler = 'h'")
    )
    journal.queue._wakeups.notify_all()
    async with asyncio.timeout(30):
        assert [len(await claim) for claim in waiting] == [1, 1]


async def test_a_claim_that_is_cancelled_gives_back_what_it_would_have_brought(journal: Journal) -> None:
    publish_uploads(journal, "a")
    claim = asyncio.create_task(journal.queue.claim("h", 1, 60.0))
    await asyncio.sleep(0)  # it has asked the journal
    claim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claim
    (delivery,) = await journal.queue.claim("h", 1, 0.0)
    assert delivery.attempt == 1


async def test_a_relay_takes_the_deliveries_of_all_handlers_paused_ones_too(journal: Journal) -> None:
    publish_uploads(journal, "a", handlers=("h", "i"))
    result_of(journal.outbox.record_uploads([upload_record("held")]))
    await journal.ledger.pause("i")
    taken = await journal.queue.claim_any(10, 0.0)
    assert sorted(delivery.handler for delivery in taken) == ["h", "i"]
    await journal.queue.requeue(taken[:1])
    await journal.queue.mark_relayed(taken)
    (again,) = await journal.queue.claim_any(10, 0.0)
    assert (again.handler, again.attempt) == (taken[0].handler, 1)
    await journal.queue.mark_relayed([again])
    assert await journal.queue.claim_any(10, 0.0) == []
    assert await run_all(journal.ledger, "replay", Selection(events=("e-a",))) == 2
    assert {(d.attempt, d.round) for d in await journal.queue.claim_any(10, 0.0)} == {(1, 1)}


async def test_a_relay_that_waits_is_woken_by_whatever_comes(journal: Journal) -> None:
    waiting = asyncio.create_task(journal.queue.claim_any(10, 60.0))
    assert await journal.queue.claim_any(10, 0.0) == []
    publish_uploads(journal, "a", handlers=("some",))
    async with asyncio.timeout(30):
        assert [delivery.handler for delivery in await waiting] == ["some"]


def test_nothing_of_an_earlier_round_settles_a_later_one(journal: Journal) -> None:
    publish_uploads(journal, "a")
    (early,) = claim_deliveries(journal)
    settle_run(journal, early, "dead")
    assert run_sync(run_all(journal.ledger, "retry", Selection(events=("e-a",)))) == 1
    (late,) = claim_deliveries(journal)
    assert (late.attempt, late.round) == (1, 1)
    settle_run(journal, early, "done")
    assert delivery_states(journal) == {("e-a", "h"): "running"}
    settle_run(journal, late, "done")
    assert [run.outcome for run in runs_of(journal, "a")] == ["dead", "done"]


def test_what_ends_twice_in_one_breath_ends_once(journal: Journal) -> None:
    publish_uploads(journal, "a")
    (delivery,) = claim_deliveries(journal)

    async def both() -> None:
        await asyncio.gather(
            journal.queue.ack(delivery, 0.1), journal.queue.dead_letter(delivery, "no", 0.1)
        )

    run_sync(both())
    assert len(runs_of(journal, "a")) == 1


def test_one_outcome_that_cannot_be_written_harms_no_other(journal: Journal) -> None:
    publish_uploads(journal, "a", "b")
    first, second = claim_deliveries(journal, limit=2)

    async def both() -> tuple[BaseException | None, BaseException | None]:
        return await asyncio.gather(
            journal.queue.dead_letter(first, "half a \ud800 character", 0.1),
            journal.queue.ack(second, 0.1),
            return_exceptions=True,
        )

    faults = run_sync(both())
    assert isinstance(faults[0], UnicodeEncodeError)
    assert faults[1] is None
    assert delivery_states(journal) == {("e-a", "h"): "running", ("e-b", "h"): "done"}


def test_a_closed_journal_is_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.open()
    journal.close()
    with pytest.raises(EventEngineUnavailable, match="closed"):
        claim_deliveries(journal)


def test_handing_back_takes_only_the_very_run(journal: Journal) -> None:
    publish_uploads(journal, "a", "b")
    first, second = claim_deliveries(journal, limit=2)
    settle_run(journal, second, "done")
    run_sync(journal.queue.requeue([first, second]))
    assert delivery_states(journal) == {("e-a", "h"): "ready", ("e-b", "h"): "done"}
    assert claim_deliveries(journal) == [first]
    run_sync(journal.queue.requeue([replace(first, attempt=7), replace(first, round=3)]))
    assert delivery_states(journal)["e-a", "h"] == "running"


async def test_a_delivery_of_another_engine_is_refused(journal: Journal) -> None:
    publish_uploads(journal, "a")
    (delivery,) = claim_deliveries(journal)
    with pytest.raises(TypeError, match="another engine"):
        await journal.queue.ack(replace(delivery, token="theirs"), 0.1)


def test_a_start_revives_what_was_waiting_or_running(journal: Journal) -> None:
    publish_uploads(journal, "a", "b")
    claim_deliveries(journal)
    result_of(journal.outbox.record_uploads([upload_record("c")]))
    assert result_of(journal.queue.recover()) == (2, 1)
    assert (row_of(journal, "a").attempt, row_of(journal, "a").state) == (1, "ready")
    assert row_of(journal, "a").error == "the gateway stopped while the handler ran"


def test_after_a_start_nothing_is_held(tmp_path: Path) -> None:
    for attempt in (1, 2):
        journal = Journal(tmp_path / "j.db", full=False)
        journal.open()
        assert result_of(journal.outbox.has_unclaimed()) == (0 if attempt == 1 else 1)
        if attempt == 1:
            result_of(journal.outbox.record_uploads([upload_record("a")]))
            assert claim_deliveries(journal) == []
        else:
            [claimed] = claim_deliveries(journal)
            settle_run(journal, claimed, "done")
            assert result_of(journal.outbox.has_unclaimed()) == 0
        journal.close()


def test_deliveries_of_handlers_that_are_gone_wait_dead(journal: Journal) -> None:
    publish_uploads(journal, "a", handlers=("here", "gone"))
    result_of(journal.outbox.record_uploads([upload_record("held", ("gone",))]))
    publish_uploads(journal, "run", handlers=("gone_running",))
    claim_deliveries(journal, "gone_running")
    assert run_sync(journal.queue.dead_letter_orphans(["here", 'odd "name"'])) == 1
    assert delivery_states(journal) == {
        ("e-a", "gone"): "dead",
        ("e-a", "here"): "ready",
        ("e-held", "gone"): "ready",
        ("e-run", "gone_running"): "running",
    }
    assert run_sync(journal.queue.dead_letter_orphans([])) == 1


def test_the_body_comes_as_it_was_recorded(journal: Journal) -> None:
    body: dict[str, Any] = {
        "headers": {"X-Odd": 'ü"\n\x00\ud800'}, "params": {"a": ["1", ""]}, "n": float("inf")
    }  # fmt: skip
    result_of(journal.outbox.record_uploads([upload_record("a", body=body)]))
    journal.outbox.release_events(["e-a"])
    assert claim_deliveries(journal)[0].body == {**body, "bytes": 3, "path": "/upload/a"}


def test_two_thousand_events_go_through_once_each(journal: Journal) -> None:
    names = [f"u{number:04}" for number in range(2000)]
    for start in range(0, 2000, 100):
        publish_uploads(journal, *names[start : start + 100], handlers=("h", "i"))
    seen: dict[str, list[str | None]] = {"h": [], "i": []}

    async def drain(handler: str) -> None:
        while batch := await journal.queue.claim(handler, 64, 0.0):
            await asyncio.gather(*(journal.queue.ack(delivery, 0.0) for delivery in batch))
            seen[handler] += [delivery.upload_id for delivery in batch]

    async def both() -> None:
        await asyncio.gather(drain("h"), drain("i"))

    run_sync(both())
    assert seen == {"h": names, "i": names}
    assert run_sync(journal.ledger.depth()) == []


async def test_a_claim_of_all_handlers_takes_the_oldest_first_and_leaves_what_is_delayed(
    journal: Journal,
) -> None:
    publish_uploads(journal, "a", handlers=("z", "y"))
    settle_run(journal, claim_deliveries(journal, "y")[0], "retry", delay=900.0)
    publish_uploads(journal, "b", handlers=("m",))
    publish_uploads(journal, "c", "d", handlers=("z",))
    claims = [await journal.queue.claim_any(3, 0.0) for _ in range(3)]
    assert [[f"{d.upload_id}.{d.handler}" for d in claim] for claim in claims] == [
        ["a.z", "c.z", "d.z"],
        ["b.m"],
        [],
    ]


def plan(journal: Journal, statement: str) -> list[str]:
    """Return how SQLite would go about it."""

    def explain(db: Any) -> list[str]:
        names = ("handler", "now", "limit", "held", "rows", "node", "delay", "latest")
        asked = dict.fromkeys(names, 1) | {"held": "[]", "rows": "[]"}
        return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", asked)]

    return result_of(journal._database.submit(explain))


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        (claims._NEW, "SEARCH deliveries USING INDEX deliveries_ready (handler=? AND due=?)"),
        (
            claims._DELAYED,
            "SEARCH deliveries USING INDEX deliveries_ready (handler=? AND due>? AND due<?)",
        ),
        (claims._NEXT_DUE, "SEARCH deliveries USING INDEX deliveries_ready (handler=? AND due>?)"),
        (queue_statements.RUN_ENDED, "SEARCH d USING INTEGER PRIMARY KEY (rowid=?)"),
        (queue_statements.SETTLE, "SEARCH d USING INTEGER PRIMARY KEY (rowid=?)"),
        (queue_statements.REQUEUE, "SEARCH d USING INTEGER PRIMARY KEY (rowid=?)"),
        (
            queue_statements.LIMIT_DELAYS,
            "SEARCH deliveries USING INDEX deliveries_ready (handler=? AND due>?)",
        ),
        (queue_statements.RELAYED, "SEARCH d USING INTEGER PRIMARY KEY (rowid=?)"),
    ],
)
def test_no_step_reads_or_sorts_what_it_does_not_need(
    journal: Journal, statement: str, first: str
) -> None:
    steps = plan(journal, statement)
    assert first in steps
    assert not [step for step in steps if "TEMP B-TREE" in step or step.startswith("SCAN d")]


# -- at random, against a model


@dataclass
class Model:
    """What a delivery should be."""

    state: str = "held"
    attempt: int = 0
    round: int = 0
    runs: int = 0
    due_later: bool = False


class Life(RuleBasedStateMachine):
    """Any order of steps leaves every delivery in the state that the table in `queue` allows."""

    deliveries = Bundle("deliveries")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.journal = Journal(Path(self.folder.name) / "j.db", full=False)
        self.journal.open()
        self.models: dict[str, Model] = {}

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()

    @rule(target=deliveries)
    def upload_record(self) -> str:
        name = f"u{len(self.models)}"
        result_of(self.journal.outbox.record_uploads([upload_record(name)]))
        self.models[name] = Model()
        return name

    @rule(name=deliveries)
    def release(self, name: str) -> None:
        if self.models[name].state == "held":
            self.journal.outbox.release_events([f"e-{name}"])
            self.models[name].state = "ready"

    @rule(name=deliveries)
    def forget(self, name: str) -> None:
        if self.models[name].state != "held":
            return  # only what was never published is forgotten
        result_of(self.journal.outbox.forget_uploads([name]))
        self.models[name].state = "forgotten"

    @rule(target=claims)
    def claim(self) -> list[Delivery]:
        batch = claim_deliveries(self.journal, limit=2)
        due = [n for n, m in self.models.items() if m.state == "ready" and not m.due_later]
        assert len(batch) == min(len(due), 2)
        for delivery in batch:
            model = self.models[str(delivery.upload_id)]
            assert delivery.upload_id in due
            model.state, model.attempt = "running", model.attempt + 1
            assert delivery.attempt == model.attempt
        return batch

    def mine(self, batch: list[Delivery]) -> list[Model]:
        """The models of those deliveries of a claim that are still its own."""
        pairs = [(delivery, self.models[str(delivery.upload_id)]) for delivery in batch]
        return [
            m for d, m in pairs if m.state == "running" and (m.round, m.attempt) == (d.round, d.attempt)
        ]

    @rule(batch=claims, outcome=st.sampled_from(["done", "retry", "dead"]), later=st.booleans())
    def settle_run(self, batch: list[Delivery], outcome: str, later: bool) -> None:
        mine = self.mine(batch)
        for delivery in batch:
            settle_run(self.journal, delivery, outcome, delay=900.0 if later else 0.0)
        for model in mine:
            model.state = "ready" if outcome == "retry" else outcome
            model.due_later, model.runs = later and outcome == "retry", model.runs + 1

    @rule(batch=consumes(claims))
    def requeue(self, batch: list[Delivery]) -> None:
        mine = self.mine(batch)
        run_sync(self.journal.queue.requeue(batch))
        for model in mine:
            model.state, model.attempt = "ready", model.attempt - 1

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(Path(self.folder.name) / "j.db", full=False)
        self.journal.open()
        due, ran = result_of(self.journal.queue.recover())
        models = self.models.values()
        assert due == sum(m.state in {"held", "ready"} and not m.due_later for m in models)
        assert ran == sum(model.state == "running" for model in models)
        for model in self.models.values():
            if model.state in {"held", "running"}:
                model.state, model.due_later = "ready", False

    @rule(name=deliveries)
    def retry_dead(self, name: str) -> None:
        """An operator has what is dead tried anew."""
        model, dead = self.models[name], Selection(state="dead", events=(f"e-{name}",))
        assert run_sync(run_all(self.journal.ledger, "retry", dead)) == (model.state == "dead")
        if model.state == "dead":
            model.state, model.attempt, model.round = "ready", 0, model.round + 1

    @invariant()
    def the_journal_agrees(self) -> None:
        page = run_sync(self.journal.ledger.page(Selection(), None, 1000))
        found = {row.upload_id: (row.state, row.attempt) for row in page.rows}
        assert found == {n: (_shown(m), m.attempt) for n, m in self.models.items() if _shown(m)}
        for name, model in self.models.items():
            history = run_sync(self.journal.ledger.history(f"e-{name}"))
            runs = history.deliveries[0].runs if history else []
            assert len(runs) == model.runs


def _shown(model: Model) -> str:
    if model.state == "ready" and model.due_later:
        return "delayed"
    return {"held": "ready", "forgotten": ""}.get(model.state, model.state)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
