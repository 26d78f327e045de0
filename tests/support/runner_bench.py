"""A runner on a real journal, with handlers that are the test's own functions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.domain.model import UPLOADED, Delivery, HandlerSpec, RetryPolicy
from gateway.events.dispatch import RunResult
from gateway.events.journal import Journal
from gateway.events.protocols import DeliveryHistory, Queue
from gateway.events.runner import Runner
from gateway.events.settlement import broken_run
from tests.support.records import publish_uploads, run_sync

SECONDS = 30.0
Deliver = Callable[[Delivery], Awaitable[RunResult | None]]
DONE = RunResult("succeeded")


def spec(
    name: str = "h", concurrency: int = 4, attempts: int = 3, backoff: float = 0.001
) -> HandlerSpec:
    return HandlerSpec(name, UPLOADED, 10.0, concurrency, RetryPolicy(attempts, backoff, backoff))


class RunnerBench:
    """A runner with a journal, counting how its runs end; `deliver` is the test's.

    `submits`: runs are submitted, not awaited.
    """

    def __init__(self, journal: Journal, queue: Queue | None = None) -> None:
        self.journal = journal
        self.deliver: Deliver = self.succeed
        self.submits = True
        self.outcomes: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        self.runner = Runner(queue or journal.queue, self, self)

    async def succeed(self, delivery: Delivery) -> None:
        """Be a handler that succeeds."""

    def submit(self, delivery: Delivery, done: Callable[[RunResult], None]) -> asyncio.Task[None] | None:
        """Run the handler in a task, as the executor of scripts would."""
        if not self.submits:
            return None

        async def run() -> None:
            try:
                result = await self.deliver(delivery) or DONE
            except Exception as error:
                result = broken_run(delivery.handler, error)
            done(result)

        return asyncio.create_task(run())

    async def run(self, delivery: Delivery) -> RunResult:
        return await self.deliver(delivery) or DONE

    def slots(self, spec: HandlerSpec) -> int:
        return spec.concurrency

    def record_run(self, handler: str, outcome: str, seconds: float) -> None:
        self.outcomes.append((handler, outcome))
        self._changed.set()

    def publish(self, *names: str, handlers: tuple[str, ...] = ("h",)) -> None:
        publish_uploads(self.journal, *names, handlers=handlers)

    def story(self, name: str) -> DeliveryHistory:
        """Return what the ledger tells of an upload's only delivery."""
        history = run_sync(self.journal.ledger.history(f"e-{name}"))
        assert history is not None
        (story,) = history.deliveries
        return story

    async def ended(self, count: int) -> None:
        """Wait until `count` runs have ended."""
        async with asyncio.timeout(SECONDS):
            while len(self.outcomes) < count:
                self._changed.clear()
                await self._changed.wait()

    async def start(self, *specs: HandlerSpec) -> None:
        """Start the runner and wait until its claims have found nothing: what comes stays in memory."""
        await self.runner.start(specs)
        await asyncio.sleep(0)  # the claims are in the journal's queue
        await self.journal.queue.claim("stranger", 1, 0.0)

    async def stop(self, grace: float = SECONDS) -> None:
        async with asyncio.timeout(SECONDS):
            await self.runner.stop(grace)
