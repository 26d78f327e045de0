"""Deliveries of held uploads: no relay and no other runner gets them, and each is decided once."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import Future

import pytest

from gateway.domain.held import Decision
from gateway.domain.model import Delivery, Identity, Upload, new_id
from gateway.errors import EventEngineUnavailable
from gateway.events import held_uploads
from gateway.events.held_operations import HoldRecord
from gateway.events.held_queue import HeldQueue
from gateway.events.journal import Journal
from gateway.events.protocols import Selection, run_all
from tests.support.records import publish_uploads, result_of
from tests.support.step_counter import StepCounter


class Decisions:
    """Takes decisions straight to the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.failures = 0

    async def decide(self, delivery: Delivery, decision: Decision, duration: float) -> None:
        if self.failures:
            self.failures -= 1
            raise EventEngineUnavailable("not now")
        result_of(self.journal.held_uploads.decide(delivery, decision, duration))


@pytest.fixture
def decisions(journal: Journal) -> Decisions:
    return Decisions(journal)


@pytest.fixture
def queue(journal: Journal, decisions: Decisions) -> HeldQueue:
    return HeldQueue(journal.queue, journal.held_uploads, decisions)


def hold(journal: Journal, *handlers: str, count: int = 1) -> list[str]:
    """Record held uploads; return their ids."""
    uploads = [Upload(new_id(0), f"/upload/{number}") for number in range(count)]
    records = [
        HoldRecord(upload, Identity(1, 2, 3), "text/plain", {}, handlers, {"path": upload.path})
        for upload in uploads
    ]
    result_of(journal.held_uploads.record(records))
    journal.held_uploads.release([upload.id for upload in uploads])
    return [upload.id for upload in uploads]


def states(journal: Journal, upload_id: str) -> dict[str, str]:
    history = result_of(journal.ledger.upload_history(upload_id))
    assert history is not None
    return {row["handler"]: row["state"] for row in history["handlers"]}


async def test_nothing_runs_before_its_release(journal: Journal, queue: HeldQueue) -> None:
    upload = Upload(new_id(0), "/x")
    record = HoldRecord(upload, Identity(1, 2, 3), "text/plain", {}, ("a",), {"path": "/x"})
    result_of(journal.held_uploads.record([record]))
    assert await queue.claim("a", 1, 0.0) == []
    claim = asyncio.create_task(queue.claim("a", 1, 30.0))
    await asyncio.sleep(0)
    journal.held_uploads.release([upload.id])
    assert [delivery.upload_id for delivery in await claim] == [upload.id]


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_relay_claims_none_of_them(journal: Journal, queue: HeldQueue, loaded: bool) -> None:
    """Also where a plugin has its handler no more, or has one of this name for another event."""
    (upload_id,) = hold(journal, "a")
    publish_uploads(journal, "u", handlers=("a", "b"))
    journal.queue.holding = frozenset({"a"}) if loaded else frozenset()
    claimed = [(run.upload_id, run.handler) for run in await journal.queue.claim_any(10, 0.0)]
    assert claimed == ([("u", "b")] if loaded else [("u", "a"), ("u", "b")])
    assert states(journal, upload_id) == {"a": "ready"}


async def test_each_runner_makes_only_its_own_orphans_dead(journal: Journal, queue: HeldQueue) -> None:
    (upload_id,) = hold(journal, "gone")
    publish_uploads(journal, "u", handlers=("gone",))
    assert await queue.dead_letter_orphans(["gone"]) == 0
    assert await journal.queue.dead_letter_orphans([]) == 1
    assert (states(journal, upload_id), states(journal, "u")) == ({"gone": "ready"}, {"gone": "dead"})
    assert await queue.dead_letter_orphans(["other"]) == 1
    assert states(journal, upload_id) == {"gone": "dead"}
    assert result_of(journal.held_uploads.states([upload_id])) == {upload_id: "undecided"}


async def test_a_handler_that_decides_now_gets_no_other_event_of_its_name(
    journal: Journal, queue: HeldQueue
) -> None:
    publish_uploads(journal, "u", handlers=("a",))
    (upload_id,) = hold(journal, "a")
    assert [delivery.upload_id for delivery in await queue.claim("a", 9, 0.0)] == [upload_id]
    assert states(journal, "u") == {"a": "dead"}


async def test_orphans_become_dead_in_bounded_steps(
    journal: Journal, queue: HeldQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_uploads, "MAX_ORPHANS", 3)
    hold(journal, "gone", count=5)
    hold(journal, "too", count=1)
    assert [await queue.dead_letter_orphans([]) for _ in range(3)] == [3, 3, 0]


