"""What a start makes of held uploads: bodies go back, what is published is so, what is lost is told."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.batch import BatchCommitter
from gateway.commit.held.recovery import warn_of_unknown
from gateway.commit.leftovers import Leftovers
from gateway.commit.records import BatchResult, CommitRequest, Subscribers, UploadEvents
from gateway.commit.recover import Recovered, absorb_slots, recover
from gateway.domain.grant import Grant
from gateway.domain.model import Identity, new_id
from gateway.domain.upload_fields import upload_of_fields
from gateway.errors import Refusal
from gateway.events.held_log import HeldUpload
from gateway.events.journal import Journal
from gateway.events.outbox import UploadRecord
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.state_dir import StateDirectory
from gateway.telemetry.redaction import Redaction
from tests.support.committer import CommitterHarness
from tests.support.held import ACCEPTED, HeldHarness
from tests.support.partials import partial_head
from tests.support.records import result_of


def start(harness: CommitterHarness) -> Recovered:
    return recover(harness.incoming, harness.journal, harness.once)


def used_urls(harness: CommitterHarness) -> list[str]:
    return sorted(os.listdir(harness.root.parent / "once"))


async def journalled_only(harness: CommitterHarness, held: HeldHarness, **fields: Any) -> Any:
    """Hold an upload, and move its body back to where it was before, as a kill leaves it."""
    told = await held.hold(**fields)
    harness.held.give(harness.incoming.fd, told.upload_id)
    harness.held.forget(told.upload_id)
    return told


async def test_a_journalled_body_that_was_not_moved_yet_is_held(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await journalled_only(harness, held, grant=Grant("PUT", "/x", 1 << 40, once="n" * 16))
    assert start(harness) == Recovered(0, 0, 1, 1)
    assert (held.bodies(), harness.bodies()) == ([told.upload_id], [])
    assert used_urls(harness) == ["n" * 16]
    await held.decide()
    await held.settled()
    assert harness.stored() == {"x": b"body"}


async def test_a_partial_upload_that_was_not_moved_yet_is_held_and_not_partial(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    head = partial_head(length=5, path="/x")
    opened = await harness.partial_store().create(head)
    await opened.begin(5)
    await opened.write(b"12345")
    await opened.hold({}, ("a",))
    harness.partials.write_head(head)
    os.rename(harness.root.parent / f"partials/{head.upload.id}.json.new",
              harness.root.parent / f"partials/{head.upload.id}.json")  # fmt: skip
    harness.held.give(harness.incoming.fd, head.upload.id)
    harness.held.forget(head.upload.id)
    start(harness)
    harness.partials.remove_rests()
    assert held.bodies() == [head.upload.id]
    assert [name for name in harness.partials.names() if name != "identities"] == []


async def test_a_publishing_that_was_cut_begins_anew_and_keeps_the_story(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held.decisions.close()
    told = await held.hold(grant=Grant("PUT", "/x", 1 << 40, once="n" * 16))
    await held.decide()
    (accepted,) = held.unsettled()
    monkeypatch.setattr("gateway.commit.publish.replace", dies)
    with pytest.raises(Killed):
        publish_here(harness, accepted)
    assert start(harness) == Recovered(0, 1, 0, 1)
    assert (held.bodies(), harness.bodies(), harness.stored()) == ([told.upload_id], [], {})
    assert held.event_states(told) == {"a": "done"}
    assert used_urls(harness) == ["n" * 16]
    monkeypatch.undo()
    await held.store.publish(accepted)
    assert harness.stored() == {"x": b"body"}


class Killed(BaseException):
    """What a kill is for this test: nothing is undone."""


def dies(*_: Any, **__: Any) -> None:
    raise Killed


def publish_here(harness: CommitterHarness, accepted: HeldUpload) -> None:
    """Publish in this thread, as the store and the committer do."""
    upload = upload_of_fields(accepted.upload)
    fd = harness.held.give(harness.incoming.fd, upload.id)
    body = harness.incoming.attach(upload.id, fd, accepted.bytes)
    events = UploadEvents(lambda: Subscribers(), Redaction(), 0)
    batch = BatchCommitter(harness.local_disk, harness.state, events)
    request = CommitRequest(upload, body, "text/plain", {}, from_client=True, was_held=True)
    batch.commit([request], BatchResult())


async def test_what_was_published_before_the_kill_is_held_no_longer(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    await held.decisions.close()
    told = await held.hold()
    await held.decide()
    (accepted,) = held.unsettled()
    await held.store.publish(accepted)
    again = await held.store.publish(accepted)  # as after an outcome that was in doubt
    assert (again.path, again.bytes) == ("/x", 4)
    start(harness)
    assert (held.state(told), held.bodies(), harness.stored()) == (None, [], {"x": b"body"})
    assert held.event_states(told) == {"a": "done", "h": "ready"}


async def test_an_upload_whose_body_is_lost_is_rejected(
    harness: CommitterHarness, held: HeldHarness, caplog: pytest.LogCaptureFixture
) -> None:
    await held.decisions.close()
    undecided, accepted = await held.hold("/a"), await held.hold("/b", handlers=("b",))
    await held.decide(ACCEPTED, "b")
    for told in (undecided, accepted):
        harness.held.remove(told.upload_id)
    start(harness)
    assert held.state(undecided) == "rejected"
    assert "has no body" in caplog.text
    await held.decisions.start()
    await held.settled()
    assert held.state(accepted) == "rejected"
    lost = [(told.upload_id, "not_found", 4) for told in (accepted, undecided)]
    assert sorted(held.rejected) == sorted(lost)
    await held.decisions.close()


async def test_a_body_of_no_journal_is_kept_and_told_of(
    harness: CommitterHarness, held: HeldHarness, caplog: pytest.LogCaptureFixture
) -> None:
    await held.hold()
    assert warn_of_unknown(harness.held, harness.journal) == 0
    (harness.held.folder / new_id(0)).write_bytes(b"of a journal that was put aside")
    start(harness)
    assert warn_of_unknown(harness.held, harness.journal) == 1
    assert len(held.bodies()) == 2
    assert "put the journal back" in caplog.text


async def test_rows_that_could_not_be_deleted_free_no_url_of_a_held_upload(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held.decisions.close()
    told = await held.hold(grant=Grant("PUT", "/x", 1 << 40, once="n" * 16))
    os.close(harness.held.give(harness.incoming.fd, told.upload_id))
    leftovers = Leftovers(harness.incoming, harness.state)
    leftovers.undo_later([told.upload_id])
    with monkeypatch.context() as patch:
        patch.setattr(harness.journal.outbox, "forget_uploads", fails)
        leftovers.clean_up()
    assert harness.bodies() == [told.upload_id]
    leftovers.clean_up()
    assert (held.bodies(), used_urls(harness)) == ([told.upload_id], ["n" * 16])


def raises(*_: Any) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def fails(*_: Any) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(sqlite3.OperationalError("disk I/O error"))
    return future


async def test_what_was_recorded_and_never_published_is_not_taken_for_published(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    """Its body has come back, but what the journal has of the publishing could not be deleted."""
    await held.decisions.close()
    told = await held.hold()
    await held.decide()
    row = UploadRecord(told.upload_id, "/x", Identity(1, 4, 3), "text/plain", {}, None, None, 1.0)
    harness.journal.outbox.record_uploads_now([row])
    start(harness)
    assert (held.state(told), held.bodies()) == ("accepted", [told.upload_id])
    assert result_of(harness.journal.outbox.recorded_uploads([told.upload_id])) == {}
    again = HeldHarness(harness)
    await again.decisions.start()
    await again.settled()
    await again.decisions.close()
    assert harness.stored() == {"x": b"body"}


async def test_what_an_earlier_try_left_is_deleted_before_the_next_one(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the rows of the upload that is published by then would be deleted."""
    await held.decisions.close()
    told = await held.hold()
    await held.decide()
    (accepted,) = held.unsettled()
    with monkeypatch.context() as patch:
        patch.setattr(harness.journal.outbox, "forget_uploads", fails)
        patch.setattr(harness.journal.outbox, "record_uploads_now", raises)
        with pytest.raises(Refusal):
            await held.store.publish(accepted)
    with pytest.raises(Refusal, match="not undone yet"):
        await held.store.publish(accepted)
    await held.store.publish(accepted)
    await harness.commit("/y", b"next")
    assert harness.stored() == {"x": b"body", "y": b"next"}
    assert told.upload_id in result_of(harness.journal.outbox.recorded_uploads([told.upload_id]))


async def test_held_uploads_move_with_their_slot(tmp_path: Path, harness: CommitterHarness) -> None:
    """The body stays where it is: the folder is that of all slots."""
    state, other = StateDirectory(tmp_path / "state", 0), StateDirectory(tmp_path / "state", 1)
    for directory in (state, other):
        directory.prepare()
    journal, leaving = Journal(state.journal), Journal(other.journal)
    told = await HeldHarness(harness).hold(handlers=("a", "b"))
    leaving.open()
    leaving.copy_from(harness.journal)
    leaving.close()
    other.held.mkdir()
    (other.held / told.upload_id).write_bytes(b"body")
    (other.incoming / new_id(1)).write_bytes(b"cut off")
    journal.open()
    try:
        assert absorb_slots(state, journal, 1) == 1
        rows = result_of(journal.held_uploads.find([told.upload_id]))
        assert rows[told.upload_id].handlers == ("a", "b")
        assert os.listdir(state.held) == [told.upload_id]
        claimed = await journal.queue.claim("a", 9, 0.0)
        assert [delivery.upload_id for delivery in claimed] == [told.upload_id]
    finally:
        journal.close()
    assert not other.journal.exists()
    IncomingDirectory(state.incoming).close()
