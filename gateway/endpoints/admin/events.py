"""Endpoints below `/-/events`: list deliveries, retry, drop and replay them, pause handlers.

A change is a POST of JSON that selects what to change, and never comes from a page of another site.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from gateway.auth.request import IncomingRequest
from gateway.endpoints.json_changes import read_change
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events import error_groups, remote_ledger
from gateway.events.protocols import (
    VERB_STATES,
    VERBS,
    ChunkResult,
    Ledger,
    QueueName,
    Selection,
    Verb,
    run_chunks,
)
from gateway.http.responses import ApiHandler, GatewayResponse, Response, json_response
from gateway.telemetry.logs import event
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway.admin")

PAGE_ROWS: Final = 100
MAX_PAGE_ROWS: Final = 1000
GROUPING_WAIT: Final = 15.0
"""Seconds that a request waits until errors are grouped for it."""

Query = Mapping[str, list[str]]
Action = Callable[[Ledger, IncomingRequest], Awaitable[Response]]
ChunkChange = Callable[[str | None], Awaitable[ChunkResult]]


@dataclass(slots=True, frozen=True)
class EventsEndpoint:
    """Serves `/-/events...`. `own` knows this process's deliveries, `whole` the installation's.

    Errors are grouped for one request at a time: each reads many deliveries.
    """

    own: Ledger
    whole: Ledger
    redaction: Redaction
    queue: QueueName = field(default_factory=QueueName)
    grouping: asyncio.Lock = field(default_factory=asyncio.Lock)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` below `/-/events`."""
        actions: dict[str, Action] = {
            "events": self._list,
            "event": self._event,
            "events.queue": self._queue,
            "events.depth": self._depth,
            "events.errors": self._errors,
            "events.paused": self._paused,
            "events.pause": partial(self._set_paused, pause=True),
            "events.resume": partial(self._set_paused, pause=False),
            **{f"events.{verb}": partial(self._change, verb) for verb in VERBS},
        }
        return {endpoint: partial(self._run, action) for endpoint, action in actions.items()}

    async def _run(self, action: Action, incoming: IncomingRequest) -> GatewayResponse:
        ledger = self._ledger(incoming.params)
        try:
            return await action(ledger, incoming)
        except EventEngineUnavailable as error:
            raise Refusal("journal_unavailable", f"events cannot be reached now: {error}") from error
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from error

    def _ledger(self, query: Query) -> Ledger:
        scope = _first(query, "scope")
        if scope not in {None, "slot"}:
            raise Refusal("bad_request", "scope must be slot (only this process), or left out")
        return self.own if scope else self.whole

    # -- reading

    async def _list(self, ledger: Ledger, incoming: IncomingRequest) -> Response:
        query = incoming.params
        selection = _listed(query, query.get("event", []))
        limit = min(max(_number(query, "limit", PAGE_ROWS), 1), MAX_PAGE_ROWS)
        after, error = _first(query, "after"), _first(query, "error")
        if error is None:
            page = await ledger.page(selection, after, limit)
        else:
            page = await error_groups.group_page(ledger, selection, error, after, limit)
        return json_response(remote_ledger.encode_page(page))

    async def _errors(self, ledger: Ledger, incoming: IncomingRequest) -> Response:
        selection = _listed(incoming.params)
        selection = replace(selection, state=selection.state or "dead")
        if selection.state not in ("dead", "delayed"):
            raise ValueError("deliveries have an error that are dead or delayed")
        try:
            await asyncio.wait_for(self.grouping.acquire(), GROUPING_WAIT)
        except TimeoutError:
            raise Refusal("overloaded", "errors are being grouped for others: try again") from None
        try:
            groups = await error_groups.group_errors(
                ledger, selection, error_groups.MAX_ROWS, error_groups.MAX_SECONDS
            )
        finally:
            self.grouping.release()
        return json_response(groups.as_json())

    async def _queue(self, _: Ledger, __: IncomingRequest) -> Response:
        return json_response(asdict(self.queue))

    async def _depth(self, ledger: Ledger, _: IncomingRequest) -> Response:
        return json_response(remote_ledger.encode_depth(await ledger.depth()))

    async def _paused(self, ledger: Ledger, _: IncomingRequest) -> Response:
        return json_response({"paused": sorted(await ledger.paused())})

    async def _event(self, ledger: Ledger, incoming: IncomingRequest) -> Response:
        history = await ledger.history(incoming.variables["event_id"])
        if history is None:
            raise Refusal("not_found", "no event of this id is known (any more)")
        body = remote_ledger.encode_history(history)
        body["body"] = self._redacted(body["body"])
        return json_response(body)

    def _redacted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Redact once more: a header may have become secret since the event was recorded."""
        redact: dict[str, Callable[[Any], Any]] = {
            "headers": self.redaction.headers,
            "params": self.redaction.params,
        }
        return {
            key: redact[key](value) if key in redact and isinstance(value, dict) else value
            for key, value in body.items()
        }

    # -- changing

    async def _change(self, verb: Verb, ledger: Ledger, incoming: IncomingRequest) -> Response:
        body = await read_change(incoming.request)
        in_chunks, after = "after" in body, body.pop("after", None)
        error = body.pop("error", None)
        selection = parse_selection(verb, body)
        if error is not None:
            change = _group_change(ledger, verb, selection, error)
        else:
            change = partial(ledger.run_chunk, verb, selection)
        if in_chunks:
            chunk = await change(None if after is None else str(after))
            _log_change(verb, chunk.count)
            return json_response(asdict(chunk))
        count = await run_chunks(change)
        _log_change(verb, count)
        return json_response({"count": count})

    async def _set_paused(self, ledger: Ledger, incoming: IncomingRequest, *, pause: bool) -> Response:
        verb = "pause" if pause else "resume"
        body = await read_change(incoming.request)
        handler = remote_ledger.decode_name(body.get("handler"), "handler")
        if body.keys() != {"handler"}:
            raise ValueError(f"{verb} takes a handler and nothing else")
        await (ledger.pause(handler) if pause else ledger.resume(handler))
        text = f"{verb}: {handler}"
        log.info(text, extra=event("handler.paused" if pause else "handler.resumed", handler=handler))
        return json_response({"handler": handler, "paused": pause})


def _group_change(ledger: Ledger, verb: Verb, selection: Selection, error: Any) -> ChunkChange:
    """Return what changes a chunk of a group of `/-/events/errors`. Raises `ValueError`."""
    if not isinstance(error, str) or len(error) > error_groups.MAX_LENGTH:
        raise ValueError("error is that of a group of /-/events/errors")
    if selection.state != "dead" or verb == "replay":
        raise ValueError("error selects among dead deliveries: add `state`, dead, to retry or drop them")
    return partial(error_groups.change_group, ledger, verb, selection, error)


def parse_selection(verb: Verb, body: Mapping[str, Any]) -> Selection:
    """Read which deliveries `verb` changes. Raises `ValueError` where nothing limits them."""
    selection, states = remote_ledger.decode_selection(body), VERB_STATES[verb]
    if selection == Selection():
        raise ValueError(
            f"this would {verb} everything; say which by state ({', '.join(states)}), handler, since or"
            " events"
        )
    if selection.state is not None and selection.state not in states:
        raise ValueError(f"{verb} is for deliveries that are {' or '.join(states)}")
    return selection


_CHANGED: Final[Mapping[Verb, str]] = {
    "retry": "deliveries.retried",
    "drop": "deliveries.dropped",
    "replay": "deliveries.replayed",
}


def _log_change(verb: Verb, count: int) -> None:
    log.info("%s: %d deliveries", verb, count, extra=event(_CHANGED[verb], count=count))


# -- requests


def _listed(query: Query, events: Sequence[str] = ()) -> Selection:
    """Read the selection in a query. Raises `ValueError`."""
    fields = {name: _first(query, name) for name in ("state", "handler", "since")}
    return remote_ledger.decode_selection({**fields, "events": events})


def _first(query: Query, name: str) -> str | None:
    values = query.get(name)
    return values[0] if values else None


def _number(query: Query, name: str, default: int) -> int:
    text = _first(query, name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"{name} must be a whole number")
    return int(text)
