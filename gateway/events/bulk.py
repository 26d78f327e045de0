"""Steering many deliveries in bounded pieces.

The rule: a piece is small enough that nobody waits for it; what breaks off between two pieces has
lost nothing and may be begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

from gateway.events.protocols import Ledger, Selection, State

Verb = Literal["retry", "drop", "replay"]
VERBS: Final[tuple[Verb, ...]] = ("retry", "drop", "replay")

TOUCHED: Final[Mapping[Verb, tuple[State, ...]]] = {
    "retry": ("dead", "delayed"),
    "drop": ("dead", "delayed", "ready"),
    "replay": ("done",),
}
"""The states that each verb changes; a selection without a state means all of them."""

Report = Callable[[int], None]
"""Is told, after each piece, how many deliveries there were so far."""


@dataclass(slots=True, frozen=True)
class BulkStep:
    """What one piece did, and where the next one begins (None: that was all)."""

    count: int
    next: str | None


@runtime_checkable
class BulkLedger(Protocol):
    """A ledger that can retry, drop and replay piece by piece."""

    async def step(self, verb: Verb, selection: Selection, after: str | None) -> BulkStep:
        """Do one bounded piece of `verb` behind the cursor `after`, None for the first.

        Deliveries that come to fit only after the first piece are left alone. Raises
        `EventEngineUnavailable`, `ValueError` for a cursor that is none.
        """


async def step(ledger: Ledger, verb: Verb, selection: Selection, after: str | None) -> BulkStep:
    """Do one piece; a ledger that knows no pieces does it all at once."""
    if isinstance(ledger, BulkLedger):
        return await ledger.step(verb, selection, after)
    return BulkStep(await getattr(ledger, verb)(selection), None)


async def walk(ledger: Ledger, verb: Verb, selection: Selection, report: Report | None = None) -> int:
    """Do all of `verb`, piece by piece; return how many deliveries there were. Raises
    `EventEngineUnavailable`."""
    count, after = 0, None
    while True:
        done = await step(ledger, verb, selection, after)
        count, after = count + done.count, done.next
        if report is not None:
            report(count)
        if after is None:
            return count
