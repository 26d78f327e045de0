"""What every event engine implements: `Outbox`, `Queue` and `Ledger`, and the types they share.

There is one delivery per event and handler. Delivery is at least once, in no order. The embedded journal
and NATS JetStream implement it; one contract suite holds both to this file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, Literal, Protocol

from gateway.domain.model import Delivery
from gateway.events.memory_queue import MemoryQueue

State = Literal["ready", "running", "delayed", "dead", "done", "relayed"]
STATES: Final[tuple[State, ...]] = ("ready", "running", "delayed", "dead", "done", "relayed")
"""`relayed`: a remote engine has the delivery, and only that engine knows what became of it."""

INVALID_CURSOR: Final = "invalid cursor: use the one of the previous page"

RunOutput = dict[str, Any]
"""What a run left for the client (`handle.result`): a small JSON object."""

Verb = Literal["retry", "drop", "replay"]
"""A bulk operation: make due now, delete, or deliver again what was done."""

VERBS: Final[tuple[Verb, ...]] = ("retry", "drop", "replay")

VERB_STATES: Final[Mapping[Verb, tuple[State, ...]]] = {
    "retry": ("dead", "delayed"),
    "drop": ("dead", "delayed", "ready"),
    "replay": ("done",),
}
"""The states that each verb changes; a selection without a state means all of them."""


@dataclass(slots=True, frozen=True)
class NewEvent:
    """An event for `handlers`. `id` is unique for ever.

    `path` is that of the file the event is about, if any. `body` is what handlers get, its secrets
    redacted. `created` is a Unix time. `holder` is the `HOST:PORT` of the gateway that has the
    file, None where every gateway has it.
    """

    id: str
    type: str
    handlers: tuple[str, ...]
    body: dict[str, Any]
    created: float
    upload_id: str | None = None
    path: str | None = None
    holder: str | None = None


@dataclass(slots=True, frozen=True)
class QueueName:
    """The queue of an installation: `journal`, or the servers of NATS and the prefix of names there."""

    queue: str = "journal"
    prefix: str | None = None

    def __str__(self) -> str:
        return self.queue if self.prefix is None else f"{self.queue} (prefix {self.prefix})"


class Outbox(Protocol):
    """Accepts events."""

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Publish events, durable on return. The same (id, handler) twice is one delivery.

        Raises `EventEngineUnavailable`; then it may be tried again.
        """


