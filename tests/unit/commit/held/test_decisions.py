"""What becomes of held uploads: decided once, then published or removed, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.held import decisions as held_decisions
from gateway.commit.held.holder import HeldBody, Holder
from gateway.domain.grant import Grant
from gateway.domain.held import Decision
from gateway.domain.model import UPLOADED, Identity, Upload, new_id
from gateway.errors import Refusal
from gateway.events.protocols import Selection, run_all
from gateway.storage.local.xattrs import read_attributes
from gateway.telemetry.redaction import Redaction
from tests.support.committer import CommitterHarness
from tests.support.harness import wait_until
from tests.support.held import ACCEPTED, REFUSED, HeldHarness
from tests.support.records import result_of


def granted(nonce: str, **terms: Any) -> Grant:
    return Grant("PUT", "/x", 1 << 40, once=nonce, **terms)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_decisions, "MIN_DELAY", 0.01)


async def test_an_accepted_upload_is_published_with_its_event(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold("/a/x")
    await held.decide()
    await held.settled()
    assert harness.stored() == {"a/x": b"body"}
    assert (held.state(told), held.bodies(), harness.bodies()) == (None, [], [])
    assert held.event_states(told) == {"a": "done", "h": "ready"}
    (uploaded,) = await harness.journal.queue.claim("h", 9, 0.0)
    assert (uploaded.event, uploaded.upload_id) == (UPLOADED, told.upload_id)
    assert uploaded.body["digests"] == told.digests


async def test_a_refused_upload_leaves_only_its_story(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold(grant=granted("n" * 16))
    await held.decide(REFUSED)
    await held.settled()
    row = held.row(told)
    assert row is not None
    assert row.state == "rejected"
    assert row.refusal == {
        "handler": "a", "status": 422, "output": "no", "content_type": "text/plain"
    }  # fmt: skip
    assert (harness.stored(), held.bodies(), harness.bodies()) == ({}, [], [])
    assert held.event_states(told) == {"a": "done"}
    assert held.rejected == [(told.upload_id, "rejected", 4)]
    await held.hold(grant=granted("n" * 16))  # the URL is valid again


async def test_handlers_decide_one_after_the_other_about_what_the_one_before_left(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold("/x", handlers=("a", "b", "c"), metadata={"m": "1"})
    await held.decide(Decision(path="/y.png", metadata={"m": "2"}, result={"seen": 1}))
    assert held.event_states(told) == {"a": "done", "b": "ready"}
    (delivery,) = await held.claim("b")
    assert (delivery.body["path"], delivery.body["metadata"]) == ("/y.png", {"m": "2"})
    held.queue.keep_decision(delivery, Decision(on_conflict="rename", result={"seen": 2}))
    await held.queue.ack(delivery, 0.0)
    (harness.root / "y.png").write_bytes(b"old")
    await held.decide(handler="c")
    await held.settled()
    assert harness.stored() == {"y.png": b"old", "y-1.png": b"body"}
    assert attributes_of(harness.root / "y-1.png")[1] == {"m": "2"}


async def test_the_results_of_handlers_are_kept(harness: CommitterHarness, held: HeldHarness) -> None:
    told = await held.hold(handlers=("a", "b"))
    await held.decide(Decision(result={"seen": 1}))
    await held.decide(Decision(REFUSED.refusal, result={"seen": 2}), "b")
    row = held.row(told)
    assert row is not None
    assert row.upload["results"] == {"a": {"seen": 1}, "b": {"seen": 2}}


async def test_a_run_that_failed_decides_nothing(harness: CommitterHarness, held: HeldHarness) -> None:
    told = await held.hold()
    for attempt in (1, 2):
        (delivery,) = await held.claim()
        assert delivery.attempt == attempt
        await held.queue.retry(delivery, 0.0, "it broke", 0.1)
    (delivery,) = await held.claim()
    await held.queue.dead_letter(delivery, "it broke", 0.1)
    assert (held.state(told), held.event_states(told)) == ("undecided", {"a": "dead"})
    assert await run_all(harness.journal.ledger, "retry", Selection()) == 1
    await held.decide()
    await held.settled()
    assert harness.stored() == {"x": b"body"}


async def test_a_decision_of_an_earlier_run_changes_nothing(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold()
    (late,) = await held.claim()
    await harness.journal.queue.requeue([late])
    held.queue.keep_decision(late, ACCEPTED)
    await held.queue.ack(late, 0.1)
    assert (held.state(told), held.event_states(told)) == ("undecided", {"a": "ready"})
    await held.decide(REFUSED)
    held.queue.keep_decision(late, ACCEPTED)
    await held.queue.ack(late, 0.1)
    await held.settled()
    assert (held.state(told), harness.stored()) == ("rejected", {})


async def test_a_replay_of_what_is_decided_runs_nothing(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold(handlers=("a", "b"))
    await held.decide()
    assert await run_all(harness.journal.ledger, "replay", Selection()) == 1
    assert await held.claim("a") == []
    await run_all(harness.journal.ledger, "replay", Selection())
    (again,) = await harness.journal.queue.claim("a", 9, 0.0)
    decided = harness.journal.held_uploads.decide(again, REFUSED, 0.0)
    assert (result_of(decided), held.state(told)) == (None, "undecided")
    await held.decide(REFUSED, "b")
    await held.settled()
    await run_all(harness.journal.ledger, "replay", Selection())
    assert (await held.claim("a"), await held.claim("b")) == ([], [])
    await wait_until(lambda: held.event_states(told) == {"a": "done", "b": "done"})
    assert held.state(told) == "rejected"


@pytest.mark.parametrize("claimed", [True, False])
async def test_an_operator_decides_instead_of_handlers(
    harness: CommitterHarness, held: HeldHarness, claimed: bool
) -> None:
    released, rejected = await held.hold("/a"), await held.hold("/b")
    runs = await held.claim(limit=2) if claimed else []
    await held.decisions.release(released.upload_id, "root")
    await held.decisions.reject(rejected.upload_id, "not wanted", "root")
    for run in runs:
        held.queue.keep_decision(run, REFUSED)
        await held.queue.ack(run, 0.1)
    await held.settled()
    assert harness.stored() == {"a": b"body"}
    row = held.row(rejected)
    assert row is not None
    assert (row.state, row.refusal) == ("rejected", {"reason": "not wanted", "by": "root"})
    assert held.event_states(rejected) == {"a": "done"}
    assert held.rejected == [(rejected.upload_id, "rejected", 4)]
    for decided, code in ((rejected.upload_id, "already_decided"), ("nobody", "not_found")):
        with pytest.raises(Refusal) as refused:
            await held.decisions.release(decided, "root")
        assert refused.value.code == code


async def test_dead_uploads_are_released_by_an_operator(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold()
    (delivery,) = await held.claim()
    await held.queue.dead_letter(delivery, "it broke", 0.1)
    await held.decisions.release(told.upload_id, "root")
    await held.settled()
    assert held.event_states(told) == {"a": "done", "h": "ready"}
    assert harness.stored() == {"x": b"body"}


@pytest.mark.parametrize(
    ("path", "fields", "code"),
    [
        ("/taken", {"on_conflict": "reject"}, "conflict"),
        ("/taken", {"must_be_new": True}, "already_exists"),
        ("/taken/below", {}, "conflict"),
        ("/../escape", {}, "bad_path"),
        ("/folder", {}, "conflict"),
    ],
)
async def test_what_can_never_be_published_is_rejected_with_its_code(
    harness: CommitterHarness, held: HeldHarness, path: str, fields: dict[str, Any], code: str
) -> None:
    told = await held.hold("/x", grant=granted("n" * 16), **fields)
    (harness.root / "taken").write_bytes(b"old")
    (harness.root / "folder").mkdir()
    await held.decide(Decision(path=path))
    await held.settled()
    row = held.row(told)
    assert row is not None
    assert row.refusal is not None
    assert (row.state, row.refusal["code"]) == ("rejected", code)
    assert (harness.stored(), held.bodies(), harness.bodies()) == ({"taken": b"old"}, [], [])
    assert held.rejected == [(told.upload_id, code, 4)]
    assert held.event_states(told) == {"a": "done"}
    await held.hold(grant=granted("n" * 16))


async def test_the_policy_of_a_signed_url_counts_more_than_that_of_a_handler(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold(grant=granted("n" * 16, on_conflict="reject"), on_conflict="reject")
    (harness.root / "x").write_bytes(b"old")
    await held.decide(Decision(on_conflict="replace"))
    await held.settled()
    assert (held.state(told), harness.stored()) == ("rejected", {"x": b"old"})


async def test_what_may_succeed_later_is_tried_again_and_its_url_stays_used_up(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await held.hold(grant=granted("n" * 16))
    failures = iter([OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "dying")])
    sync, record = type(harness.incoming).sync, harness.journal.outbox.record_uploads_now

    def failing(incoming: Any) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        sync(incoming)

    def unwritable(_: Any) -> None:
        monkeypatch.setattr(harness.journal.outbox, "record_uploads_now", record)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(type(harness.incoming), "sync", failing)
    monkeypatch.setattr(harness.journal.outbox, "record_uploads_now", unwritable)
    await held.decide()
    await held.settled()
    assert next(failures, None) is None
    assert (held.state(told), harness.stored()) == (None, {"x": b"body"})
    with pytest.raises(Refusal) as refused:
        await held.hold(grant=granted("n" * 16))
    assert refused.value.code == "used_up"


async def test_a_url_that_expires_while_its_upload_is_held_stands_in_no_way(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held.hold(grant=granted("n" * 16))
    monkeypatch.setattr(harness.once, "_clock", lambda: float(1 << 41))
    await held.decide()
    await held.settled()
    assert harness.stored() == {"x": b"body"}


async def test_a_body_that_is_damaged_is_never_published(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    told = await held.hold()
    (harness.held.folder / told.upload_id).write_bytes(b"longer than before")
    await held.decide()
    await held.settled()
    assert (held.state(told), harness.stored(), held.bodies()) == ("rejected", {}, [])


async def test_an_object_of_an_earlier_storage_waits_for_its_bucket(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    upload = Upload(new_id(0), "/x", created=1.0)
    place = {"bucket": "b", "key": "k"}
    holder = Holder(harness.state, Redaction())
    await holder.record(HeldBody(upload, Identity(0, 4, 0), "text/plain", {}, ("a",), place))
    await held.decide()
    (accepted,) = held.unsettled()
    for settle in (held.store.publish, held.store.remove):
        with pytest.raises(Refusal, match="earlier --storage"):
            await settle(accepted)
    assert accepted.state == "accepted"


async def test_many_are_published_together(harness: CommitterHarness, held: HeldHarness) -> None:
    await asyncio.gather(*(held.hold(f"/x{number}") for number in range(200)))
    for _ in range(2):
        for delivery in await held.claim(limit=100):
            held.queue.keep_decision(delivery, ACCEPTED)
            await held.queue.ack(delivery, 0.0)
    await held.settled()
    assert len(harness.stored()) == 200
    assert held.bodies() == []


async def test_rejected_uploads_are_pruned_like_others(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    rejected, undecided = await held.hold("/a"), await held.hold("/b")
    await held.decide(REFUSED)
    await held.settled()
    await harness.journal.ledger.prune(0.0, 0.0)
    assert held.state(rejected) == "rejected"
    await held.decisions.close()
    with_body = await held.hold("/c")
    await held.decide(REFUSED)
    await held.decide(REFUSED)
    await harness.journal.ledger.prune(float(1 << 40), 0.0)
    assert (held.state(rejected), held.state(undecided)) == (None, "rejected")
    assert (held.state(with_body), len(held.bodies())) == ("rejected", 2)


def attributes_of(path: Path) -> Any:
    with path.open("rb") as file:
        return read_attributes(file.fileno(), os.fstat(file.fileno()))
