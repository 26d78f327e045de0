"""Several ledgers as one.

Where one of them is unavailable the whole answer is `EventEngineUnavailable`: a list that silently lacks
a node would be wrong.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.domain.json_text import parse_json
from gateway.events.ledger import merge_depths
from gateway.events.protocols import (
    INVALID_CURSOR,
    ChunkResult,
    DeliveryHistory,
    DeliveryPage,
    Depth,
    EventHistory,
    Ledger,
    Selection,
    Verb,
)

_END: Final = "-"
"""In a cursor: a ledger that has no more. No ledger has such a cursor."""

Cursors = dict[str, str | None]


class CombinedLedger:
    """Several ledgers as one. Implements `Ledger`.

    `parts` are the ledgers, by a stable name such as `slot-0`. Where two know a delivery, the later one
    in `parts` has its state. `pausing` are those that pause handlers, where not all
    do: an engine that many nodes share does so alone.
    """

    def __init__(self, parts: Mapping[str, Ledger], pausing: Mapping[str, Ledger] | None = None) -> None:
        self._parts = parts
        self._pausing = pausing or parts

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state, over all parts."""
        counted = await asyncio.gather(*(part.depth() for part in self._parts.values()))
        return merge_depths(depth for part in counted for depth in part)

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows of all parts; see `Ledger`."""
        parts = self._parts
        cursors = _decode_cursor(after)
        unfinished = {name: part for name, part in parts.items() if cursors.get(name) != _END}
        if not unfinished:
            return DeliveryPage([], None)
        fetched = await asyncio.gather(
            *(part.page(selection, cursors.get(name), limit) for name, part in unfinished.items())
        )
        pages = dict(zip(unfinished, fetched, strict=True))
        shares = _shares(pages, limit)
        for name, part in unfinished.items():
            if 0 < shares[name] < len(pages[name].rows):
                # Only the ledger itself knows the cursor behind the last row of its share.
                pages[name] = await part.page(selection, cursors.get(name), shares[name])
            if shares[name] or not pages[name].rows:
                cursors[name] = pages[name].next or _END
        rows = [row for name in unfinished for row in pages[name].rows if shares[name]]
        rows.sort(key=lambda row: row.created)
        done = all(cursors.get(name) == _END for name in parts)
        return DeliveryPage(rows, None if done else _encode_cursor(cursors))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with what all parts know of it, or None."""
        answers = await asyncio.gather(*(part.history(event_id) for part in self._parts.values()))
        histories = [history for history in answers if history is not None]
        if not histories:
            return None
        merged: dict[str, DeliveryHistory] = {}
        for history in histories:
            for delivery in history.deliveries:
                handler = delivery.row.handler
                earlier = merged[handler].runs if handler in merged else []
                runs = sorted({*earlier, *delivery.runs}, key=lambda run: run.ended)
                merged[handler] = DeliveryHistory(delivery.row, runs)
        return replace(histories[0], deliveries=[merged[handler] for handler in sorted(merged)])

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`, part after part."""
        cursors = _decode_cursor(after)
        unfinished = [item for item in self._parts.items() if cursors.get(item[0]) != _END]
        if not unfinished:
            return ChunkResult(0, None)
        name, part = unfinished[0]
        chunk = await part.run_chunk(verb, selection, cursors.get(name))
        cursors[name] = chunk.next or _END
        last = chunk.next is None and len(unfinished) == 1
        return ChunkResult(chunk.count, None if last else _encode_cursor(cursors))

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler."""
        await asyncio.gather(*(part.pause(handler) for part in self._pausing.values()))

    async def resume(self, handler: str) -> None:
        """Claim again, in all parts: those of an earlier pause without a shared engine too."""
        await asyncio.gather(*(part.resume(handler) for part in self._parts.values()))

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        paused = await asyncio.gather(*(part.paused() for part in self._pausing.values()))
        return frozenset().union(*paused)


def _shares(pages: Mapping[str, DeliveryPage], limit: int) -> dict[str, int]:
    """Return how many rows of each part are among the `limit` oldest of all.

    Behind the end of a page there may be rows older than those of other pages, so it ends at the first
    page that is used up and has more.
    """
    rows = sorted(
        (row.created, at, number)
        for at, page in enumerate(pages.values())
        for number, row in enumerate(page.rows)
    )
    counts = dict.fromkeys(pages, 0)
    names = list(pages)
    for _, at, _ in rows[:limit]:
        counts[name := names[at]] += 1
        if counts[name] == len(pages[name].rows) and pages[name].next is not None:
            break
    return counts


def _encode_cursor(cursors: Cursors) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursors).encode()).decode().rstrip("=")


def _decode_cursor(after: str | None) -> Cursors:
    if after is None:
        return {}
    try:
        cursors: Any = parse_json(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
    except (ValueError, binascii.Error):
        cursors = None
    if not isinstance(cursors, dict) or not all(isinstance(value, str) for value in cursors.values()):
        raise ValueError(INVALID_CURSOR)
    return cursors
