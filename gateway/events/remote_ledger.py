"""The ledger of another process, over HTTP, and the ledger's types as JSON.

The server is `gateway.endpoints.admin.events`, behind the owner's Unix socket. Every request is bounded
and may be repeated. The caller closes the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.domain.api_routes import EVENTS_PREFIX, literal_names
from gateway.domain.units import iso_time, unix_time
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
    QueueName,
    Selection,
    State,
    Verb,
)

REQUEST_TIMEOUT: Final = 30.0
"""Seconds of one request. Each asks for a bounded piece of work."""

OWNER_URL: Final = "http://owner"
"""The base URL of a server behind its owner's socket."""

MAX_EVENTS: Final = 1000
"""Events that one selection may name."""

MAX_NAME_LENGTH: Final = 1000
"""Characters of a name in a selection."""

_SELECTION_FIELDS: Final = frozenset({"state", "handler", "since", "events"})

Json = dict[str, Any]


def socket_session(path: Path | str) -> aiohttp.ClientSession:
    """Return a session with the server behind an owner's Unix socket. Call on a loop."""
    connector = aiohttp.UnixConnector(path=str(path))
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


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

    async def queue(self) -> QueueName:
        """Return the queue of the server."""
        return QueueName(**await self._request("GET", "queue"))

    async def depth(self) -> list[Depth]:
        """See `Ledger`."""
        return [
            Depth(**_decode_times(depth)) for depth in (await self._request("GET", "depth"))["depth"]
        ]

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """See `Ledger`."""
        fields = encode_selection(selection)
        events = [("event", event) for event in fields.pop("events", ())]
        fields |= {"limit": limit} | ({} if after is None else {"after": after})
        query = [*events, *((name, str(value)) for name, value in fields.items())]
        data = await self._request("GET", "", query)
        rows = [DeliveryRow(**_decode_times(row)) for row in data["deliveries"]]
        return DeliveryPage(rows, data["next"], tuple(data.get("unavailable", ())))

    async def history(self, event_id: str) -> EventHistory | None:
        """See `Ledger`."""
        if not event_id or event_id in literal_names(EVENTS_PREFIX):
            return None
        data = await self._request("GET", event_id, none_at_404=True)
        return None if data is None else _decode_history(data)

    async def paused(self) -> frozenset[str]:
        """See `Ledger`."""
        return frozenset((await self._request("GET", "paused"))["paused"])

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """See `Ledger`."""
        body = {**encode_selection(selection), "after": after}
        data = await self._request("POST", verb, body=body)
        return ChunkResult(int(data["count"]), data["next"])

    async def pause(self, handler: str) -> None:
        """See `Ledger`."""
        await self._request("POST", "pause", body={"handler": handler})

    async def resume(self, handler: str) -> None:
        """See `Ledger`."""
        await self._request("POST", "resume", body={"handler": handler})

    async def _request(
        self,
        method: str,
        name: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: Mapping[str, Any] | None = None,
        none_at_404: bool = False,
    ) -> Any:
        url = self._url(name).update_query([*query, *self._scope.items()])
        try:
            async with self._session.request(method, url, json=body, allow_redirects=False) as response:
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


_TIMES: Final = ("created", "due", "ended", "oldest")
"""Fields that are Unix times here, and ISO 8601 in JSON."""


def encode_page(page: DeliveryPage) -> Json:
    """Return a page as JSON: `deliveries`, the cursor `next`, and processes that did not answer."""
    rows: Json = {"deliveries": [encode_row(row) for row in page.rows], "next": page.next}
    return rows | ({"unavailable": list(page.unavailable)} if page.unavailable else {})


def encode_row(row: DeliveryRow) -> Json:
    """Return a delivery as JSON."""
    return _encode_times(asdict(row))


def encode_history(history: EventHistory) -> Json:
    """Return an event as JSON: its deliveries are its `handlers`, each with its `runs`."""
    data = asdict(replace(history, deliveries=[]))
    del data["deliveries"]
    handlers = [_encode_times(delivery.fields()) for delivery in history.deliveries]
    for handler in handlers:
        handler["runs"] = list(map(_encode_times, handler["runs"]))
    return {**_encode_times(data), "handlers": handlers}


def _decode_history(data: Json) -> EventHistory:
    deliveries = []
    for row in data.pop("handlers"):
        runs = [Attempt(**_decode_times(run)) for run in row.pop("runs")]
        result = row.pop("result", None)
        deliveries.append(DeliveryHistory(DeliveryRow(**_decode_times(row)), runs, result))
    return EventHistory(**_decode_times(data), deliveries=deliveries)


def encode_depth(depths: list[Depth]) -> Json:
    """Return depths as JSON."""
    return {"depth": [_encode_times(asdict(depth)) for depth in depths]}


def _encode_times(fields: Json) -> Json:
    return {name: iso_time(value) if name in _TIMES else value for name, value in fields.items()}


def _decode_times(fields: Json) -> Json:
    return {name: unix_time(value) if name in _TIMES else value for name, value in fields.items()}


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
    if value not in STATES:
        raise ValueError(f"state is one of {', '.join(STATES)}")
    state: State = value
    return state


def decode_name(value: Any, field: str) -> str:
    """Read a name, such as a handler's or an event's id. Raises `ValueError`."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH:
        raise ValueError(f"{field} is a text of 1 to {MAX_NAME_LENGTH} characters")
    return value


def decode_time(value: Any) -> float | None:
    """Read a time in ISO 8601, or a Unix time in seconds. Raises `ValueError`."""
    if value is None:
        return None
    try:
        return unix_time("" if isinstance(value, bool) else str(value))
    except ValueError:
        raise ValueError("since is a time such as 2026-11-28T08:00:00Z, or a Unix time") from None
