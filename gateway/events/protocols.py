"""The three narrow protocols that every engine of events speaks, and their words.

    Outbox   publish: what is to be delivered, durable on return
    Queue    claim, touch, ack, retry, hand_back, dead: how it is delivered
    Ledger   depth, page, history, retry, drop, pause, resume, replay: how it is seen and steered

The rule: one delivery per (event, handler); a failing handler never touches another's. At least
once, no order. Two engines speak them: the embedded journal (`journal`) and NATS JetStream
(`nats`); one conformance suite holds both to this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from gateway.domain.model import Delivery

State = Literal["ready", "running", "delayed", "dead", "done"]
STATES: Final[tuple[State, ...]] = ("ready", "running", "delayed", "dead", "done")


@dataclass(slots=True, frozen=True)
class NewEvent:
    """Something that happened, to be told to `handlers`. `id` is unique for ever.

    `path` is the file's, where the event is about one. `body` is what handlers get, secrets
    already redacted. `created` is a Unix time. `holder` is the `HOST:PORT` of the gateway that
    has the file, None where the file is everybody's.
    """

    id: str
    type: str
    handlers: tuple[str, ...]
    body: dict[str, Any]
    created: float
    upload_id: str | None = None
    path: str | None = None
    holder: str | None = None


class Outbox(Protocol):
    """Where events go in."""

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Return only when all are durable. The same (id, handler) twice is one delivery.

        Raises `EventEngineUnavailable` when that cannot be done now; then it may be tried again.
        """


class Queue(Protocol):
    """Deliveries, from the runner's point of view.

    `lease` is how many seconds a claimed delivery stays the claimer's without a `touch`; None
    where it is his until his process ends.
    """

    lease: float | None

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        """Take up to `limit` due deliveries; wait up to `wait` seconds for the first.

        The attempt is counted here, durably: a handler that kills its process cannot loop for ever.
        A claim that is cancelled gives back what it would have brought. Raises `EventEngineUnavailable`.
        """

    async def touch(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these are still being worked on: each lease begins anew."""

    async def ack(self, delivery: Delivery, duration: float) -> None:
        """Done. A settlement of a delivery that has passed to another changes nothing."""

    async def retry(self, delivery: Delivery, delay: float, error: str, duration: float) -> None:
        """Failed: due again in `delay` seconds."""

    async def dead(self, delivery: Delivery, error: str, duration: float) -> None:
        """Given up: waits among the dead until somebody decides. Durable before it leaves the queue."""

    async def hand_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Give back unharmed: due again in `delay` seconds, no attempt is used."""

    async def dead_letter_orphans(self, handlers: Sequence[str]) -> int:
        """Make waiting deliveries of handlers other than `handlers` dead; return how many.

        An engine that several nodes share returns 0: another node may have the handler.
        """


@dataclass(slots=True, frozen=True)
class Outcome:
    """How a run ended: `gone` means that no plugin has the handler, `postponed` uses no attempt.

    `error` says why it did not succeed.
    """

    result: Literal["succeeded", "failed", "gone", "postponed"]
    error: str = ""


class DeliveryDispatcher(Protocol):
    """Runs the handlers of deliveries, from the runner's point of view."""

    async def run(self, delivery: Delivery) -> Outcome:
        """Run the handler of `delivery`; end within its time-out."""


@dataclass(slots=True, frozen=True)
class Selection:
    """Which deliveries: all that fit everything given. `events` are event ids; `since` a Unix time."""

    state: State | None = None
    handler: str | None = None
    since: float | None = None
    events: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class DeliveryRow:
    """One delivery as watchers see it. Times are Unix times; `error` may have many lines."""

    event_id: str
    upload_id: str | None
    handler: str
    event: str
    path: str | None
    state: State
    attempt: int
    error: str | None
    created: float
    due: float


@dataclass(slots=True, frozen=True)
class DeliveryPage:
    """Some rows, oldest first, and where the next page begins (None: there is none)."""

    rows: list[DeliveryRow]
    next: str | None


@dataclass(slots=True, frozen=True)
class Attempt:
    """One run that ended: `outcome` is done, retry or dead; `duration` in seconds."""

    attempt: int
    node: str
    ended: float
    duration: float
    outcome: str
    error: str | None


@dataclass(slots=True, frozen=True)
class DeliveryHistory:
    """One delivery with all its runs."""

    row: DeliveryRow
    runs: list[Attempt]


@dataclass(slots=True, frozen=True)
class EventHistory:
    """An event, its body as the handlers got it, and each handler's story."""

    id: str
    type: str
    upload_id: str | None
    path: str | None
    created: float
    body: dict[str, Any]
    stories: list[DeliveryHistory] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Depth:
    """How many deliveries of a handler are in a state, and the oldest one's time of birth."""

    handler: str
    state: State
    count: int
    oldest: float


class Ledger(Protocol):
    """Deliveries, from the point of view of those who watch and steer. Every answer is bounded."""

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state."""

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`, oldest first."""

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its stories, None for one that nobody knows (any more)."""

    async def retry(self, selection: Selection) -> int:
        """Make dead (or delayed) deliveries due now, their attempts counted from 1 again.

        Returns how many there were. May be repeated: nothing is lost where it breaks off.
        """

    async def drop(self, selection: Selection) -> int:
        """Give up for good what is not running and not done; return how many there were."""

    async def replay(self, selection: Selection) -> int:
        """Deliver again what was done (or handed to a remote engine), as new deliveries of the
        same event; return how many there were."""

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler, on every node, until `resume`; survives restarts."""

    async def resume(self, handler: str) -> None:
        """Claim again."""

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""
