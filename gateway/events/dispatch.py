"""Who runs the handlers of deliveries, from the runner's point of view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gateway.domain.held import Decision
from gateway.domain.model import Delivery, HandlerSpec


@dataclass(slots=True, frozen=True)
class RunResult:
    """How a run ended: `gone` means that no plugin has the handler, `postponed` uses no attempt.

    `result` is what the handler left for the client (`handle.result`), whatever the status; `decision`
    is that of a handler of OnFileReceived, None where it failed. After a failure the next run is due in
    `retry_after` seconds at the earliest; there is none where it is `final`.
    """

    status: Literal["succeeded", "failed", "gone", "postponed"]
    error: str = ""
    result: dict[str, Any] | None = None
    decision: Decision | None = None
    retry_after: float = 0.0
    final: bool = False


class SubmittedRun(Protocol):
    """What was submitted and can be given up."""

    def cancel(self) -> object:
        """End it; `done` is not called any more."""


class DeliveryDispatcher(Protocol):
    """Runs the handlers of deliveries, from the runner's point of view."""

    def submit(self, delivery: Delivery, done: Callable[[RunResult], None]) -> SubmittedRun | None:
        """Run the handler of `delivery` and call `done` once, within twice its time-out, on this loop.

        None: this delivery has to wait for something first, use `run`.
        """

    async def run(self, delivery: Delivery) -> RunResult:
        """Run the handler of `delivery`; end within twice its time-out."""

    def slots(self, spec: HandlerSpec) -> int:
        """Return how many runs of a handler may be under way.

        More than its `concurrency` where its runs cannot overlap and are short.
        """
