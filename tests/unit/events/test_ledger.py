"""The ledger: what watchers are told, page by page, what they change, and what is let go of."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import EventEngineUnavailable
from gateway.events import ledger
from gateway.events import ledger_queries as queries
from gateway.events.journal import Journal
from gateway.events.outbox import UploadRecord
from gateway.events.protocols import STATES, VERB_STATES, VERBS, Depth, Selection, State, Verb, run_all
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    run_sync,
    settle_run,
    upload_record,
)

LATER = time.time() + 3600
EARLIER = time.time() - 3600


def settle_first(journal: Journal, outcome: str, handler: str = "h", delay: float = 0.0) -> None:
    settle_run(journal, claim_deliveries(journal, handler)[0], outcome, "why", delay)


@pytest.fixture
def busy(journal: Journal) -> Journal:
    """A journal with one delivery of `h` in each state; the order tells the names."""
    for name, outcome, delay in (("done", "done", 0), ("dead", "dead", 0), ("delayed", "retry", 900)):
        publish_uploads(journal, name)
        settle_first(journal, outcome, delay=delay)
    publish_uploads(journal, "running")
    claim_deliveries(journal)
    publish_uploads(journal, "ready")
    result_of(journal.outbox.record_uploads([upload_record("held"), upload_record("other", ("i",))]))
    return journal


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and chunks so small that a few rows need many of them."""
    monkeypatch.setattr(queries, "MAX_WINDOW", 3)
    monkeypatch.setattr(ledger, "MAX_WINDOW", 3)
    monkeypatch.setattr(ledger, "MAX_CHUNK", 2)


def select(journal: Journal, statement: str) -> list[Any]:
    return result_of(journal._database.submit(lambda db: db.execute(statement).fetchall()))


async def names(journal: Journal, limit: int = 100, **wanted: Any) -> list[str | None]:
    """Walk through all pages."""
    selection, found, after = Selection(**wanted), [], None
    while True:
        page = await journal.ledger.page(selection, after, limit)
        assert len(page.rows) <= limit
        found += [row.upload_id for row in page.rows]
        after = page.next
        if after is None:
            return found


# -- pages


async def test_a_page_can_be_narrowed_to_a_state(busy: Journal) -> None:
    for state in ("done", "dead", "delayed", "running"):
        assert await names(busy, state=state) == [state]
    assert await names(busy, state="ready") == ["ready", "held", "other"]
    assert await names(busy) == ["done", "dead", "delayed", "running", "ready", "held", "other"]


async def test_a_page_can_be_narrowed_to_a_handler(busy: Journal) -> None:
    assert await names(busy, handler="i") == ["other"]
    assert await names(busy, state="dead", handler="i") == []
    assert await names(busy, state="dead", handler="h") == ["dead"]
    assert await names(busy, handler="h' OR 1") == []


async def test_a_page_can_be_narrowed_to_events_and_to_a_time(busy: Journal) -> None:
    assert await names(busy, events=("e-ready", "e-dead", "e-unknown")) == ["dead", "ready"]
    assert await names(busy, events=("e-ready", "e-dead"), state="dead") == ["dead"]
    assert await names(busy, since=LATER) == []
    [(born,)] = select(busy, "SELECT created FROM deliveries WHERE event_id = 'e-running'")
    assert await names(busy, since=born) == ["running", "ready", "held", "other"]


async def test_pages_follow_each_other_without_gap_or_overlap(journal: Journal) -> None:
    everything = [f"u{number:02}" for number in range(25)]
    publish_uploads(journal, *everything)
    for limit in (1, 5, 10, 25, 26):
        assert await names(journal, limit) == everything


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("state", [None, "ready", "dead"])
async def test_what_lies_many_windows_apart_is_found(journal: Journal, state: State | None) -> None:
    everything = [f"u{number:02}" for number in range(40)]
    for name in everything:
        publish_uploads(journal, name, handlers=("rare",) if name in {"u07", "u31"} else ("h",))
    if state == "dead":
        for handler, count in (("h", 38), ("rare", 2)):
            for delivery in claim_deliveries(journal, handler, count):
                settle_run(journal, delivery, "dead")
    for limit in (1, 2, 50):
        assert await names(journal, limit, handler="rare", state=state) == ["u07", "u31"]


