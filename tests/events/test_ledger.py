"""The ledger: what watchers are told, page by page, and what is let go of after a while."""

from __future__ import annotations

import re
import sqlite3
import time

import pytest

from gateway.events.journal import Journal
from gateway.events.ledger import Ledger
from gateway.events.outbox import Record
from tests.records import claimed, now, ready, record, states

LATER = time.time() + 3600


def settle_first(journal: Journal, outcome: str, handler: str = "h", delay: float = 0.0) -> None:
    (delivery,) = claimed(journal, handler)
    now(journal.queue.settle(delivery, outcome, 0.5, "why" if outcome != "done" else None, delay))  # type: ignore[arg-type]


@pytest.fixture
def busy(journal: Journal) -> Journal:
    """A journal with one delivery of `h` in each state; the order tells the names."""
    for name, outcome, delay in (("done", "done", 0), ("dead", "dead", 0), ("delayed", "retry", 900)):
        ready(journal, name)
        settle_first(journal, outcome, delay=delay)
    ready(journal, "running")
    claimed(journal)
    ready(journal, "ready")
    now(journal.outbox.record([record("held"), record("other", ("i",))]))
    return journal


def names(journal: Journal, state: str | None = None, handler: str | None = None) -> list[str]:
    return [row["upload_id"] for row in now(journal.ledger.page(state, handler, 0, 100))]


def test_a_page_can_be_narrowed_to_a_state(busy: Journal) -> None:
    for state in ("done", "dead", "delayed", "running"):
        assert names(busy, state) == [state]
    assert names(busy, "ready") == ["ready", "held", "other"]
    assert names(busy) == ["done", "dead", "delayed", "running", "ready", "held", "other"]


def test_a_page_can_be_narrowed_to_a_handler(busy: Journal) -> None:
    assert names(busy, handler="i") == ["other"]
    assert names(busy, "dead", "i") == []
    assert names(busy, "dead", "h") == ["dead"]
    assert names(busy, handler="h' OR 1") == []


def test_pages_follow_each_other_without_gap_or_overlap(journal: Journal) -> None:
    everything = [f"u{number:02}" for number in range(25)]
    ready(journal, *everything)
    seen: list[str] = []
    after, pages = 0, 0
    while rows := now(journal.ledger.page(None, None, after, 10)):
        seen += [row["upload_id"] for row in rows]
        after, pages = rows[-1]["seq"], pages + 1
    assert (seen, pages) == (everything, 3)


def test_a_row_of_a_page_tells_all_that_the_command_line_shows(busy: Journal) -> None:
    (row,) = now(busy.ledger.page("dead", None, 0, 1))
    assert {key: row[key] for key in ("event_id", "upload_id", "handler", "event", "path")} == {
        "event_id": "e-dead",
        "upload_id": "dead",
        "handler": "h",
        "event": "APIGW.OnFileUploaded",
        "path": "/upload/dead",
    }
    assert (row["attempt"], row["error"]) == (1, "why")
    assert row["created"] <= row["due"] <= time.time()


def test_a_story_tells_every_handler_in_the_words_of_the_pages(busy: Journal) -> None:
    for name, state in (("held", "ready"), ("delayed", "delayed"), ("running", "running")):
        story = now(busy.ledger.story(name))
        assert story is not None
        assert [delivery["state"] for delivery in story["handlers"]] == [state]
    assert now(busy.ledger.story("unknown")) is None


def test_a_history_tells_body_path_and_handlers(journal: Journal) -> None:
    ready(journal, "a", handlers=("z", "b"))
    history = now(journal.ledger.history("e-a"))
    assert history is not None
    assert (history["upload_id"], history["path"], history["body"]["bytes"]) == ("a", "/upload/a", 3)
    assert [delivery["handler"] for delivery in history["handlers"]] == ["b", "z"]
    assert now(journal.ledger.history("a")) is None


