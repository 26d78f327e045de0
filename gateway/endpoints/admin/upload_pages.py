"""What is told of an upload that a journal knows: stored, held or rejected, with its handlers. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.domain.held import MAX_OUTPUT_LENGTH
from gateway.domain.model import RECEIVED
from gateway.domain.units import iso_time
from gateway.endpoints.inflight import merged_result, named_principal, results_before_commit
from gateway.events.held_log import HeldUpload
from gateway.events.upload_log import logged_upload

KEPT_HEADERS: Final = "kept_headers"
"""The headers of an upload that responses to HEAD repeat: for its client, and for the operator."""

_HANDLER_STATES: Final[Mapping[str, str]] = {"ready": "queued", "relayed": "queued", "delayed": "retry"}
"""States of a handler that have another name on the page of an upload. `done` needs a known run."""

HELD_STATES: Final[Mapping[str, str]] = {
    "undecided": "held",
    "accepted": "committing",
    "rejected": "rejected",
}
"""The state of an upload that the journal has as a held one."""

FINAL_STATES: Final = frozenset({"stored", "removed", "rejected", "failed"})
"""States that an upload does not leave, but for `removed`."""

ENDED_HANDLERS: Final = frozenset({"done", "dead"})

Json = dict[str, Any]


def _no_progress(_: str, __: str) -> dict[str, float] | None:
    return None


def _unknown_event(_: str) -> str | None:
    return None


class HandlerFacts(NamedTuple):
    """What a running gateway knows beside the journal.

    `progress` of a running delivery, by event id and handler; `deciding_event`: of which event before
    the commit a handler is.
    """

    progress: Callable[[str, str], dict[str, float] | None] = _no_progress
    deciding_event: Callable[[str], str | None] = _unknown_event


def journal_page(row: Json, facts: HandlerFacts) -> Json:
    """Describe an upload as `JournalLedger.upload_history` returns it."""
    held: HeldUpload | None = row["held"]
    # Between the commit of an accepted upload and the end of its row both are there.
    if held is not None and (held.state != "rejected" or "id" not in row):
        return _held_page(held, row["handlers"], facts)
    return _stored_page(row, facts)


def _stored_page(row: Json, facts: HandlerFacts) -> Json:
    return {
        "upload_id": row["id"],
        "state": "unsettled" if row["pending"] else "stored",
        **{name: row[name] for name in ("path", "bytes", "mime")},
        **{name: iso_time(row[name]) for name in ("created", "committed")},
        "principal": named_principal(json.loads(row["principal"] or "null")),
        "remote": row["remote"],
        **({} if row["digests"] == "{}" else {"digests": json.loads(row["digests"])}),
        "etag": logged_upload(row).etag,
        **({"place": shown_place(json.loads(row["place"]))} if row["place"] else {}),
        **({"metadata": json.loads(row["metadata"])} if row.get("metadata") else {}),
        **({KEPT_HEADERS: json.loads(row[KEPT_HEADERS])} if row[KEPT_HEADERS] else {}),
        **_handlers(json.loads(row["results"] or "{}"), row["handlers"], facts),
    }


def _held_page(held: HeldUpload, deliveries: Sequence[Json], facts: HandlerFacts) -> Json:
    kept = held.upload.get(KEPT_HEADERS)
    shown = _handlers(held.upload.get("results") or {}, deliveries, facts)
    if held.state == "undecided":
        delivered = {delivery["handler"] for delivery in deliveries if delivery["event"] == RECEIVED}
        shown["handlers"] += [_waiting_handler(name) for name in held.handlers if name not in delivered]
    return held_row(held) | ({KEPT_HEADERS: kept} if kept else {}) | shown


def held_row(held: HeldUpload) -> Json:
    """Describe a held upload without its handlers. `error` is a code, None while nothing is refused."""
    upload, refusal = held.upload, held.refusal
    row = {
        "upload_id": held.id,
        "state": HELD_STATES[held.state],
        "path": upload["path"],
        "bytes": held.bytes,
        "mime": held.mime,
        "created": iso_time(float(upload["created"])),
        "principal": named_principal(upload.get("principal")),
        "remote": upload.get("remote"),
        "error": None if held.state != "rejected" else (refusal or {}).get("code") or "rejected",
        **({"digests": held.digests} if held.digests else {}),
        "held": iso_time(held.created),
        **({} if held.decided is None else {"decided": iso_time(held.decided)}),
    }
    return row if refusal is None else {**row, "refusal": _shown_refusal(refusal)}


def _shown_refusal(refusal: Json) -> Json:
    """Return what is told of a refusal: what there is of it, its output bounded."""
    present = {name: value for name, value in refusal.items() if value is not None}
    return present | ({"output": present["output"][:MAX_OUTPUT_LENGTH]} if "output" in present else {})


def _handlers(results: Mapping[str, Json], deliveries: Sequence[Json], facts: HandlerFacts) -> Json:
    """Return the field `handlers`, those that ran before the commit first, and all results as one."""
    journalled = {delivery["handler"] for delivery in deliveries if delivery["event"] == RECEIVED}
    before = {name: result for name, result in results.items() if name not in journalled}
    shown = with_events(results_before_commit(before)["handlers"], facts)
    shown += [_handler_status(delivery, facts) for delivery in deliveries]
    later = [entry["result"] for entry in shown if "result" in entry and entry["handler"] not in results]
    return {"handlers": shown, **merged_result([*results.values(), *later])}


def with_events(handlers: Sequence[Json], facts: HandlerFacts) -> list[Json]:
    """Return entries of handlers that ran before the commit with their event, where a plugin has it."""
    events = {entry["handler"]: facts.deciding_event(entry["handler"]) for entry in handlers}
    return [
        entry if (event := events[entry["handler"]]) is None else {**entry, "event": event}
        for entry in handlers
    ]


def _handler_status(delivery: Json, facts: HandlerFacts) -> Json:
    """Describe a handler's runs; of an error only the first line: the log has the rest."""
    progress = facts.progress(delivery["event_id"], delivery["handler"])
    return {
        **{name: delivery[name] for name in ("handler", "event", "event_id")},
        "state": _HANDLER_STATES.get(delivery["state"], delivery["state"]),
        "attempt": delivery["attempt"],
        "error": _first_line(delivery["error"]),
        "created": iso_time(delivery["created"]),
        **({"due": iso_time(delivery["due"])} if delivery["state"] == "delayed" else {}),
        "runs": [
            {**run, "ended": iso_time(run["ended"]), "error": _first_line(run["error"])}
            for run in delivery["runs"]
        ],
        **({} if progress is None else {"progress": progress}),
        **({"result": delivery["result"]} if "result" in delivery else {}),
    }


def _waiting_handler(name: str) -> Json:
    """Describe a handler whose turn comes when the one before it has decided."""
    unrun = {"state": "queued", "attempt": 0, "error": None, "runs": list[Json]()}
    return {"handler": name, "event": RECEIVED, **unrun}


def is_settled(status: Mapping[str, Any]) -> bool:
    """Tell whether nothing more becomes of an upload by itself: it and its handlers have ended."""
    ended = all(entry["state"] in ENDED_HANDLERS for entry in status.get("handlers", ()))
    return status["state"] in FINAL_STATES and ended


def shown_place(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object of an upload as it is told."""
    return {name: place.get(name) for name in ("bucket", "key", "etag")}


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0] if text else text