async def test_a_row_of_a_page_tells_all_that_the_command_line_shows(busy: Journal) -> None:
    (row,) = (await busy.ledger.page(Selection("dead"), None, 1)).rows
    assert (row.event_id, row.upload_id, row.handler) == ("e-dead", "dead", "h")
    assert (row.event, row.path) == ("APIGW.OnFileUploaded", "/upload/dead")
    assert (row.state, row.attempt, row.error) == ("dead", 1, "why")
    assert row.created <= row.due <= time.time()


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5.1", "1.", " 1", "٣", "9" * 19])
async def test_a_cursor_that_is_none_is_told(busy: Journal, cursor: str) -> None:
    with pytest.raises(ValueError, match="invalid cursor"):
        await busy.ledger.page(Selection(), cursor, 10)
    with pytest.raises(ValueError, match="invalid cursor"):
        await busy.ledger.run_chunk("retry", Selection("dead"), cursor)


# -- one event, one upload


async def test_a_story_tells_every_handler_in_the_words_of_the_pages(busy: Journal) -> None:
    for name, state in (("held", "ready"), ("delayed", "delayed"), ("running", "running")):
        story = result_of(busy.ledger.upload_history(name))
        assert story is not None
        assert [delivery["state"] for delivery in story["handlers"]] == [state]
    assert result_of(busy.ledger.upload_history("unknown")) is None


async def test_a_history_tells_body_path_and_handlers(journal: Journal) -> None:
    publish_uploads(journal, "a", handlers=("z", "b"))
    history = await journal.ledger.history("e-a")
    assert history is not None
    assert (history.upload_id, history.path, history.body["bytes"]) == ("a", "/upload/a", 3)
    assert [story.row.handler for story in history.deliveries] == ["b", "z"]
    assert await journal.ledger.history("a") is None


async def test_a_run_tells_where_when_and_how_it_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", full=False, node="host:8080")
    journal.open()
    publish_uploads(journal, "a")
    before = time.time()
    settle_first(journal, "dead")
    history = await journal.ledger.history("e-a")
    journal.close()
    assert history is not None
    [run] = history.deliveries[0].runs
    assert (run.attempt, run.node, run.duration, run.outcome, run.error) == (
        1, "host:8080", 0.5, "dead", "why",
    )  # fmt: skip
    assert before <= run.ended <= time.time()


async def test_a_history_shows_the_latest_hundred_runs(journal: Journal) -> None:
    publish_uploads(journal, "a")
    for _ in range(103):
        settle_first(journal, "retry")
    history = await journal.ledger.history("e-a")
    assert history is not None
    assert [run.attempt for run in history.deliveries[0].runs] == list(range(4, 104))


# -- depth


async def test_depth_counts_all_that_is_not_done(busy: Journal) -> None:
    told = await busy.ledger.depth()
    assert [(one.handler, one.state, one.count) for one in told] == [
        ("h", "dead", 1),
        ("h", "delayed", 1),
        ("h", "ready", 2),
        ("h", "running", 1),
        ("i", "ready", 1),
    ]
    [(born,)] = select(busy, "SELECT created FROM deliveries WHERE event_id = 'e-ready'")
    assert next(one.oldest for one in told if (one.handler, one.state) == ("h", "ready")) == born


@pytest.mark.usefixtures("small_windows")
async def test_what_changes_its_state_meanwhile_is_counted_once_all_the_same(journal: Journal) -> None:
    publish_uploads(journal, "restless")

    def work() -> None:
        for _ in range(300):
            settle_first(journal, "retry")

    working = asyncio.create_task(asyncio.to_thread(work))
    while not working.done():
        assert [one.count for one in await journal.ledger.depth()] == [1]
    await working


async def test_depth_adds_up_what_the_windows_told(journal: Journal) -> None:
    publish_uploads(journal, *(f"u{number}" for number in range(9)), handlers=("h", "i"))
    [(born,)] = select(journal, "SELECT min(created) FROM deliveries")
    told = await journal.ledger.depth()
    assert told == [Depth("h", "ready", 9, born), Depth("i", "ready", 9, born)]


# -- what is read is bounded