def test_a_history_shows_the_latest_hundred_runs(journal: Journal) -> None:
    ready(journal, "a")
    for _ in range(103):
        settle_first(journal, "retry")
    history = now(journal.ledger.history("e-a"))
    assert history is not None
    assert [run["attempt"] for run in history["handlers"][0]["runs"]] == list(range(4, 104))


def test_depth_counts_all_that_is_not_done(busy: Journal) -> None:
    rows = {(row["handler"], row["state"]): row["count"] for row in now(busy.ledger.depth())}
    assert rows == {
        ("h", "dead"): 1,
        ("h", "held"): 1,
        ("h", "ready"): 2,
        ("h", "running"): 1,
        ("i", "held"): 1,
    }


@pytest.mark.parametrize("state", [None, "ready", "running", "delayed", "dead"])
def test_what_waits_is_found_without_reading_the_history(busy: Journal, state: str | None) -> None:
    """`depth` (here: None) and the pages of few: they must not hold up commits in a long journal."""
    plans: list[str] = []

    def explain(db: sqlite3.Connection) -> None:
        statements: list[str] = []
        db.set_trace_callback(statements.append)
        ledger = Ledger(_Straight(db))  # type: ignore[arg-type]
        if state is None:
            ledger.depth()
        else:
            ledger.page(state, None, 0, 10)
        db.set_trace_callback(None)
        (select,) = statements
        plans.extend(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {select}"))

    now(busy._database.submit(explain))
    on_deliveries = [plan for plan in plans if " d " in plan or "deliveries" in plan]
    assert on_deliveries
    assert all(re.match(r"SEARCH \w+ USING INDEX deliveries_\w+ \(state=", p) for p in on_deliveries), (
        plans
    )


class _Straight:
    """Runs an operation at once, on the connection it is given."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def submit(self, operation: object) -> None:
        operation(self._db)  # type: ignore[operator]


def test_a_check_writes(journal: Journal) -> None:
    for _ in range(2):
        now(journal.ledger.check())
    checked = now(journal._database.submit(lambda db: db.execute("SELECT * FROM facts").fetchall()))
    assert [name for name, _ in checked] == ["checked"]


# -- letting go


def test_pruning_removes_what_is_done_and_old_with_all_that_hangs_on_it(busy: Journal) -> None:
    kept = states(busy).keys() - {("e-done", "h")}
    now(busy.outbox.record([record("silent", ())]))
    assert now(busy.ledger.prune(LATER)) == 3  # the delivery, its upload, the one without handlers
    assert states(busy).keys() == kept
    assert now(busy.ledger.story("done")) is None
    assert now(busy.ledger.history("e-done")) is None
    assert now(busy.ledger.story("silent")) is None
    runs = now(busy._database.submit(lambda db: db.execute("SELECT count(*) FROM runs").fetchone()))
    assert runs == (2,)  # of dead and delayed
    assert now(busy.ledger.prune(LATER)) == 0


def test_pruning_keeps_what_is_young(busy: Journal) -> None:
    assert now(busy.ledger.prune(time.time() - 3600)) == 0
    assert len(states(busy)) == 7


def test_an_event_stays_as_long_as_one_of_its_handlers_is_not_done(journal: Journal) -> None:
    ready(journal, "a", handlers=("h", "i"))
    settle_first(journal, "done")
    settle_first(journal, "dead", "i")
    assert now(journal.ledger.prune(LATER)) == 1
    history = now(journal.ledger.history("e-a"))
    assert history is not None
    assert [delivery["handler"] for delivery in history["handlers"]] == ["i"]


def test_pruning_takes_a_bounded_number_at_a_time(journal: Journal) -> None:
    silent: list[Record] = [record(f"s{number}", ()) for number in range(25)]
    now(journal.outbox.record(silent))
    taken = []
    while gone := now(journal.ledger.prune(LATER, 10)):
        taken.append(gone)
    assert taken == [10, 10, 5]
