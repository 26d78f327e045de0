"""What the journal does with held uploads, each function within one transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from gateway.domain import failpoints
from gateway.domain.event_bodies import received_id
from gateway.domain.held import Decision
from gateway.domain.model import RECEIVED, Delivery, Identity, Upload
from gateway.domain.upload_fields import upload_fields
from gateway.events.database import Database, insert
from gateway.events.held_changes import changed_upload, check_decision, refusal_fields
from gateway.events.held_log import HeldUpload, find_held
from gateway.events.queue import run_of, settle_runs

_HELD: Final = (
    "(id, state, upload, bytes, mime, digests, inode, mtime_ns, place, event_id, handlers, created)"
)
_EVENTS: Final = "(id, type, upload_id, path, created, body)"
_DELIVERIES: Final = "(event_id, handler, state, attempt, due, created, updated)"

MAX_PRUNED: Final = 200
"""Rejected uploads that one operation prunes."""


class HoldRecord(NamedTuple):
    """What the journal keeps of an upload that is held. The secrets of `upload` are redacted.

    `handlers` decide, one after the other; `body` is what they get. `place` is the private object, None
    for a file.
    """

    upload: Upload
    identity: Identity
    mime: str
    digests: dict[str, str]
    handlers: Sequence[str]
    body: dict[str, Any]
    place: dict[str, Any] | None = None


def prune_held(db: sqlite3.Connection, before: float) -> int:
    """Delete rejected uploads without events, decided before `before`; return how many."""
    return db.execute(
        "DELETE FROM held WHERE id IN (SELECT id FROM held h WHERE state = 'rejected' AND settled = 1"
        " AND decided < ? AND NOT EXISTS (SELECT 1 FROM events WHERE id = h.event_id) LIMIT ?)",
        (before, MAX_PRUNED),
    ).rowcount


class HeldRows(NamedTuple):
    """The rows of new held uploads: made before the transaction, which all commits wait for."""

    held: list[tuple[Any, ...]]
    events: list[tuple[Any, ...]]
    deliveries: list[tuple[Any, ...]]

    @classmethod
    def of(cls, records: Sequence[HoldRecord]) -> HeldRows:
        """Return the rows of `records`. Raises what JSON cannot write."""
        now = time.time()
        return cls(
            [_row(record, now) for record in records],
            [
                (received_id(r.upload.id), RECEIVED, r.upload.id, r.upload.path, now, json.dumps(r.body))
                for r in records
            ],
            [_new_delivery(received_id(r.upload.id), r.handlers[0], now) for r in records],
        )


def record_held(database: Database, rows: HeldRows, db: sqlite3.Connection) -> None:
    """Write uploads with their events, and the deliveries of their first handlers."""
    database.check_files()
    insert(db, "held", _HELD, rows.held)
    insert(db, "events", _EVENTS, rows.events)
    insert(db, "deliveries", _DELIVERIES, rows.deliveries)


def _row(record: HoldRecord, now: float) -> tuple[Any, ...]:
    upload, identity = record.upload, record.identity
    return (
        upload.id,
        "undecided",
        json.dumps(upload_fields(upload)),
        identity.size,
        record.mime,
        json.dumps(record.digests),
        identity.inode,
        identity.mtime_ns,
        None if record.place is None else json.dumps(record.place),
        received_id(upload.id),
        json.dumps(list(record.handlers)),
        now,
    )


def _new_delivery(event_id: str, handler: str, now: float) -> tuple[Any, ...]:
    return event_id, handler, "ready", 0, 0, now, now


def forget_held(db: sqlite3.Connection, upload_ids: Sequence[str]) -> None:
    """Delete what `record_held` wrote."""
    events = [(received_id(upload_id),) for upload_id in upload_ids]
    db.executemany("DELETE FROM deliveries WHERE event_id = ?", events)
    db.executemany("DELETE FROM events WHERE id = ?", events)
    db.executemany("DELETE FROM held WHERE id = ?", [(upload_id,) for upload_id in upload_ids])


def decide_held(
    db: sqlite3.Connection, delivery: Delivery, decision: Decision, duration: float, node: str
) -> HeldUpload | None:
    """Settle a run with its decision: the next handler is asked, or the upload is decided.

    None where the run counts no more, or the upload waits for no decision of this handler.
    """
    run, result = run_of(delivery), decision.result
    claimed = (
        "SELECT 1 FROM deliveries WHERE seq = ? AND round = ? AND attempt = ? AND state = 'running'"
    )
    if db.execute(claimed, run).fetchone() is None:
        return None  # this run counts no more
    text = None if result is None else json.dumps(result)
    settle_runs(db, [(*run, "done", 0.0, None, duration, "done", text, delivery.handler)], node)
    held = find_held(db, delivery.upload_id or "")
    if held is None or held.state != "undecided" or held.handlers[:1] != (delivery.handler,):
        return None
    bad_path = check_decision(decision)
    if bad_path is not None:
        decision = replace(decision, path=None)
    upload = changed_upload(held.upload, decision, delivery.handler)
    left = held.handlers[1:]
    db.execute(
        "UPDATE held SET upload = ?, handlers = ? WHERE id = ?",
        (json.dumps(upload), json.dumps(left), held.id),
    )
    if decision.refusal is not None:
        refusal = refusal_fields(handler=delivery.handler, refusal=decision.refusal)
        end_held(db, held.id, "rejected", refusal)
    elif bad_path is not None:
        reason = refusal_fields(handler=delivery.handler, code=bad_path.code, reason=bad_path.message)
        end_held(db, held.id, "rejected", reason)
    elif left:
        _ask_next(db, held.event_id, left[0], upload)
    else:
        end_held(db, held.id, "accepted", None)
    failpoints.hit("within held decision")
    return find_held(db, held.id)


def _ask_next(db: sqlite3.Connection, event_id: str, handler: str, upload: dict[str, Any]) -> None:
    """Let the next handler decide, about the upload as the one before has left it."""
    changed = {name: upload[name] for name in ("path", "metadata", "on_conflict")}
    (body,) = db.execute("SELECT body FROM events WHERE id = ?", (event_id,)).fetchone()
    db.execute(
        "UPDATE events SET path = ?, body = ? WHERE id = ?",
        (upload["path"], json.dumps(json.loads(body) | changed), event_id),
    )
    insert(db, "deliveries", _DELIVERIES, [_new_delivery(event_id, handler, time.time())])


def overrule_held(
    db: sqlite3.Connection, upload_id: str, refusal: dict[str, Any] | None, by: str
) -> HeldUpload | None:
    """Decide instead of the handlers; None where the upload is decided already, or unknown."""
    held = find_held(db, upload_id)
    if held is None or held.state != "undecided":
        return None
    state = "accepted" if refusal is None else "rejected"
    end_held(db, upload_id, state, refusal)
    db.execute(
        "UPDATE deliveries SET state = 'done', due = 0, updated = ?, error = ? WHERE event_id = ?"
        " AND state IN ('ready', 'running', 'dead')",
        (time.time(), f"{state} by {by}", held.event_id),
    )
    return find_held(db, upload_id)


def end_held(
    db: sqlite3.Connection,
    upload_id: str,
    state: str,
    refusal: dict[str, Any] | None,
    before: str = "undecided",
) -> None:
    """Let an upload in the state `before` be decided."""
    db.execute(
        "UPDATE held SET state = ?, refusal = ?, decided = ? WHERE id = ? AND state = ?",
        (state, None if refusal is None else json.dumps(refusal), time.time(), upload_id, before),
    )
