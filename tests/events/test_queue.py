"""The queue: the life of a delivery, one step at a time and at random against a small model."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.events.journal import Journal
from gateway.events.queue import Outcome
from gateway.model import Delivery
from tests.records import claimed, now, ready, record, states


def test_an_attempt_is_counted_when_it_is_claimed(journal: Journal) -> None:
    ready(journal, "a")
    (delivery,) = claimed(journal)
    assert (delivery.attempt, delivery.event_id, delivery.upload_id) == (1, "e-a", "a")
    (row,) = now(journal.ledger.page(None, None, 0, 10))
    assert (row["state"], row["attempt"]) == ("running", 1)


def test_a_delivery_is_claimed_by_one_only_and_only_for_its_handler(journal: Journal) -> None:
    ready(journal, "a", handlers=("h", "i"))
    assert [delivery.handler for delivery in claimed(journal, "h", 10)] == ["h"]
    assert claimed(journal, "h", 10) == []
    assert claimed(journal, "stranger", 10) == []
    assert [delivery.handler for delivery in claimed(journal, "i", 10)] == ["i"]


def test_the_oldest_are_claimed_first_and_no_more_than_asked_for(journal: Journal) -> None:
    for name in "cab":
        ready(journal, name)
    claim = now(journal.queue.claim("h", 2))
    assert [delivery.upload_id for delivery in claim.deliveries] == ["c", "a"]
    assert claim.next_due is not None
    assert claim.next_due <= time.time()
    assert now(journal.queue.claim("h", 2)).next_due is None


def test_a_retry_that_is_due_later_is_not_claimable_before(journal: Journal) -> None:
    ready(journal, "a")
    before = time.time()
    now(journal.queue.settle(claimed(journal)[0], "retry", 0.1, "not yet", 600.0))
    claim = now(journal.queue.claim("h", 1))
    assert claim.deliveries == []
    assert claim.next_due is not None
    assert before + 600 <= claim.next_due <= time.time() + 600
    assert states(journal) == {("e-a", "h"): "delayed"}


def test_a_retry_that_is_due_runs_as_the_next_attempt(journal: Journal) -> None:
    ready(journal, "a")
    now(journal.queue.settle(claimed(journal)[0], "retry", 0.1, "no", 0.0))
    assert [delivery.attempt for delivery in claimed(journal)] == [2]


def test_each_ended_attempt_leaves_its_outcome(journal: Journal) -> None:
    ready(journal, "a")
    outcomes: tuple[Outcome, ...] = ("retry", "retry", "done")
    for outcome in outcomes:
        error = None if outcome == "done" else f"because {outcome}"
        now(journal.queue.settle(claimed(journal)[0], outcome, 0.25, error))
    history = now(journal.ledger.history("e-a"))
    assert history is not None
    (delivery,) = history["handlers"]
    assert (delivery["state"], delivery["attempt"], delivery["error"]) == ("done", 3, None)
    assert [(run["attempt"], run["outcome"], run["error"]) for run in delivery["runs"]] == [
        (1, "retry", "because retry"),
        (2, "retry", "because retry"),
        (3, "done", None),
    ]
    assert claimed(journal) == []


def test_a_stale_attempt_settles_nothing(journal: Journal) -> None:
    ready(journal, "a")
    (stale,) = claimed(journal)
    now(journal.queue.resume())
    now(journal.queue.settle(stale, "done", 0.1))  # taken away from it, not yet claimed again
    assert states(journal) == {("e-a", "h"): "ready"}
    (current,) = claimed(journal)
    now(journal.queue.settle(stale, "dead", 0.1, "late"))
    assert states(journal) == {("e-a", "h"): "running"}
    now(journal.queue.settle(current, "done", 0.1))
    now(journal.queue.settle(current, "dead", 0.1, "twice"))
    history = now(journal.ledger.history("e-a"))
    assert history is not None
    assert [run["outcome"] for run in history["handlers"][0]["runs"]] == ["done"]


def test_handing_back_uses_no_attempt(journal: Journal) -> None:
    ready(journal, "a", "b")
    first, second = claimed(journal, limit=2)
    now(journal.queue.settle(second, "done", 0.1))
    now(journal.queue.hand_back([first, second]))
    assert states(journal) == {("e-a", "h"): "ready", ("e-b", "h"): "done"}
    assert claimed(journal) == [first]
    now(journal.queue.hand_back([replace(first, attempt=7)]))
    assert states(journal)["e-a", "h"] == "running"


def test_a_start_revives_what_was_held_or_running(journal: Journal) -> None:
    ready(journal, "a", "b")
    claimed(journal)
    now(journal.outbox.record([record("c")]))
    assert now(journal.queue.resume()) == (1, 1)
    revived = {d.upload_id: d.attempt for d in claimed(journal, limit=9)}
    assert revived == {"a": 2, "b": 1, "c": 1}
    (row,) = (row for row in now(journal.ledger.page(None, None, 0, 9)) if row["upload_id"] == "a")
    assert row["error"] == "the gateway stopped while the handler ran"


def test_deliveries_of_handlers_that_are_gone_wait_dead(journal: Journal) -> None:
    ready(journal, "a", handlers=("here", "gone"))
    now(journal.outbox.record([record("held", ("gone",))]))
    ready(journal, "run", handlers=("gone_running",))
    claimed(journal, "gone_running")
    assert now(journal.queue.bury_orphans(["here", 'odd "name"'])) == 1
    assert states(journal) == {
        ("e-a", "gone"): "dead",
        ("e-a", "here"): "ready",
        ("e-held", "gone"): "ready",
        ("e-run", "gone_running"): "running",
    }
    assert now(journal.queue.bury_orphans([])) == 1


def test_the_body_comes_as_it_was_recorded(journal: Journal) -> None:
    body: dict[str, Any] = {"headers": {"X-Odd": 'ü"\n'}, "params": {"a": ["1", ""]}, "principal": None}
    now(journal.outbox.record([record("a", body=body)]))
    now(journal.outbox.release(["e-a"]))
    assert claimed(journal)[0].body == {**body, "bytes": 3, "path": "/upload/a"}


def test_two_thousand_events_go_through_once_each(journal: Journal) -> None:
    names = [f"u{number:04}" for number in range(2000)]
    for start in range(0, 2000, 100):
        ready(journal, *names[start : start + 100], handlers=("h", "i"))
    seen: dict[str, list[str]] = {"h": [], "i": []}
    for handler, told in seen.items():
        while batch := claimed(journal, handler, 64):
            for future in [journal.queue.settle(delivery, "done", 0.0) for delivery in batch]:
                now(future)
            told += [delivery.upload_id for delivery in batch]
    assert seen == {"h": names, "i": names}
    assert now(journal.ledger.depth()) == []


# -- at random, against a model


@dataclass
class Model:
    """What a delivery should be."""

    state: str = "held"
    attempt: int = 0
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
    def record(self) -> str:
        name = f"u{len(self.models)}"
        now(self.journal.outbox.record([record(name)]))
        self.models[name] = Model()
        return name

    @rule(name=deliveries)
    def release(self, name: str) -> None:
        now(self.journal.outbox.release([f"e-{name}"]))
        if self.models[name].state == "held":
            self.models[name].state = "ready"

    @rule(name=deliveries)
    def forget(self, name: str) -> None:
        if self.models[name].state != "held":
            return  # only what was never published is forgotten
        now(self.journal.outbox.forget([name]))
        self.models[name].state = "forgotten"

    @rule(target=claims)
    def claim(self) -> list[Delivery]:
        batch = claimed(self.journal, limit=2)
        due = [n for n, m in self.models.items() if m.state == "ready" and not m.due_later]
        assert len(batch) == min(len(due), 2)
        for delivery in batch:
            model = self.models[delivery.upload_id]
            assert delivery.upload_id in due
            model.state, model.attempt = "running", model.attempt + 1
            assert delivery.attempt == model.attempt
        return batch

    def mine(self, batch: list[Delivery]) -> list[Model]:
        """The models of those deliveries of a claim that are still its own."""
        pairs = [(delivery, self.models[delivery.upload_id]) for delivery in batch]
        return [m for d, m in pairs if m.state == "running" and m.attempt == d.attempt]

    @rule(batch=claims, outcome=st.sampled_from(["done", "retry", "dead"]), later=st.booleans())
    def settle(self, batch: list[Delivery], outcome: Outcome, later: bool) -> None:
        mine = self.mine(batch)
        for delivery in batch:
            now(self.journal.queue.settle(delivery, outcome, 0.1, "why", 900.0 if later else 0.0))
        for model in mine:
            model.state = "ready" if outcome == "retry" else outcome
            model.due_later, model.runs = later and outcome == "retry", model.runs + 1

    @rule(batch=consumes(claims))
    def hand_back(self, batch: list[Delivery]) -> None:
        mine = self.mine(batch)
        now(self.journal.queue.hand_back(batch))
        for model in mine:
            model.state, model.attempt = "ready", model.attempt - 1

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(Path(self.folder.name) / "j.db", full=False)
        self.journal.open()
        held, running = now(self.journal.queue.resume())
        told = [model.state for model in self.models.values()]
        assert (held, running) == (told.count("held"), told.count("running"))
        for model in self.models.values():
            if model.state in {"held", "running"}:
                model.state, model.due_later = "ready", False

    @invariant()
    def the_journal_agrees(self) -> None:
        rows = now(self.journal.ledger.page(None, None, 0, 1000))
        found = {row["upload_id"]: (row["state"], row["attempt"]) for row in rows}
        assert found == {n: (_shown(m), m.attempt) for n, m in self.models.items() if _shown(m)}
        for name, model in self.models.items():
            story = now(self.journal.ledger.story(name))
            runs = story["handlers"][0]["runs"] if story else []
            assert len(runs) == model.runs


def _shown(model: Model) -> str:
    if model.state == "ready" and model.due_later:
        return "delayed"
    return {"held": "ready", "forgotten": ""}.get(model.state, model.state)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
