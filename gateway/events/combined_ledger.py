"""Several ledgers seen and steered as one.

The rule: nothing is said of a part that cannot be asked: then the whole answer is
`EventEngineUnavailable`, for a list that silently lacks a node would be a lie.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.events.ledger import merged
from gateway.events.protocols import (
    ChunkResult,
    DeliveryHistory,
    DeliveryPage,
    Depth,
    EventHistory,
    Ledger,
    Selection,
    Verb,
)

Parts = Callable[[], Mapping[str, Ledger]]

_END: Final = "-"
"""Stands in a cursor for a part that has no more; cursors of parts never look so."""

Cursors = dict[str, str | None]


class CombinedLedger:
    """Several ledgers as one. Implements `Ledger`.

    `parts()` is asked each time: what lives now, by a name that stays (such as `slot-0`). Where two
    parts know a delivery, the one that comes later in `parts()` has the last word. `holders()` are
    those that hold handlers back, where not all do: an engine that many nodes share does so alone.
    """

    def __init__(self, parts: Parts, holders: Parts | None = None) -> None:
        self._parts = parts
        self._holders = holders or parts

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state, over all parts."""
        counted = await asyncio.gather(*(part.depth() for part in self._parts().values()))
        return merged(depth for part in counted for depth in part)

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows of all parts behind the cursor `after`, oldest first.

        Raises `ValueError` for a cursor that is none.
        """
        parts = self._parts()
        cursors = _read(after)
        left = {name: part for name, part in parts.items() if cursors.get(name) != _END}
        if not left:
            return DeliveryPage([], None)
        fetched = await asyncio.gather(
            *(part.page(selection, cursors.get(name), limit) for name, part in left.items())
        )
        pages = dict(zip(left, fetched, strict=True))
        taken = _shares(pages, limit)
        for name, part in left.items():
            if 0 < taken[name] < len(pages[name].rows):
                # Only the part itself knows the cursor behind the last row that is taken.
                pages[name] = await part.page(selection, cursors.get(name), taken[name])
            if taken[name] or not pages[name].rows:
                cursors[name] = pages[name].next or _END
        rows = [row for name in left for row in pages[name].rows if taken[name]]
        rows.sort(key=lambda row: row.created)
        done = all(cursors.get(name) == _END for name in parts)
        return DeliveryPage(rows, None if done else _write(cursors))

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event as all parts together know it, or None."""
        told = await asyncio.gather(*(part.history(event_id) for part in self._parts().values()))
        known = [history for history in told if history is not None]
        if not known:
            return None
        stories: dict[str, DeliveryHistory] = {}
        for history in known:
            for story in history.stories:
                earlier = stories.get(story.row.handler, DeliveryHistory(story.row, [])).runs
                runs = sorted({*earlier, *story.runs}, key=lambda run: run.ended)
                stories[story.row.handler] = DeliveryHistory(story.row, runs)
        return replace(known[0], stories=[stories[handler] for handler in sorted(stories)])

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`, part after part."""
        cursors = _read(after)
        left = {name: part for name, part in self._parts().items() if cursors.get(name) != _END}
        for name, part in left.items():
            done = await part.run_chunk(verb, selection, cursors.get(name))
            cursors[name] = done.next or _END
            last = done.next is None and len(left) == 1
            return ChunkResult(done.count, None if last else _write(cursors))
        return ChunkResult(0, None)

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler."""
        await asyncio.gather(*(part.pause(handler) for part in self._holders().values()))

    async def resume(self, handler: str) -> None:
        """Claim again, in all parts: what one was told before others held back alone is over, too."""
        await asyncio.gather(*(part.resume(handler) for part in self._parts().values()))

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are held back."""
        told = await asyncio.gather(*(part.paused() for part in self._holders().values()))
        return frozenset().union(*told)


def _shares(pages: Mapping[str, DeliveryPage], limit: int) -> dict[str, int]:
    """Return how many rows of each part are among the `limit` oldest of all.

    Behind the end of a part's page there may be more that is older than what others show, so it
    goes no further than the first page that has more and is used up.
    """
    rows = sorted(
        (row.created, at, number)
        for at, page in enumerate(pages.values())
        for number, row in enumerate(page.rows)
    )
    taken = [0] * len(pages)
    for _, at, _ in rows[:limit]:
        taken[at] += 1
        page = list(pages.values())[at]
        if taken[at] == len(page.rows) and page.next is not None:
            break
    return dict(zip(pages, taken, strict=True))


def _write(cursors: Cursors) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursors).encode()).decode().rstrip("=")


def _read(after: str | None) -> Cursors:
    if after is None:
        return {}
    try:
        said: Any = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
    except (ValueError, binascii.Error):
        said = None
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise ValueError("this is no cursor of ours")
    return said
