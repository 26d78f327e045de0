"""The ledger's types as JSON.

What `encode_X` writes, `decode_X` reads. Readers of a client's JSON raise `ValueError` that says what is
wrong. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, get_args

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
)

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