async def test_a_run_that_ends_without_a_decision_accepts_nothing(
    journal: Journal, queue: HeldQueue
) -> None:
    (upload_id,) = hold(journal, "a")
    (delivery,) = await queue.claim("a", 1, 0.0)
    await queue.ack(delivery, 0.0)
    assert states(journal, upload_id) == {"a": "dead"}
    assert result_of(journal.held_uploads.states([upload_id])) == {upload_id: "undecided"}
    assert queue.upload_of(delivery) is None


async def test_orphans_wait_while_the_journal_cannot_be_written(
    journal: Journal, queue: HeldQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: Future[int] = Future()
    failed.set_exception(sqlite3.OperationalError("database or disk is full"))
    monkeypatch.setattr(journal.held_uploads, "dead_letter_orphans", lambda _: failed)
    with pytest.raises(EventEngineUnavailable):
        await queue.dead_letter_orphans([])


async def test_a_decision_that_cannot_be_written_is_not_lost(
    journal: Journal, queue: HeldQueue, decisions: Decisions
) -> None:
    (upload_id,) = hold(journal, "a")
    (delivery,) = await queue.claim("a", 1, 0.0)
    queue.keep_decision(delivery, Decision(path="/elsewhere"))
    decisions.failures = 1
    with pytest.raises(EventEngineUnavailable):
        await queue.ack(delivery, 0.0)
    assert queue.upload_of(delivery) is not None
    await queue.ack(delivery, 0.0)
    held = result_of(journal.held_uploads.find([upload_id]))[upload_id]
    assert (held.state, held.upload["path"]) == ("accepted", "/elsewhere")
    assert queue.upload_of(delivery) is None


async def test_a_claim_that_is_cancelled_returns_its_deliveries(
    journal: Journal, queue: HeldQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(journal, "a")
    read = asyncio.Event()

    def never(*_: object) -> object:
        read.set()
        return Future[object]()

    with monkeypatch.context() as patch:
        patch.setattr(journal.held_uploads, "find", never)
        claim = asyncio.create_task(queue.claim("a", 1, 0.0))
        await read.wait()
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim
    (delivery,) = await queue.claim("a", 1, 0.0)
    assert delivery.attempt == 1


async def test_a_paused_handler_decides_nothing_until_it_is_resumed(
    journal: Journal, queue: HeldQueue
) -> None:
    hold(journal, "a")
    await journal.ledger.pause("a")
    assert await queue.claim("a", 1, 0.0) == []
    await journal.ledger.resume("a")
    assert len(await queue.claim("a", 1, 0.0)) == 1


async def test_a_dropped_delivery_leaves_its_upload_held(journal: Journal, queue: HeldQueue) -> None:
    (upload_id,) = hold(journal, "a")
    assert await run_all(journal.ledger, "drop", Selection()) == 1
    assert await queue.claim("a", 1, 0.0) == []
    assert result_of(journal.held_uploads.states([upload_id])) == {upload_id: "undecided"}
    held = result_of(journal.held_uploads.release_held(upload_id, "root"))
    assert held is not None
    assert held.state == "accepted"


async def test_what_is_not_settled_is_read_in_bounded_pieces(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_uploads, "MAX_UNSETTLED", 2)
    ids = hold(journal, "a", count=5)
    for upload_id in reversed(ids):
        result_of(journal.held_uploads.release_held(upload_id, "root"))
    first = [held.id for held in result_of(journal.held_uploads.unsettled([]))]
    rest = [held.id for held in result_of(journal.held_uploads.unsettled(first))]
    assert [*first, *rest] == list(reversed(ids))[:4]


async def test_no_operation_costs_more_where_more_uploads_are_held(
    journal: Journal, queue: HeldQueue, counter: StepCounter
) -> None:
    held, worst = journal.held_uploads, []
    for count in (300, 3000):
        hold(journal, "a", "b", count=count)
        for upload_id in hold(journal, "c", count=count):
            result_of(held.reject_held(upload_id, "not wanted", "root"))
        (delivery,) = await queue.claim("a", 1, 0.0)
        counter.worst = 0
        result_of(held.decide(delivery, Decision(path="/y"), 0.0))
        for future in (held.unsettled([]), held.dead_letter_orphans([]), held.files("", 20)):
            future.exception()
        await queue.claim("b", 1, 0.0)
        worst.append(counter.worst)
    assert worst[1] < worst[0] * 2
