"""The outbox: uploads are written with held deliveries, released, or forgotten without a trace."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from gateway.domain.model import Identity
from gateway.errors import EventEngineUnavailable
from gateway.events.journal import Journal
from gateway.events.outbox import MAX_RECORDED_HERE
from gateway.events.protocols import NewEvent
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    run_sync,
    upload_record,
)


def count_rows(journal: Journal) -> dict[str, int]:
    def operation(db: sqlite3.Connection) -> dict[str, int]:
        tables = ("uploads", "events", "deliveries", "runs")
        return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}

    return result_of(journal._database.submit(operation))


def forbid_writing(journal: Journal) -> None:
    """Let every statement that writes fail, as on a disk that fails."""
    writing = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_UPDATE}

    def verdict(action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action in writing else sqlite3.SQLITE_OK

    result_of(journal._database.submit(lambda db: db.set_authorizer(verdict)))


def allow_writing(journal: Journal) -> None:
    result_of(journal._database.submit(lambda db: db.set_authorizer(None)))


def test_held_deliveries_cannot_be_claimed_until_they_are_released(journal: Journal) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a"), upload_record("b")]))
    assert claim_deliveries(journal, limit=10) == []
    journal.outbox.release_events(["e-b"])
    assert [delivery.upload_id for delivery in claim_deliveries(journal, limit=10)] == ["b"]


def test_a_release_that_comes_twice_does_not_deliver_twice(journal: Journal) -> None:
    publish_uploads(journal, "a")
    assert len(claim_deliveries(journal)) == 1
    journal.outbox.release_events(["e-a", "e-unknown"])
    assert claim_deliveries(journal) == []
    assert delivery_states(journal) == {("e-a", "h"): "running"}


def test_records_are_written_all_or_none(journal: Journal) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        result_of(
            journal.outbox.record_uploads([upload_record("a"), upload_record("b"), upload_record("a")])
        )
    assert set(count_rows(journal).values()) == {0}


def test_forgetting_leaves_no_trace_and_touches_nothing_else(journal: Journal) -> None:
    result_of(
        journal.outbox.record_uploads(
            [upload_record("a", ("h", "i")), upload_record("b"), upload_record("c", ())]
        )
    )
    assert count_rows(journal) == {"uploads": 3, "events": 2, "deliveries": 3, "runs": 0}
    result_of(journal.outbox.forget_uploads(["a", "c", "unknown"]))
    assert count_rows(journal) == {"uploads": 1, "events": 1, "deliveries": 1, "runs": 0}
    assert result_of(journal.ledger.upload_history("a")) is None
    assert run_sync(journal.ledger.history("e-a")) is None
    left = result_of(journal.outbox.recorded_uploads(["a", "b", "c"]))
    assert set(left) == {"b"}


def test_an_upload_without_handlers_has_a_story_and_no_event(journal: Journal) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a", ())]))
    assert count_rows(journal) == {"uploads": 1, "events": 0, "deliveries": 0, "runs": 0}
    story = result_of(journal.ledger.upload_history("a"))
    assert story is not None
    assert story["handlers"] == []


def test_what_was_recorded_tells_path_and_identity(journal: Journal) -> None:
    identity = Identity(2**62, 2**45, 1_700_000_000_123_456_789)
    result_of(
        journal.outbox.record_uploads([upload_record("a", path="/upload/ä/日本", identity=identity)])
    )
    assert result_of(journal.outbox.recorded_uploads(["a"])) == {"a": ("/upload/ä/日本", identity)}
    assert result_of(journal.outbox.recorded_uploads([])) == {}


def test_an_upload_that_moved_before_it_was_published_is_delivered_under_its_new_path(
    journal: Journal,
) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a")]))
    result_of(journal.outbox.move_upload("a", "/upload/a-1"))
    journal.outbox.release_events(["e-a"])
    assert claim_deliveries(journal)[0].body["path"] == "/upload/a-1"
    assert result_of(journal.outbox.recorded_uploads(["a"]))["a"][0] == "/upload/a-1"


def test_while_a_record_cannot_be_undone_it_stays_held(journal: Journal) -> None:
    result_of(journal.outbox.record_uploads([upload_record("a")]))
    forbid_writing(journal)
    assert isinstance(journal.outbox.forget_uploads(["a"]).exception(30), sqlite3.Error)
    allow_writing(journal)
    assert claim_deliveries(journal) == []
    result_of(journal.outbox.forget_uploads(["a"]))
    assert set(count_rows(journal).values()) == {0}
    assert journal.outbox._unpublished.event_ids() == []


def test_what_could_not_be_recorded_is_not_held(journal: Journal) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        result_of(journal.outbox.record_uploads([upload_record("a"), upload_record("a")]))
    assert journal.outbox._unpublished.event_ids() == []


def test_a_file_with_an_identity_beyond_the_journal_is_refused(journal: Journal) -> None:
    with pytest.raises(OverflowError):
        result_of(
            journal.outbox.record_uploads([upload_record("a", identity=Identity(2**64 - 1, 1, 1))])
        )
    assert set(count_rows(journal).values()) == {0}


@pytest.mark.parametrize("count", [1, MAX_RECORDED_HERE, MAX_RECORDED_HERE + 1])
def test_uploads_are_recorded_before_the_call_returns_and_not_claimed_before_the_release(
    journal: Journal, count: int
) -> None:
    records = [upload_record(f"u{number}") for number in range(count)]
    journal.outbox.record_uploads_now(records)
    assert count_rows(journal) == {"uploads": count, "events": count, "deliveries": count, "runs": 0}
    assert claim_deliveries(journal) == []
    journal.outbox.release_events([event.event_id for record in records for event in record.events])
    assert len(claim_deliveries(journal, "h", 99)) == count


@pytest.mark.parametrize("count", [2, MAX_RECORDED_HERE + 1])
def test_what_could_not_be_recorded_at_once_is_not_held(journal: Journal, count: int) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        journal.outbox.record_uploads_now([upload_record("a")] * count)
    assert journal.outbox._unpublished.event_ids() == []
    assert set(count_rows(journal).values()) == {0}


# -- events of others


def event(name: str, *handlers: str) -> NewEvent:
    return NewEvent(name, "Schedule", handlers or ("h",), {"scheduled": 1.0}, 1000.0)


async def test_what_many_publish_at_once_is_written_together(journal: Journal) -> None:
    seen: list[str] = []
    result_of(journal._database.submit(lambda db: db.set_trace_callback(seen.append)))
    seen.clear()
    await asyncio.gather(*(journal.outbox.publish([event(f"e{n}", "h", "i")]) for n in range(100)))
    assert len([line for line in seen if line == "COMMIT"]) == 1
    assert len([line for line in seen if line.startswith("INSERT")]) == 2
    assert len(delivery_states(journal)) == 200


async def test_an_event_that_cannot_be_written_harms_no_other(journal: Journal) -> None:
    strange = [event("e1"), NewEvent("e2", "Schedule", ("h",), {"x": object()}, 1.0), event("\ud800")]
    faults = await asyncio.gather(
        *(journal.outbox.publish([one]) for one in strange), return_exceptions=True
    )
    assert [type(fault) for fault in faults] == [type(None), TypeError, UnicodeEncodeError]
    assert delivery_states(journal) == {("e1", "h"): "ready"}


async def test_a_journal_that_cannot_be_written_is_away_and_then_back(journal: Journal) -> None:
    forbid_writing(journal)
    with pytest.raises(EventEngineUnavailable, match="cannot be written"):
        await journal.outbox.publish([event("e1")])
    allow_writing(journal)
    await journal.outbox.publish([event("e1")])
    assert delivery_states(journal) == {("e1", "h"): "ready"}


def test_an_event_that_is_known_gets_only_the_handlers_it_has_not(journal: Journal) -> None:
    run_sync(journal.outbox.publish([event("e1", "h")]))
    claim_deliveries(journal)
    run_sync(journal.outbox.publish([event("e1", "h", "i")]))
    assert delivery_states(journal) == {("e1", "h"): "running", ("e1", "i"): "ready"}
