"""The outbox: uploads are written with held deliveries, released, or forgotten without a trace."""

from __future__ import annotations

import sqlite3

import pytest

from gateway.events.journal import Journal
from gateway.model import Identity
from tests.records import claimed, now, ready, record, states


def count_rows(journal: Journal) -> dict[str, int]:
    def operation(db: sqlite3.Connection) -> dict[str, int]:
        tables = ("uploads", "events", "deliveries", "runs")
        return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}

    return now(journal._database.submit(operation))


def test_held_deliveries_cannot_be_claimed_until_they_are_released(journal: Journal) -> None:
    now(journal.outbox.record([record("a"), record("b")]))
    assert claimed(journal, limit=10) == []
    now(journal.outbox.release(["e-b"]))
    assert [delivery.upload_id for delivery in claimed(journal, limit=10)] == ["b"]


def test_a_release_that_comes_twice_does_not_deliver_twice(journal: Journal) -> None:
    ready(journal, "a")
    assert len(claimed(journal)) == 1
    now(journal.outbox.release(["e-a", "e-unknown"]))
    assert claimed(journal) == []
    assert states(journal) == {("e-a", "h"): "running"}


def test_records_are_written_all_or_none(journal: Journal) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        now(journal.outbox.record([record("a"), record("b"), record("a")]))
    assert set(count_rows(journal).values()) == {0}


def test_forgetting_leaves_no_trace_and_touches_nothing_else(journal: Journal) -> None:
    now(journal.outbox.record([record("a", ("h", "i")), record("b"), record("c", ())]))
    assert count_rows(journal) == {"uploads": 3, "events": 2, "deliveries": 3, "runs": 0}
    now(journal.outbox.forget(["a", "c", "unknown"]))
    assert count_rows(journal) == {"uploads": 1, "events": 1, "deliveries": 1, "runs": 0}
    assert now(journal.ledger.story("a")) is None
    assert now(journal.ledger.history("e-a")) is None
    left = now(journal.outbox.recorded(["a", "b", "c"]))
    assert set(left) == {"b"}


def test_an_upload_without_handlers_has_a_story_and_no_event(journal: Journal) -> None:
    now(journal.outbox.record([record("a", ())]))
    assert count_rows(journal) == {"uploads": 1, "events": 0, "deliveries": 0, "runs": 0}
    story = now(journal.ledger.story("a"))
    assert story is not None
    assert story["handlers"] == []


def test_what_was_recorded_tells_path_and_identity(journal: Journal) -> None:
    identity = Identity(2**63 - 1, 2**62, 2**45, 1_700_000_000_123_456_789)
    now(journal.outbox.record([record("a", path="/upload/ä/日本", identity=identity)]))
    assert now(journal.outbox.recorded(["a"])) == {"a": ("/upload/ä/日本", identity)}
    assert now(journal.outbox.recorded([])) == {}


def test_an_upload_that_moved_before_it_was_published_is_delivered_under_its_new_path(
    journal: Journal,
) -> None:
    now(journal.outbox.record([record("a")]))
    now(journal.outbox.move("a", "/upload/a-1"))
    now(journal.outbox.release(["e-a"]))
    assert claimed(journal)[0].body["path"] == "/upload/a-1"
    assert now(journal.outbox.recorded(["a"]))["a"][0] == "/upload/a-1"
