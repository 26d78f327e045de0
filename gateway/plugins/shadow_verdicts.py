"""Decisions as they are compared: that of a shadow, and the one that counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.errors import Refusal, Terminated
from gateway.plugins.scripting.decision import Changes
from gateway.plugins.scripting.quotas import EVENT_KEY
from gateway.plugins.scripting.values import Event


class ShadowVerdict(NamedTuple):
    """A decision as it is compared: `outcome` is `accepted`, `refused` or `failed`.

    `status` is that of a refusal, `changes` are those of an acceptance. `reason` is not compared.
    """

    outcome: str
    status: int | None = None
    changes: tuple[tuple[str, str], ...] = ()
    reason: str = ""

    def agrees(self, other: ShadowVerdict) -> bool:
        """Return whether both decide the same."""
        return self[:3] == other[:3]

    def __str__(self) -> str:
        words = [self.outcome, *([] if self.status is None else [str(self.status)])]
        words += [f"{key}={value}" for key, value in self.changes]
        return " ".join(words) + (f": {self.reason}" if self.reason else "")


def real_verdict(before: Event, changes: Any, error: Exception | None) -> ShadowVerdict | None:
    """Return what was decided, None where it was nothing: an overload, a client that went away.

    `before` is the event as it was before its handlers.
    """
    if error is None:
        return ShadowVerdict("accepted", changes=changes_of(before, changes))
    if isinstance(error, Terminated):
        return ShadowVerdict("refused", error.status)
    if isinstance(error, Refusal) and error.code != "overloaded":
        if error.code == "hook_failed":
            return ShadowVerdict("failed")
        return ShadowVerdict("refused", error.status)
    return None


def changes_of(before: Event, changes: Any) -> tuple[tuple[str, str], ...]:
    """Return what a decision changes of the event, as sorted texts; quotas are not compared."""
    if changes is None:
        return ()
    if isinstance(changes, str):
        values: Mapping[str, Any] = {"path": changes}
    elif isinstance(changes, Changes):
        own = changes.keys
        values = {k: v for k, v in changes._asdict().items() if k == "path" or k in own}
    else:
        values = changes._asdict()
    missing = object()
    changed = {k: v for k, v in values.items() if k != EVENT_KEY and v != dict.get(before, k, missing)}
    return tuple(sorted((key, repr(value)) for key, value in changed.items()))
