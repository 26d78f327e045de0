"""How the ledger's words are written in JSON, and read again.

The rule: what `said` makes of a word, the function of its name understands; whatever else it is
given is a `ValueError` that says what is wrong. Pure.
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

MOST_EVENTS: Final = 1000
"""Events that one selection may name."""

LONGEST: Final = 1000
"""Characters of a name in a selection."""

_SELECTS: Final = frozenset({"state", "handler", "since", "events"})

Json = dict[str, Any]


def page_said(page: DeliveryPage) -> Json:
    """Return a page as JSON: `deliveries` and the cursor `next`."""
    return {"deliveries": [asdict(row) for row in page.rows], "next": page.next}


def page(said: Any) -> DeliveryPage:
    """Read a page."""
    return DeliveryPage([DeliveryRow(**row) for row in said["deliveries"]], said["next"])


def history_said(history: EventHistory) -> Json:
    """Return an event as JSON: its deliveries are its `handlers`, each with its `runs`."""
    handlers = [
        {**asdict(story.row), "runs": list(map(asdict, story.runs))} for story in history.stories
    ]
    said = asdict(history)
    del said["stories"]
    return {**said, "handlers": handlers}


def history(said: Any) -> EventHistory:
    """Read an event."""
    known = {key: value for key, value in said.items() if key != "handlers"}
    return EventHistory(**known, stories=[_story(handler) for handler in said["handlers"]])


def _story(said: Any) -> DeliveryHistory:
    row = {key: value for key, value in said.items() if key != "runs"}
    return DeliveryHistory(DeliveryRow(**row), [Attempt(**run) for run in said["runs"]])


def depth_said(depth: list[Depth]) -> Json:
    """Return a depth as JSON."""
    return {"depth": [asdict(one) for one in depth]}


def depth(said: Any) -> list[Depth]:
    """Read a depth."""
    return [Depth(**one) for one in said["depth"]]


def chunk_result(said: Any) -> ChunkResult:
    """Read what one chunk of a bulk operation did."""
    return ChunkResult(int(said["count"]), said["next"])


def selection_said(selection: Selection) -> Json:
    """Return a selection as JSON; what it does not say is left out."""
    return {key: value for key, value in asdict(selection).items() if value not in (None, ())}


def selection(said: Mapping[str, Any]) -> Selection:
    """Read a selection that somebody wrote. Raises `ValueError`."""
    if unknown := said.keys() - _SELECTS:
        raise ValueError(
            f"a selection has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(_SELECTS))}"
        )
    events = said.get("events", [])
    if not isinstance(events, list | tuple) or len(events) > MOST_EVENTS:
        raise ValueError(f"events is a list of at most {MOST_EVENTS} event ids")
    return Selection(
        state=state(said.get("state")),
        handler=None if said.get("handler") is None else name(said["handler"], "handler"),
        since=moment(said.get("since")),
        events=tuple(name(event, "each of events") for event in events),
    )


def state(said: Any) -> State | None:
    """Read a state. Raises `ValueError`."""
    if said is None:
        return None
    if said not in get_args(State):
        raise ValueError(f"state is one of {', '.join(STATES)}")
    known: State = said
    return known


def name(said: Any, what: str) -> str:
    """Read a name, such as a handler's or an event's id. Raises `ValueError`."""
    if not isinstance(said, str) or not 0 < len(said) <= LONGEST:
        raise ValueError(f"{what} is a text of 1 to {LONGEST} characters")
    return said


def moment(said: Any) -> float | None:
    """Read a Unix time in seconds. Raises `ValueError`."""
    if said is None:
        return None
    try:
        seconds = float(said)
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(said, bool) or not 0 <= seconds < math.inf:
        raise ValueError("since is a Unix time in seconds")
    return seconds
