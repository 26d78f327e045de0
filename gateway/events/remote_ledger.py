"""The ledger of another process, over HTTP.

The server is `gateway.endpoints.admin.events`, behind the owner's Unix socket. Every request is bounded
and may be repeated. The caller closes the session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.domain.api_routes import EVENTS_PREFIX, literal_names
from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.protocols import (
    STATES,
    Attempt,
    ChunkResult,
    DeliveryHistory,
    DeliveryPage,
    DeliveryRow,
    Depth,
    EventHistory,
    Selection,
    State,
    Verb,
)

REQUEST_TIMEOUT: Final = 30.0
"""Seconds of one request. Each asks for a bounded piece of work."""

OWNER_URL: Final = "http://owner"
"""The base URL of a server behind its owner's socket."""


def socket_session(path: Path | str) -> aiohttp.ClientSession:
    """Return a session with the server behind an owner's Unix socket. Call on a loop."""
    connector = aiohttp.UnixConnector(path=str(path))
    return aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
    )


class RemoteLedger:
    """A ledger over HTTP. Implements `Ledger`.

    `base` is the URL without a path. `alone`: only that process, without the others of its server.
    Every method raises `EventEngineUnavailable` without a valid answer, `ConfigError` where access is
    denied, `ValueError` for invalid arguments.
    """

    def __init__(
        self, session: aiohttp.ClientSession, base: str = OWNER_URL, *, alone: bool = False
    ) -> None:
        self._session = session
        self._base = base.rstrip("/")
        self._scope = {"scope": "slot"} if alone else {}

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state."""
        return decode_depth(await self._get("depth"))

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`."""
        fields = encode_selection(selection)
        events = [("event", event) for event in fields.pop("events", ())]
        fields |= {"limit": limit} | ({} if after is None else {"after": after})
        query = [*events, *((name, str(value)) for name, value in fields.items())]
        return decode_page(await self._get("", query))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its deliveries, or None."""
        if not event_id or event_id in literal_names(EVENTS_PREFIX):
            return None
        data = await self._get(event_id, none_at_404=True)
        return None if data is None else decode_history(data)

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        return frozenset((await self._get("paused"))["paused"])

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`."""
        return decode_chunk(await self._post(verb, {**encode_selection(selection), "after": after}))

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler."""
        await self._post("pause", {"handler": handler})

    async def resume(self, handler: str) -> None:
        """Claim again."""
        await self._post("resume", {"handler": handler})

    async def _get(
        self, name: str, query: list[tuple[str, str]] | None = None, *, none_at_404: bool = False
    ) -> Any:
        scoped = [*(query or ()), *self._scope.items()]
        return await self._request("GET", name, scoped, none_at_404=none_at_404)

    async def _post(self, name: str, body: Mapping[str, Any]) -> Any:
        return await self._request("POST", name, list(self._scope.items()), body=body)

    async def _request(
        self,
        method: str,
        name: str,
        query: list[tuple[str, str]],
        *,
        body: Mapping[str, Any] | None = None,
        none_at_404: bool = False,
    ) -> Any:
        try:
            async with self._session.request(
                method, self._url(name).update_query(query), json=body, allow_redirects=False
            ) as response:
                if response.status == 404 and none_at_404:
                    return None
                return await _decode(response)
        except (aiohttp.ClientError, TimeoutError, OSError, LookupError, TypeError) as error:
            reason = str(error) or type(error).__name__
            raise EventEngineUnavailable(
                f"{self._base} does not answer as it should ({reason})"
            ) from error

    def _url(self, name: str) -> URL:
        """Return the quoted URL: `../uploads/x` is an unknown id, not another page."""
        quoted = quote(name, safe="").replace(".", "%2E")
        return URL(f"{self._base}/-/events" + (f"/{quoted}" if name else ""), encoded=True)


async def _decode(response: aiohttp.ClientResponse) -> Any:
    if response.status == 200:
        return await response.json()
    error = await response.json(content_type=None)
    reason = f"{response.status} {error['error']}: {error['message']}"
    if response.status == 400:
        raise ValueError(error["message"])
    if response.status in {401, 403}:
        raise ConfigError(reason)
    raise EventEngineUnavailable(reason)


MAX_EVENTS: Final = 1000
"""Events that one selection may name."""

MAX_NAME_LENGTH: Final = 1000
"""Characters of a name in a selection."""

_SELECTION_FIELDS: Final = frozenset({"state", "handler", "since", "events"})

Json = dict[str, Any]


def encode_page(page: DeliveryPage) -> Json:
    """Return a page as JSON: `deliveries` and the cursor `next`."""
    return {"deliveries": [asdict(row) for row in page.rows], "next": page.next}


def decode_page(data: Any) -> DeliveryPage:
    """Read a page."""
    return DeliveryPage([DeliveryRow(**row) for row in data["deliveries"]], data["next"])


def encode_history(history: EventHistory) -> Json:
    """Return an event as JSON: its deliveries are its `handlers`, each with its `runs`."""
    handlers = [
        {**asdict(delivery.row), "runs": list(map(asdict, delivery.runs))}
        for delivery in history.deliveries
    ]
    data = asdict(history)
    del data["deliveries"]
    return {**data, "handlers": handlers}


def decode_history(data: Any) -> EventHistory:
    """Read an event."""
    fields = {key: value for key, value in data.items() if key != "handlers"}
    return EventHistory(**fields, deliveries=[_decode_delivery(item) for item in data["handlers"]])


def _decode_delivery(data: Any) -> DeliveryHistory:
    row = {key: value for key, value in data.items() if key != "runs"}
    return DeliveryHistory(DeliveryRow(**row), [Attempt(**run) for run in data["runs"]])


def encode_depth(depths: list[Depth]) -> Json:
    """Return depths as JSON."""
    return {"depth": [asdict(depth) for depth in depths]}


def decode_depth(data: Any) -> list[Depth]:
    """Read depths."""
    return [Depth(**depth) for depth in data["depth"]]


def decode_chunk(data: Any) -> ChunkResult:
    """Read what one chunk of a bulk operation did."""
    return ChunkResult(int(data["count"]), data["next"])


def encode_selection(selection: Selection) -> Json:
    """Return a selection as JSON, without empty fields."""
    return {key: value for key, value in asdict(selection).items() if value not in (None, ())}


def decode_selection(fields: Mapping[str, Any]) -> Selection:
    """Read a client's selection. Raises `ValueError`."""
    if unknown := fields.keys() - _SELECTION_FIELDS:
        raise ValueError(
            f"a selection has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(_SELECTION_FIELDS))}"
        )
    events = fields.get("events", [])
    if not isinstance(events, list | tuple) or len(events) > MAX_EVENTS:
        raise ValueError(f"events is a list of at most {MAX_EVENTS} event ids")
    return Selection(
        state=decode_state(fields.get("state")),
        handler=None if fields.get("handler") is None else decode_name(fields["handler"], "handler"),
        since=decode_time(fields.get("since")),
        events=tuple(decode_name(event, "each of events") for event in events),
    )


def decode_state(value: Any) -> State | None:
    """Read a state. Raises `ValueError`."""
    if value is None:
        return None
    if value not in get_args(State):
        raise ValueError(f"state is one of {', '.join(STATES)}")
    state: State = value
    return state


def decode_name(value: Any, field: str) -> str:
    """Read a name, such as a handler's or an event's id. Raises `ValueError`."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH:
        raise ValueError(f"{field} is a text of 1 to {MAX_NAME_LENGTH} characters")
    return value


def decode_time(value: Any) -> float | None:
    """Read a Unix time in seconds. Raises `ValueError`."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 <= seconds < math.inf:
        raise ValueError("since is a Unix time in seconds")
    return seconds
