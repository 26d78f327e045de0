"""Events seen and steered over HTTP, everything below `/-/events`.

The rule: what changes something is a POST of JSON that says what is meant, and comes from no
foreign web page; whether the caller may do it is settled before it gets here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events import json_codec
from gateway.events.protocols import VERB_STATES, VERBS, Ledger, Selection, Verb, run_all
from gateway.http.request_body import read_small_body
from gateway.http.responses import json_answer
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway.admin")

PAGE: Final = 100
MAX_PAGE: Final = 1000
MAX_BODY: Final = 256 << 10

Query = Mapping[str, list[str]]


@dataclass(slots=True, frozen=True)
class EventsEndpoint:
    """Answers `/-/events...`. `own` is what this process has, `whole` what the installation has."""

    own: Ledger
    whole: Ledger
    redaction: Redaction

    async def answer(
        self, request: web.BaseRequest, segments: tuple[str, ...], query: Query
    ) -> web.StreamResponse:
        """Answer for a path below `/-/events`, given as decoded segments. Raises `Refusal`."""
        ledger = self._ledger(query)
        try:
            if segments[2:] and segments[2] in {*VERBS, "pause", "resume"} and len(segments) == 3:
                return await self._steer(request, ledger, segments[2])
            if request.method not in {"GET", "HEAD"}:
                raise _only("GET, HEAD")
            return await self._look(ledger, segments[2:], query)
        except EventEngineUnavailable as fault:
            raise Refusal("journal_unavailable", f"events cannot be reached now: {fault}") from fault
        except ValueError as fault:
            raise Refusal("bad_request", str(fault)) from fault

    def _ledger(self, query: Query) -> Ledger:
        scope = _one(query, "scope")
        if scope not in {None, "slot"}:
            raise Refusal("bad_request", "scope is slot: only what this process has; or leave it out")
        return self.own if scope else self.whole

    # -- looking

    async def _look(self, ledger: Ledger, rest: tuple[str, ...], query: Query) -> web.Response:
        match rest:
            case ():
                return await self._page(ledger, query)
            case ("depth",):
                return json_answer(json_codec.encode_depth(await ledger.depth()))
            case ("paused",):
                return json_answer({"paused": sorted(await ledger.paused())})
            case (event_id,):
                return await self._event(ledger, event_id)
        raise Refusal("not_found", "there is no such page")

    async def _page(self, ledger: Ledger, query: Query) -> web.Response:
        said = {name: _one(query, name) for name in ("state", "handler", "since")}
        selection = json_codec.decode_selection({**said, "events": query.get("event", [])})
        limit = min(max(_number(query, "limit", PAGE), 1), MAX_PAGE)
        page = await ledger.page(selection, _one(query, "after"), limit)
        return json_answer(json_codec.encode_page(page))

    async def _event(self, ledger: Ledger, event_id: str) -> web.Response:
        history = await ledger.history(event_id)
        if history is None:
            raise Refusal("not_found", "no event of this id is known (any more)")
        said = json_codec.encode_history(history)
        said["body"] = self._redacted(said["body"])
        return json_answer(said)

    def _redacted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Once more: a header may have become secret since the event was written down."""
        hidden: dict[str, Callable[[Any], Any]] = {
            "headers": self.redaction.headers,
            "params": self.redaction.params,
        }
        return {
            key: hidden[key](value) if key in hidden and isinstance(value, dict) else value
            for key, value in body.items()
        }

    # -- steering

    async def _steer(self, request: web.BaseRequest, ledger: Ledger, action: str) -> web.Response:
        if request.method != "POST":
            raise _only("POST")
        _refuse_foreign(request)
        said = await _json_body(request)
        if action in {"pause", "resume"}:
            return await self._hold(ledger, action, said)
        verb: Verb = next(verb for verb in VERBS if verb == action)
        piecemeal, after = "after" in said, said.pop("after", None)
        selection = meant(verb, said)
        if piecemeal:
            done = await ledger.run_chunk(verb, selection, None if after is None else str(after))
            _note(verb, done.count)
            return json_answer(asdict(done))
        count = await run_all(ledger, verb, selection)
        _note(verb, count)
        return json_answer({"count": count})

    async def _hold(self, ledger: Ledger, action: str, said: Mapping[str, Any]) -> web.Response:
        handler = json_codec.decode_name(said.get("handler"), "handler")
        if said.keys() != {"handler"}:
            raise ValueError(f"{action} takes a handler and nothing else")
        change: Callable[[str], Awaitable[None]] = getattr(ledger, action)
        await change(handler)
        log.info("%s: %s", action, handler)
        return json_answer({"handler": handler, "paused": action == "pause"})


def meant(verb: Verb, said: Mapping[str, Any]) -> Selection:
    """Read what `verb` shall change. Raises `ValueError` for all at once that is not said aloud."""
    selection, states = json_codec.decode_selection(said), VERB_STATES[verb]
    if selection == Selection():
        raise ValueError(
            f"this would {verb} everything; say which by state ({', '.join(states)}), handler, since or"
            " events"
        )
    if selection.state is not None and selection.state not in states:
        raise ValueError(f"{verb} is for deliveries that are {' or '.join(states)}")
    return selection


def _note(verb: Verb, count: int) -> None:
    log.info("%s: %d deliveries", verb, count)


# -- requests


def _refuse_foreign(request: web.BaseRequest) -> None:
    """Refuse what a page of another site made a browser send. Raises `Refusal`.

    A form cannot send JSON, and a script of another origin not without asking first (which we
    answer with 405); the headers are a second wall. Sources: fetch.spec.whatwg.org (CORS-safelisted
    request-header), w3.org/TR/fetch-metadata.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal("unsupported_media_type", "send JSON, with `Content-Type: application/json`")
    origin = request.headers.get("Origin")
    here = origin is None or urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()
    site = request.headers.get("Sec-Fetch-Site", "none")
    if not here or site not in {"same-origin", "none"}:
        raise Refusal("forbidden", "this request comes from a page of another site")


async def _json_body(request: web.BaseRequest) -> dict[str, Any]:
    said = json.loads(await read_small_body(request, MAX_BODY))
    if not isinstance(said, dict):
        raise ValueError("the body is a JSON object")
    return said


def _only(methods: str) -> Refusal:
    return Refusal("method_not_allowed", f"this page takes {methods}", {"Allow": methods})


def _one(query: Query, name: str) -> str | None:
    values = query.get(name)
    return values[0] if values else None


def _number(query: Query, name: str, default: int) -> int:
    text = _one(query, name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"{name} is a whole number")
    return int(text)
