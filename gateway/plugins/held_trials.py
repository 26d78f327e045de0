"""Shadows of files that are held, until the handlers with `hold` have decided in this process."""

from __future__ import annotations

from typing import Final, Protocol

from gateway.domain.held import Decision
from gateway.errors import Terminated
from gateway.plugins.scripting.decision import Received

MAX_HELD: Final = 1000
"""Held files that wait here for their decision; with more, the oldest are not compared."""


class Settled(Protocol):
    """What is compared with a decision."""

    def settle(self, changes: Received | None, error: Exception | None) -> None:
        """Compare it."""


class HeldTrials:
    """The trials of held files by upload id. A decision after a restart is compared with nothing."""

    def __init__(self) -> None:
        self._trials: dict[str, tuple[Settled, Received]] = {}

    def keep(self, upload_id: str, trial: Settled, changes: Received) -> None:
        """Wait for what the handlers with `hold` decide; `changes` are those so far."""
        self._trials[upload_id] = (trial, changes)
        if len(self._trials) > MAX_HELD:
            del self._trials[next(iter(self._trials))]

    def decided(self, upload_id: str, decision: Decision, *, last: bool) -> None:
        """Take the decision of one handler; `last`: no other one has to decide."""
        if upload_id not in self._trials:
            return
        trial, changes = self._trials[upload_id]
        if (refusal := decision.refusal) is not None:
            del self._trials[upload_id]
            trial.settle(None, Terminated(refusal.status, refusal.body, refusal.content_type))
            return
        changes = Received(
            changes.path if decision.path is None else decision.path,
            changes.on_conflict if decision.on_conflict is None else decision.on_conflict,
            changes.metadata if decision.metadata is None else decision.metadata,
        )
        if last:
            del self._trials[upload_id]
            trial.settle(changes, None)
        else:
            self._trials[upload_id] = (trial, changes)