class _Straight:
    """Runs an operation at once, on the connection it is given; keeps the plans of what it reads."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.plans: list[str] = []

    def read(self, operation: Any) -> None:
        statements: list[str] = []
        self._db.set_trace_callback(statements.append)
        operation(self._db)
        self._db.set_trace_callback(None)
        for statement in statements:
            rows = self._db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            self.plans += [row[3] for row in rows]


def plans(journal: Journal, *operations: Any) -> list[str]:
    """Return how SQLite goes about it, as far as it reads deliveries."""

    def explain(db: sqlite3.Connection) -> list[str]:
        straight = _Straight(db)
        for operation in operations:
            straight.read(operation)
        return straight.plans

    found = result_of(journal._database.submit(explain))
    assert found
    return [plan for plan in found if re.search(r"\b(deliveries|d)\b", plan)]


@pytest.mark.parametrize(
    ("state", "handler"),
    [("dead", None)] + [(s, h) for s in ("ready", "running", "delayed") for h in (None, "h")],
)
async def test_what_is_unfinished_is_found_without_reading_what_is_done(
    busy: Journal, state: State, handler: str | None
) -> None:
    search = queries.list_query(Selection(state, handler))
    kept_as = "ready" if state == "delayed" else state
    told = plans(
        busy,
        lambda db: queries.select_window(db, search, 0, 10, top=99, window=10),
        lambda db: queries.count(db, {kept_as: 0}),
    )
    assert all(
        re.match(r"SEARCH \w+ USING (COVERING )?INDEX deliveries_unfinished \(state=\? AND rowid", plan)
        for plan in told
    ), told


async def test_the_dead_of_one_handler_are_found_without_reading_those_of_another(
    busy: Journal,
) -> None:
    search = queries.list_query(Selection("dead", "h"))
    told = plans(busy, lambda db: queries.select_window(db, search, 0, 10, top=99, window=10))
    rows = r"SEARCH \w+ USING (COVERING )?INDEX deliveries_dead \(handler=\? AND rowid"
    assert all(re.match(rows, plan) for plan in told), told
    assert await names(busy, state="dead", handler="h") == ["dead"]
    assert await names(busy, state="dead", handler="i") == []


@pytest.mark.parametrize("wanted", [Selection(), Selection("done", "h"), Selection(events=("e-dead",))])
async def test_no_page_sorts_or_scans_all_there_is(busy: Journal, wanted: Selection) -> None:
    search = queries.list_query(wanted)
    told = plans(
        busy,
        lambda db: queries.select_window(db, search, 0, 10, top=99, window=10),
        lambda db: queries.rows(db, [1, 2]),
        lambda db: queries.history(db, "e-dead"),
    )
    assert [plan for plan in told if plan.startswith("SCAN")] == []


async def test_pruning_finds_what_is_old_through_an_index(busy: Journal) -> None:
    told = plans(
        busy,
        lambda db: ledger._prune_deliveries(db, "done", LATER),
        lambda db: ledger._prune_uploads(db, LATER, (0.0, "")),
    )
    assert [plan for plan in told if plan.startswith("SCAN")] == []


# -- retry, drop, replay


async def test_a_retry_makes_what_is_dead_or_delayed_due_now_with_all_its_attempts(
    busy: Journal,
) -> None:
    assert await run_all(busy.ledger, "retry", Selection(handler="h")) == 2
    again = {delivery.event_id: delivery.attempt for delivery in claim_deliveries(busy, "h", 10)}
    assert {again.pop(event) for event in ("e-dead", "e-delayed")} == {1}
    assert again.keys() == {"e-ready"}


async def test_each_verb_touches_only_what_is_its_own(busy: Journal) -> None:
    everything = set(await names(busy))
    assert await run_all(busy.ledger, "replay", Selection()) == 1
    assert await names(busy, state="done") == []
    assert set(await names(busy)) == everything
    assert (
        await run_all(busy.ledger, "drop", Selection(handler="h")) == 5
    )  # dead, delayed, ready, held, replayed
    assert await names(busy) == ["running", "other"]
    assert await run_all(busy.ledger, "retry", Selection()) == 0


async def test_a_selection_is_what_fits_all_that_it_says(busy: Journal) -> None:
    for nothing in (
        Selection("dead", "i"),
        Selection("dead", events=("e-delayed",)),
        Selection(events=("e-unknown",)),
        Selection("dead", since=LATER),
        Selection("done"),
        Selection("running"),
    ):
        assert await run_all(busy.ledger, "retry", nothing) == 0, nothing
    assert await run_all(busy.ledger, "retry", Selection("dead", "h", 0.0, ("e-dead",))) == 1


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", STATES)
async def test_what_a_verb_may_touch_is_what_it_says(busy: Journal, verb: Verb, state: State) -> None:
    count = await run_all(busy.ledger, verb, Selection(state, "h"))
    assert (count > 0) == (state in VERB_STATES[verb])


async def test_a_drop_leaves_nothing_behind_but_the_upload(busy: Journal) -> None:
    assert await run_all(busy.ledger, "drop", Selection("dead")) == 1
    assert await busy.ledger.history("e-dead") is None
    assert select(busy, "SELECT * FROM runs WHERE delivery NOT IN (SELECT seq FROM deliveries)") == []
    story = result_of(busy.ledger.upload_history("dead"))
    assert story is not None
    assert story["handlers"] == []


async def test_an_event_stays_while_another_handler_has_it(journal: Journal) -> None:
    publish_uploads(journal, "a", handlers=("h", "i"))
    settle_first(journal, "dead")
    await run_all(journal.ledger, "drop", Selection("dead"))
    history = await journal.ledger.history("e-a")
    assert history is not None
    assert [story.row.handler for story in history.deliveries] == ["i"]


async def test_a_run_that_was_claimed_before_a_replay_settles_nothing_of_it(journal: Journal) -> None:
    publish_uploads(journal, "a")
    [stale] = claim_deliveries(journal)
    settle_run(journal, stale, "done")
    assert await run_all(journal.ledger, "replay", Selection(events=("e-a",))) == 1
    [again] = claim_deliveries(journal)
    settle_run(journal, stale, "dead")
    assert delivery_states(journal) == {("e-a", "h"): "running"}
    settle_run(journal, again, "done")
    assert delivery_states(journal) == {("e-a", "h"): "done"}


@pytest.mark.usefixtures("small_windows")
async def test_steps_do_each_delivery_once_however_often_it_comes_to_fit_again(journal: Journal) -> None:
    publish_uploads(journal, *(f"u{number}" for number in range(9)))
    for delivery in claim_deliveries(journal, "h", 9):
        settle_run(journal, delivery, "dead")
    done, after = 0, None
    for _ in range(99):
        step = await journal.ledger.run_chunk("retry", Selection("dead"), after)
        done, after = done + step.count, step.next
        for delivery in claim_deliveries(journal, "h", 99):
            settle_run(journal, delivery, "dead")
        publish_uploads(journal, f"new{done}")  # and what came later is left alone
        if after is None:
            break
    assert done == 9


async def test_what_was_retried_is_claimed_by_whoever_waits(journal: Journal) -> None:
    publish_uploads(journal, "a")
    settle_first(journal, "dead")
    waiting = asyncio.create_task(journal.queue.claim("h", 1, 30.0))
    await asyncio.sleep(0)
    await run_all(journal.ledger, "retry", Selection("dead"))
    [delivery] = await asyncio.wait_for(waiting, 20)
    assert (delivery.event_id, delivery.attempt) == ("e-a", 1)


# -- pause


async def test_a_paused_handler_is_not_claimed_until_it_is_resumed(journal: Journal) -> None:
    publish_uploads(journal, "a", handlers=("h", "i"))
    await journal.ledger.pause("h")
    await journal.ledger.pause("h")
    assert await journal.ledger.paused() == {"h"}
    assert await journal.queue.claim("h", 9, 0.0) == []
    assert len(await journal.queue.claim("i", 9, 0.0)) == 1
    waiting = asyncio.create_task(journal.queue.claim("h", 9, 30.0))
    await asyncio.sleep(0)
    await journal.ledger.resume("h")
    assert len(await asyncio.wait_for(waiting, 20)) == 1
    assert await journal.ledger.paused() == frozenset()


async def test_a_pause_survives_the_process(tmp_path: Path) -> None:
    for turn in range(2):
        journal = Journal(tmp_path / "journal.db")
        journal.open()
        if turn == 0:
            publish_uploads(journal, "a")
            await journal.ledger.pause("h")
        else:
            assert await journal.ledger.paused() == {"h"}
            assert await journal.queue.claim("h", 9, 0.0) == []
        journal.close()


# -- keeping house


def test_a_check_writes(journal: Journal) -> None:
    for _ in range(2):
        result_of(journal.ledger.check_writable())
    assert [name for name, _ in select(journal, "SELECT * FROM facts")] == ["checked"]


async def test_a_journal_that_is_closed_is_away(journal: Journal) -> None:
    await asyncio.to_thread(journal.close)
    for question in (journal.ledger.depth(), run_all(journal.ledger, "retry", Selection("dead"))):
        with pytest.raises(EventEngineUnavailable):
            await question


def test_pruning_removes_what_is_done_and_old_with_all_that_hangs_on_it(busy: Journal) -> None:
    kept = delivery_states(busy).keys() - {("e-done", "h")}
    result_of(busy.outbox.record_uploads([upload_record("silent", ())]))
    assert (
        run_sync(busy.ledger.prune(LATER, LATER)) == 3
    )  # the delivery, its upload, the one without handlers
    assert delivery_states(busy).keys() == kept
    assert result_of(busy.ledger.upload_history("done")) is None
    assert run_sync(busy.ledger.history("e-done")) is None
    assert result_of(busy.ledger.upload_history("silent")) is None
    assert select(busy, "SELECT count(*) FROM runs") == [(2,)]  # of dead and delayed
    assert run_sync(busy.ledger.prune(LATER, LATER)) == 0


def test_pruning_keeps_what_is_young(busy: Journal) -> None:
    assert run_sync(busy.ledger.prune(EARLIER, EARLIER)) == 0
    assert len(delivery_states(busy)) == 7


async def test_what_was_handed_over_stays_as_long_as_is_said_of_it_alone(journal: Journal) -> None:
    publish_uploads(journal, "relayed", "done")
    await journal.queue.mark_relayed(await journal.queue.claim_any(1, 0.0))
    settle_first(journal, "done")
    assert run_sync(journal.ledger.prune(LATER, EARLIER)) == 2  # what is done, and its upload
    assert run_sync(journal.ledger.history("e-relayed")) is not None
    assert run_sync(journal.ledger.prune(EARLIER, LATER)) == 1
    assert run_sync(journal.ledger.history("e-relayed")) is None


def test_an_event_stays_as_long_as_one_of_its_handlers_is_not_done(journal: Journal) -> None:
    publish_uploads(journal, "a", handlers=("h", "i"))
    settle_first(journal, "done")
    settle_first(journal, "dead", "i")
    assert run_sync(journal.ledger.prune(LATER, LATER)) == 1
    history = run_sync(journal.ledger.history("e-a"))
    assert history is not None
    assert [story.row.handler for story in history.deliveries] == ["i"]


def test_pruning_takes_a_bounded_number_at_a_time(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent: list[UploadRecord] = [upload_record(f"s{number}", ()) for number in range(25)]
    result_of(journal.outbox.record_uploads(silent))
    monkeypatch.setattr(ledger, "MAX_PRUNE_WINDOW", 10)
    taken = list[int]()
    prune = ledger._prune_uploads

    def counted(*arguments: Any, **fields: Any) -> Any:
        gone, position = prune(*arguments, **fields)
        taken.append(gone)
        return gone, position

    monkeypatch.setattr(ledger, "_prune_uploads", counted)
    assert run_sync(journal.ledger.prune(LATER, LATER)) == 25
    assert taken == [10, 10, 5]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PRUNE_INTERVAL", 0.001)


@pytest.mark.usefixtures("hasty")
async def test_housekeeping_runs_until_the_journal_is_closed(journal: Journal) -> None:
    publish_uploads(journal, "a")
    keeping = asyncio.create_task(journal.ledger.prune_periodically(0.0, 3600.0))
    settle_run(journal, (await journal.queue.claim("h", 1, 0.0))[0], "done")
    async with asyncio.timeout(20):
        while await names(journal):
            await asyncio.sleep(0.005)  # nobody is told of a pruning; its end is what is awaited
    await asyncio.to_thread(journal.close)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
