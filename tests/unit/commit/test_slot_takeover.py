"""Slot takeover: deliveries of an unused slot continue in another, once, wherever a crash comes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commit import recover as recovery
from gateway.commit.recover import absorb_slots, create_journals
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.storage.local.state_dir import StateDirectory, existing_slots
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    run_sync,
    settle_run,
    upload_record,
)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path / "data" / ".gateway")
    made.prepare()
    return made


@pytest.fixture
def journal(state: StateDirectory) -> Iterator[Journal]:
    opened = Journal(state.journal, full=False)
    opened.open()
    yield opened
    opened.close()


def orphan(state: StateDirectory, slot: int = 2) -> Journal:
    """Open the journal of another slot; the test closes it."""
    place = StateDirectory(state.folder, slot)
    place.prepare()
    opened = Journal(place.journal, full=False)
    opened.open()
    return opened


def left(state: StateDirectory, *names: str, slot: int = 2) -> None:
    """Leave published uploads whose deliveries nobody has run."""
    journal = orphan(state, slot)
    publish_uploads(journal, *names)
    journal.close()


def remains(state: StateDirectory) -> list[str]:
    return sorted(path.name for path in state.folder.iterdir() if "-0" not in path.name)


def test_without_orphans_nothing_happens(state: StateDirectory, journal: Journal) -> None:
    publish_uploads(journal, "a")
    assert absorb_slots(state, journal, 1) == 0
    assert delivery_states(journal) == {("e-a", "h"): "ready"}


def test_deliveries_uploads_and_runs_move_and_nothing_of_the_slot_remains(
    state: StateDirectory, journal: Journal
) -> None:
    other = orphan(state)
    publish_uploads(other, "done", "failed", "dead", "waiting", handlers=("h",))
    for outcome in ("done", "retry", "dead"):
        (delivery,) = claim_deliveries(other)
        settle_run(other, delivery, outcome, f"of {outcome}", delay=3600)
    other.close()
    publish_uploads(journal, "ours")
    assert absorb_slots(state, journal, 1) == 4
    assert delivery_states(journal) == {
        ("e-ours", "h"): "ready",
        ("e-done", "h"): "done",
        ("e-failed", "h"): "delayed",
        ("e-dead", "h"): "dead",
        ("e-waiting", "h"): "ready",
    }
    story = result_of(journal.ledger.upload_history("failed"))
    assert story is not None
    assert [run["error"] for run in story["handlers"][0]["runs"]] == ["of retry"]
    assert {d.event_id for d in claim_deliveries(journal, limit=10)} == {"e-ours", "e-waiting"}
    assert remains(state) == ["held", "incoming", "once", "partials", "slots"]
    assert sorted(path.name for path in state.incoming.parent.iterdir()) == ["0"]


def test_more_rows_than_one_step_takes_move(state: StateDirectory, journal: Journal) -> None:
    left(state, *(f"u{number:04}" for number in range(1234)))
    assert absorb_slots(state, journal, 1) == 1234
    assert len(delivery_states(journal)) == 1234


def test_slots_that_are_still_served_are_left_alone(state: StateDirectory, journal: Journal) -> None:
    left(state, "a", slot=1)
    left(state, "b", slot=2)
    assert absorb_slots(state, journal, 2) == 1
    assert delivery_states(journal) == {("e-b", "h"): "ready"}
    assert existing_slots(state.folder) == [0, 1]


def test_a_run_that_the_crash_interrupted_has_used_its_attempt(
    state: StateDirectory, journal: Journal
) -> None:
    other = orphan(state)
    publish_uploads(other, "a")
    claim_deliveries(other)
    other.close()
    absorb_slots(state, journal, 1)
    (delivery,) = claim_deliveries(journal)
    assert delivery.attempt == 2


def test_what_was_never_published_goes_with_its_row_and_is_never_published_later(
    state: StateDirectory, journal: Journal
) -> None:
    other = orphan(state)
    result_of(other.outbox.record_uploads([upload_record("unanswered")]))
    other.close()
    body = StateDirectory(state.folder, 2).incoming / "unanswered"
    body.write_bytes(b"whole, but unanswered")
    assert absorb_slots(state, journal, 1) == 0
    assert delivery_states(journal) == {}
    assert not body.exists()


@pytest.mark.parametrize("point", ["rename", "copy_from", "unlink"])
def test_a_crash_on_the_way_is_repeated_and_nothing_is_there_twice(
    state: StateDirectory, journal: Journal, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    left(state, "a", "b")

    def crash(*_: object, **__: object) -> None:
        raise OSError("the crash")

    with monkeypatch.context() as broken:
        owner = {"rename": os, "copy_from": Journal, "unlink": Path}[point]
        broken.setattr(owner, point, crash)
        with pytest.raises(ConfigError, match="cannot be taken over"):
            absorb_slots(state, journal, 1)
    absorb_slots(state, journal, 1)
    assert delivery_states(journal) == {("e-a", "h"): "ready", ("e-b", "h"): "ready"}
    assert remains(state) == ["held", "incoming", "once", "partials", "slots"]


def test_a_slot_that_lives_again_after_a_crash_on_the_way_does_not_have_the_rows_too(
    state: StateDirectory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(state, "a")
    with monkeypatch.context() as broken:
        broken.setattr(recovery, "_absorb", lambda *_: 0)
        absorb_slots(state, journal, 1)
    assert existing_slots(state.folder) == [0]
    left(state, "b")  # three processes again
    assert absorb_slots(state, journal, 3) == 1
    assert delivery_states(journal) == {("e-a", "h"): "ready"}


def test_rows_that_moved_on_are_not_set_back_by_a_second_copy(
    state: StateDirectory, journal: Journal
) -> None:
    left(state, "a")
    source = StateDirectory(state.folder, 2).journal
    kept = shutil.copy(source, source.with_name("kept"))
    absorb_slots(state, journal, 1)
    (delivery,) = claim_deliveries(journal)
    settle_run(journal, delivery, "done")
    shutil.copy(kept, source.with_name("leaving-2.db"))
    absorb_slots(state, journal, 1)
    assert delivery_states(journal) == {("e-a", "h"): "done"}


def test_a_locked_slot_is_left_for_the_next_start(
    state: StateDirectory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(state, "a")
    monkeypatch.setattr(recovery, "SLOT_LOCK_TIMEOUT", 0.01)
    holder = StateDirectory(state.folder, 2)
    holder.lock.acquire()
    assert absorb_slots(state, journal, 1) == 0
    holder.lock.release()
    assert absorb_slots(state, journal, 1) == 1


def test_pauses_move_too_and_new_slots_begin_with_them(state: StateDirectory, journal: Journal) -> None:
    other = orphan(state)
    run_sync(other.ledger.pause("slow"))
    other.close()
    absorb_slots(state, journal, 1)
    assert run_sync(journal.ledger.paused()) == {"slow"}
    create_journals(state, journal, 2)
    new = orphan(state, 1)
    assert run_sync(new.ledger.paused()) == {"slow"}
    run_sync(new.ledger.resume("slow"))
    new.close()
    create_journals(state, journal, 2)  # only new ones begin so
    again = orphan(state, 1)
    assert run_sync(again.ledger.paused()) == frozenset()
    again.close()