class Queue(Protocol):
    """Deliveries to be run. Every method raises `EventEngineUnavailable`.

    `lease` is how many seconds a claimed delivery belongs to its claimer without `extend_leases`; None
    where it belongs to it until its process ends. `memory` has deliveries that need no claim, None where
    all are claimed.
    """

    lease: float | None
    memory: MemoryQueue | None

    async def claim(self, handler: str, limit: int, wait: float) -> list[Delivery]:
        """Claim up to `limit` due deliveries; wait up to `wait` seconds for the first.

        The attempt is counted here, durably: a handler that kills its process cannot loop for ever. A
        cancelled claim returns its deliveries to the queue.
        """

    async def extend_leases(self, deliveries: Sequence[Delivery]) -> None:
        """Begin the lease of each delivery anew: its handler still runs."""

    def ack(
        self, delivery: Delivery, duration: float, result: RunOutput | None = None
    ) -> Awaitable[None]:
        """Settle a delivery as done. Where another process has claimed it meanwhile, nothing changes.

        `result` is what the handler left for the client in this run: the history has that of the latest
        run, here as in `retry` and `dead_letter`.
        """

    async def retry(
        self,
        delivery: Delivery,
        delay: float,
        error: str,
        duration: float,
        result: RunOutput | None = None,
    ) -> None:
        """Settle a run as failed: the delivery is due again in `delay` seconds."""

    async def dead_letter(
        self, delivery: Delivery, error: str, duration: float, result: RunOutput | None = None
    ) -> None:
        """Make a delivery dead, until an operator decides. Durable before it leaves the queue."""

    async def requeue(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Return deliveries unharmed: due again in `delay` seconds, no attempt is used."""

    async def limit_delays(self, handler: str, longest: float) -> int:
        """Make some deliveries due that would wait for more than `longest` seconds; return how many.

        They were delayed while the clock was ahead. 0 means that no more wait so long.
        """

    async def dead_letter_orphans(self, handlers: Sequence[str]) -> int:
        """Make some waiting deliveries of handlers other than `handlers` dead; return how many.

        0 means that no more wait. An engine that several nodes share returns 0: another node may have
        the handler.
        """


@dataclass(slots=True, frozen=True)
class Selection:
    """Deliveries that match everything given. `events` are event ids, `since` is a Unix time."""

    state: State | None = None
    handler: str | None = None
    since: float | None = None
    events: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class DeliveryRow:
    """One delivery as it is listed. Times are Unix times; `error` may have many lines."""

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
    """Rows, oldest first, and the cursor of the next page (None: there is none).

    `unavailable` names the processes that did not answer, such as `slot-1`.
    """

    rows: list[DeliveryRow]
    next: str | None
    unavailable: tuple[str, ...] = ()


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
    """One delivery with all its runs; `result` is what the latest of them left for the client."""

    row: DeliveryRow
    runs: list[Attempt]
    result: RunOutput | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the delivery, those of its `runs`, and its `result` if there is one."""
        result = {} if self.result is None else {"result": self.result}
        return {**asdict(self.row), "runs": list(map(asdict, self.runs)), **result}


@dataclass(slots=True, frozen=True)
class EventHistory:
    """An event, its body as the handlers got it, and its deliveries."""

    id: str
    type: str
    upload_id: str | None
    path: str | None
    created: float
    body: dict[str, Any]
    deliveries: list[DeliveryHistory] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Depth:
    """The count of a handler's deliveries in a state, and when the oldest event was created."""

    handler: str
    state: State
    count: int
    oldest: float


@dataclass(slots=True, frozen=True)
class ChunkResult:
    """What one chunk of a bulk operation changed, and where the next begins (None: it is complete)."""

    count: int
    next: str | None


class Ledger(Protocol):
    """Deliveries for operators. Every answer is bounded. All methods raise `EventEngineUnavailable`."""

    async def depth(self) -> list[Depth]:
        """Count all that is not done, by handler and state."""

    async def page(self, selection: Selection, after: str | None, limit: int) -> DeliveryPage:
        """Return up to `limit` rows behind the cursor `after`, oldest first.

        Raises `ValueError` for an invalid cursor.
        """

    async def history(self, event_id: str) -> EventHistory | None:
        """Return an event with its deliveries, None for an unknown one."""

    async def run_chunk(self, verb: Verb, selection: Selection, after: str | None) -> ChunkResult:
        """Do one bounded chunk of `verb` behind the cursor `after`, None for the first.

        `retry` makes dead and delayed deliveries due now, their attempts counted from 1 again; `drop`
        deletes what is neither running nor done; `replay` delivers again what was done, or relayed to a
        remote engine. Deliveries that come to match after the first chunk are left alone. A chunk may be
        repeated. Raises `ValueError` for an invalid cursor.
        """

    async def pause(self, handler: str) -> None:
        """Stop claiming for this handler, on every node, until `resume`; survives restarts."""

    async def resume(self, handler: str) -> None:
        """Claim again."""

    async def paused(self) -> frozenset[str]:
        """Return the handlers that are paused."""


def read_positions(cursor: str, count: int) -> list[int]:
    """Read the `count` positions in a cursor such as `17.20`. Raises `ValueError`."""
    parts = cursor.split(".")
    if len(parts) != count or not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
        raise ValueError(INVALID_CURSOR)
    return [int(part) for part in parts]


async def run_all(
    ledger: Ledger, verb: Verb, selection: Selection, report: Callable[[int], None] | None = None
) -> int:
    """Run `verb` chunk by chunk; see `run_chunks`."""
    return await run_chunks(partial(ledger.run_chunk, verb, selection), report)


async def run_chunks(
    run_chunk: Callable[[str | None], Awaitable[ChunkResult]],
    report: Callable[[int], None] | None = None,
) -> int:
    """Run chunk after chunk; return how many deliveries they changed. `report` gets the count so far.

    Commits of uploads go between two chunks. Where it breaks off it may begin again.
    """
    count, after = 0, None
    while True:
        chunk = await run_chunk(after)
        count, after = count + chunk.count, chunk.next
        if report is not None:
            report(count)
        if after is None:
            return count
