"""What is told of held, rejected and stored uploads, and of what their handlers left."""

from __future__ import annotations

import json
from concurrent.futures import Future
from typing import Any

import pytest

from gateway.domain.held import HandlerRefusal, shown_refusal
from gateway.domain.model import RECEIVED, UPLOADED, UPLOADING, Upload
from gateway.endpoints.admin.upload_pages import HandlerFacts, is_settled, journal_page
from gateway.endpoints.admin.upload_sources import HeldUploads, UploadSelection, merge_pages
from gateway.endpoints.inflight import Inflight
from gateway.events.journal import Journal
from gateway.events.protocols import NewEvent
from tests.support.journal import journal
from tests.support.records import claim_deliveries, publish_uploads, result_of, run_sync

__all__ = ["journal"]

ANN = {"name": "ann", "kind": "token", "claims": {"secret": 1}}
EVENTS = {"early": UPLOADING, "scan": RECEIVED, "review": RECEIVED}
FACTS = HandlerFacts(deciding_event=EVENTS.get)


def hold(
    journal: Journal,
    upload_id: str,
    state: str = "undecided",
    handlers: tuple[str, ...] = ("scan",),
    refusal: dict[str, Any] | None = None,
    results: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Write the row of a held upload."""
    upload = {"path": f"/upload/{upload_id}", "principal": ANN, "remote": "10.0.0.1", "created": 7.0}
    upload |= {"results": results or {}, "headers": {"Authorization": "[redacted]"}}
    values = {
        "id": upload_id,
        "state": state,
        "upload": json.dumps(upload),
        "bytes": 5,
        "mime": "text/plain",
        "digests": json.dumps({"sha-256": "AA=="}),
        "inode": 1,
        "mtime_ns": 2,
        "event_id": f"{upload_id}.received",
        "handlers": json.dumps(handlers),
        "refusal": None if refusal is None else json.dumps(refusal),
        "created": 8.0,
        "decided": None if state == "undecided" else 9.0,
    }
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    done: Future[Any] = journal._database.submit(
        lambda db: db.execute(f"INSERT INTO held ({names}) VALUES ({marks})", values)
    )
    result_of(done)


def ask(journal: Journal, upload_id: str, handler: str) -> None:
    """Publish the event that lets a handler decide."""
    body: dict[str, Any] = {}
    event = NewEvent(f"{upload_id}.received", RECEIVED, (handler,), body, 8.0, upload_id, "/x")
    run_sync(journal.outbox.publish([event]))


def page(journal: Journal, upload_id: str) -> dict[str, Any]:
    row = result_of(journal.ledger.upload_history(upload_id))
    assert row is not None
    return journal_page(row, FACTS)


def test_a_held_upload_tells_which_handlers_have_not_decided(journal: Journal) -> None:
    hold(journal, "u1", handlers=("scan", "review"), results={"early": {"seen": True}})
    ask(journal, "u1", "scan")
    story = page(journal, "u1")
    assert {name: story[name] for name in ("state", "path", "bytes", "mime", "created", "error")} == {
        "state": "held",
        "path": "/upload/u1",
        "bytes": 5,
        "mime": "text/plain",
        "created": "1970-01-01T00:00:07.000Z",
        "error": None,
    }
    assert story["principal"] == {"name": "ann", "kind": "token"}
    told = [(entry["handler"], entry["event"], entry["state"]) for entry in story["handlers"]]
    assert told == [
        ("early", UPLOADING, "done"),
        ("scan", RECEIVED, "queued"),
        ("review", RECEIVED, "queued"),
    ]
    assert (story["handlers"][0]["result"], story["result"]) == ({"seen": True}, {"seen": True})
    assert "headers" not in story
    assert "refusal" not in story
    assert not is_settled(story)


def test_a_rejected_upload_tells_who_refused_it_and_with_what(journal: Journal) -> None:
    refusal = shown_refusal("scan", HandlerRefusal(422, "ü".encode() * 9000, "text/plain"))
    hold(journal, "u1", "rejected", (), refusal, {"scan": {"virus": "EICAR"}})
    ask(journal, "u1", "scan")
    (delivery,) = claim_deliveries(journal, "scan")

    async def settle() -> None:
        await journal.queue.ack(delivery, 0.1, {"virus": "EICAR"})

    run_sync(settle())
    story = page(journal, "u1")
    assert (story["state"], story["error"], story["decided"]) == (
        "rejected",
        "rejected",
        "1970-01-01T00:00:09.000Z",
    )
    assert story["refusal"] == {
        "handler": "scan",
        "status": 422,
        "content_type": "text/plain",
        "output": "ü" * 2000,
    }
    (entry,) = story["handlers"]
    assert (entry["handler"], entry["state"], entry["result"]) == ("scan", "done", {"virus": "EICAR"})
    assert story["result"] == {"virus": "EICAR"}
    assert is_settled(story)
    hold(journal, "u2", "rejected", (), {"by": "ann", "reason": "no"})
    hold(journal, "u3", "rejected", (), {"code": "conflict", "reason": "it exists"})
    assert [page(journal, name)["error"] for name in ("u2", "u3")] == ["rejected", "conflict"]


def test_an_accepted_upload_is_committing_until_its_row_has_gone(journal: Journal) -> None:
    publish_uploads(journal, "u1", handlers=("h",))
    hold(journal, "u1", "accepted", ())
    assert page(journal, "u1")["state"] == "committing"
    result_of(journal._database.submit(lambda db: db.execute("DELETE FROM held").rowcount))
    assert page(journal, "u1")["state"] == "stored"


def test_results_are_merged_in_the_order_of_the_handlers(journal: Journal) -> None:
    publish_uploads(journal, "u1", handlers=("a", "b"))
    before = json.dumps({"scan": {"who": "scan", "clean": True}, "early": {"who": "early"}})
    statement = "UPDATE uploads SET results = ?"
    result_of(journal._database.submit(lambda db: db.execute(statement, (before,)).rowcount))

    async def settle() -> None:
        (second,) = await journal.queue.claim("b", 1, 0.0)
        await journal.queue.ack(second, 0.1, {"who": "b"})
        (first,) = await journal.queue.claim("a", 1, 0.0)
        await journal.queue.dead_letter(first, "no", 0.1, {"who": "a", "pages": 3})

    run_sync(settle())
    story = page(journal, "u1")
    assert story["result"] == {"who": "b", "clean": True, "pages": 3}
    assert [(entry["handler"], entry.get("event"), entry["state"]) for entry in story["handlers"]] == [
        ("scan", RECEIVED, "done"),
        ("early", UPLOADING, "done"),
        ("a", UPLOADED, "dead"),
        ("b", UPLOADED, "done"),
    ]
    assert is_settled(story)


def test_an_upload_without_results_has_no_such_field(journal: Journal) -> None:
    publish_uploads(journal, "u1", handlers=("a",))
    story = page(journal, "u1")
    assert "result" not in story
    assert "result" not in story["handlers"][0]


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_held_uploads_are_listed_newest_first_with_their_state(
    journal: Journal, limit: int
) -> None:
    states = ("undecided", "accepted", "rejected") * 50
    names = [f"u{number:03}" for number in range(len(states))]
    for name, state in zip(names, states, strict=True):
        hold(journal, name, state)
    source, rows, before = HeldUploads(journal.held_log), list[dict[str, Any]](), "~"
    while before:
        found, after = merge_pages([await source.page(UploadSelection("ann"), before, limit)], limit)
        rows, before = rows + found, after or ""
    assert [row["upload_id"] for row in rows] == names[::-1]
    assert {row["state"] for row in rows} == {"held", "committing", "rejected"}
    assert (await source.page(UploadSelection("bob"), "~", limit)).rows == []
    assert result_of(journal.held_log.count()) == 100


def test_what_a_handler_refused_while_its_client_waited_is_kept_in_memory() -> None:
    inflight = Inflight()
    upload = Upload("u1", "/upload/x", results={"scan": {"virus": "EICAR"}})
    progress = inflight.begin_upload(upload)
    progress.state = "deciding"
    deciding = inflight.describe("u1")
    assert deciding is not None
    assert (deciding["state"], deciding["result"]) == ("deciding", {"virus": "EICAR"})
    inflight.end_failed(progress, "rejected", shown_refusal("scan", HandlerRefusal(422, b"no", "")))
    story = inflight.describe("u1")
    assert story is not None
    assert (story["state"], story["error"]) == ("rejected", "rejected")
    assert (story["refusal"]["handler"], story["refusal"]["output"]) == ("scan", "no")
    assert story["result"] == {"virus": "EICAR"}
    assert story["handlers"][0]["result"] == {"virus": "EICAR"}
    assert is_settled(story)
