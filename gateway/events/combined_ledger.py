"""Several ledgers as one.

Where one of them is unavailable the whole answer is `EventEngineUnavailable`: a list that silently lacks
a node would be wrong. A process may hang for good: a list names it, and goes on without it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from gateway.domain.json_text import parse_json
from gateway.errors import EventEngineUnavailable
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

SILENCE_TTL: Final = 10.0
"""Seconds for which a process that has not answered in time is not asked again."""

_LOST: Final = "!"
"""In a cursor: a process that did not answer, and is not asked again."""

Cursors = dict[str, str | None]
T = TypeVar("T")


def _nothing() -> Collection[str]:
    return ()


class CombinedLedger:
    """Several ledgers as one. Implements `Ledger`.

    `parts` are the ledgers, by a stable name such as `slot-0`. Where two know a delivery, the later one
    in `parts` has its state. `pausing` are those that pause handlers, where not all
    do: an engine that many nodes share does so alone, but for the handlers that `held` names, whose
    deliveries stay in the journals of the `processes`. Lists go on without those of `processes` that do
    not answer; those that `unresponsive` names are not even asked.
    """

    def __init__(
        self,
        parts: Mapping[str, Ledger],
        pausing: Mapping[str, Ledger] | None = None,
        processes: Collection[str] = (),
        unresponsive: Callable[[], Collection[str]] = _nothing,
        held: Callable[[], Collection[str]] = _nothing,
    ) -> None:
        self._parts = parts
        self._pausing = pausing or parts
        self._processes = frozenset(processes)
        self._unresponsive = unresponsive
        self._held = held
        self._silent_until: dict[str, float] = {}

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state, over all parts."""
        counted, errors = await self._ask(self._parts, lambda _, part: part.depth())
        _raise_any(errors)
        return merge_depths(depth for part in counted.values() for depth in part)

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows of all parts; see `Ledger`."""
        parts = self._parts
        cursors = _decode_cursor(after)
        unfinished = self._unfinished(cursors)
        pages, errors = await self._ask(
            unfinished, lambda name, part: part.page(selection, cursors.get(name), limit)
        )
        cursors |= dict.fromkeys(errors, _LOST)
        shares = _shares(pages, limit)
        for name in pages:
            part = parts[name]
            if 0 < shares[name] < len(pages[name].rows):
                # Only the ledger itself knows the cursor behind the last row of its share.
                pages[name] = await part.page(selection, cursors.get(name), shares[name])
            if shares[name] or not pages[name].rows:
                cursors[name] = pages[name].next or _END
        rows = [row for name, page in pages.items() for row in page.rows if shares[name]]
        rows.sort(key=lambda row: row.created)
        unavailable = tuple(name for name in parts if cursors.get(name) == _LOST)
        done = not self._unfinished(cursors)
        return DeliveryPage(rows, None if done else _encode_cursor(cursors), unavailable)

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with what all parts know of it, or None."""
        answers, errors = await self._ask(self._parts, lambda _, part: part.history(event_id))
        histories = [history for history in answers.values() if history is not None]
        if not histories:
            _raise_any(errors)
            return None
        merged: dict[str, DeliveryHistory] = {}
        for history in histories:
            for delivery in history.deliveries:
                handler = delivery.row.handler
                earlier = merged[handler].runs if handler in merged else []
                runs = sorted({*earlier, *delivery.runs}, key=lambda run: run.ended)
                merged[handler] = replace(delivery, runs=runs)
        return replace(histories[0], deliveries=[merged[handler] for handler in sorted(merged)])

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb`, part after part.

        A process that does not answer is passed over, and named by `EventEngineUnavailable` at the end.
        """
        cursors = _decode_cursor(after)
        while unfinished := self._unfinished(cursors):
            name = next(iter(unfinished))
            chunks, _ = await self._ask(
                {name: unfinished[name]},
                lambda name, part: part.run_chunk(verb, selection, cursors.get(name)),
            )
            chunk = chunks.get(name)
            cursors[name] = _LOST if chunk is None else chunk.next or _END
            if chunk is not None:
                last = not self._unfinished(cursors) and _LOST not in cursors.values()
                return ChunkResult(chunk.count, None if last else _encode_cursor(cursors))
        if lost := [name for name, position in cursors.items() if position == _LOST]:
            raise EventEngineUnavailable(f"{_not_answering(lost)}; the others have done it")
        return ChunkResult(0, None)

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler."""
        pausing = self._journals if handler in self._held() else self._pausing
        _raise_any((await self._ask(pausing, lambda _, part: part.pause(handler)))[1])

    async def resume(self, handler: str) -> None:
        """Claim again, in all parts: those of an earlier pause without a shared engine too."""
        parts = self._journals if handler in self._held() else self._parts
        _raise_any((await self._ask(parts, lambda _, part: part.resume(handler)))[1])

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
        paused, _ = await self._ask(self._pausing, lambda _, part: part.paused())
        shared = frozenset[str]().union(*paused.values())
        if self._pausing is self._parts or not (held := frozenset(self._held())):
            return shared
        kept, _ = await self._ask(self._journals, lambda _, part: part.paused())
        return (shared - held) | (held & frozenset[str]().union(*kept.values()))

    @property
    def _journals(self) -> dict[str, Ledger]:
        return {name: part for name, part in self._parts.items() if name in self._processes}

    def _unfinished(self, cursors: Cursors) -> dict[str, Ledger]:
        ended = {name for name, position in cursors.items() if position in {_END, _LOST}}
        return {name: part for name, part in self._parts.items() if name not in ended}

    async def _ask(
        self, parts: Mapping[str, Ledger], query: Callable[[str, Ledger], Awaitable[T]]
    ) -> tuple[dict[str, T], dict[str, EventEngineUnavailable]]:
        """Return what the parts answer, by name, and the errors of processes that do not answer."""
        now = time.monotonic()
        silent = {name for name, until in self._silent_until.items() if now < until}
        unresponsive = self._processes & (silent | {*self._unresponsive()})
        errors = {
            name: EventEngineUnavailable(_not_answering([name]))
            for name in parts
            if name in unresponsive
        }
        queried = {name: part for name, part in parts.items() if name not in errors}
        results = await asyncio.gather(*map(query, queried, queried.values()), return_exceptions=True)
        answers: dict[str, T] = {}
        for name, result in zip(queried, results, strict=True):
            if isinstance(result, EventEngineUnavailable) and name in self._processes:
                errors[name] = result
                if isinstance(result.__cause__, TimeoutError):
                    self._silent_until[name] = time.monotonic() + SILENCE_TTL
            elif isinstance(result, BaseException):
                raise result
            else:
                answers[name] = result
        return answers, errors


def _raise_any(errors: Mapping[str, EventEngineUnavailable]) -> None:
    for error in errors.values():
        raise error


def _not_answering(names: Collection[str]) -> str:
    """Return in words which processes do not answer."""
    slots = ", ".join(name.removeprefix("slot-") for name in sorted(names))
    return f"process {slots} does not answer" if len(names) == 1 else f"processes {slots} do not answer"


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
