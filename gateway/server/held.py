"""Delivers `APIGW.OnFileReceived` of held uploads: from the journal of this process, always.

Whatever engine delivers other events, and wherever their handlers run: the body is here, and the
decision belongs into the transaction that settles the delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.commit.held.store import HeldStore
from gateway.domain.model import Delivery, HandlerSpec
from gateway.errors import EventEngineUnavailable
from gateway.events.dispatch import DeliveryDispatcher, RunResult, SubmittedRun
from gateway.events.held_queue import HeldQueue
from gateway.events.runner import Runner
from gateway.events.runs import RunMetrics
from gateway.files.private import PrivateFiles
from gateway.plugins.held_trials import HeldTrials
from gateway.telemetry.logs import event

if TYPE_CHECKING:  # it opens the journal, which a worker has not
    from gateway.server.resources import Resources

log = logging.getLogger("gateway.runner")

ORPHANS_INTERVAL: Final = 60.0
"""Seconds between two looks for uploads that wait for a handler that a reload has removed."""


class HeldDispatcher:
    """Runs a handler with the private file of its upload, and keeps what it decides for the queue."""

    def __init__(
        self,
        dispatcher: DeliveryDispatcher,
        queue: HeldQueue,
        store: HeldStore,
        files: PrivateFiles,
        trials: HeldTrials,
    ) -> None:
        self._dispatcher = dispatcher
        self._queue = queue
        self._store = store
        self._files = files
        self._trials = trials

    def submit(self, delivery: Delivery, done: Callable[[RunResult], None]) -> SubmittedRun | None:
        """See `DeliveryDispatcher.submit`."""
        self._open(delivery)
        return self._dispatcher.submit(delivery, partial(self._take, delivery, done))

    async def run(self, delivery: Delivery) -> RunResult:
        """See `DeliveryDispatcher.run`."""
        self._open(delivery)
        result = await self._dispatcher.run(delivery)
        self._keep(delivery, result)
        return result

    def slots(self, spec: HandlerSpec) -> int:
        """See `DeliveryDispatcher.slots`."""
        return self._dispatcher.slots(spec)

    def _open(self, delivery: Delivery) -> None:
        held = self._queue.upload_of(delivery)
        if held is not None:
            self._files.register(held.id, self._store.private_file(held))

    def _take(self, delivery: Delivery, done: Callable[[RunResult], None], result: RunResult) -> None:
        self._keep(delivery, result)
        done(result)

    def _keep(self, delivery: Delivery, result: RunResult) -> None:
        self._files.forget(delivery.upload_id or "")
        if result.decision is not None:
            self._queue.keep_decision(delivery, result.decision)
            if (held := self._queue.upload_of(delivery)) is not None:
                self._trials.decided(held.id, result.decision, last=len(held.handlers) == 1)


class HeldDelivery:
    """The runner of the handlers with `hold`, and what carries out their decisions."""

    def __init__(
        self, resources: Resources, dispatcher: DeliveryDispatcher, metrics: RunMetrics
    ) -> None:
        journal, self._decisions = resources.journal, resources.parts.held
        self._journal_queue = journal.queue
        self._specs = resources.hooks.holding_specs
        self._queue = queue = HeldQueue(journal.queue, journal.held_uploads, self._decisions)
        files, trials = resources.scripts.files.private, resources.hooks.shadows.held
        held = HeldDispatcher(dispatcher, queue, self._decisions.store, files, trials)
        self._runner = Runner(queue, held, metrics)
        self._orphans: asyncio.Task[None] | None = None

    def claim_specs(self) -> Sequence[HandlerSpec]:
        """Return the handlers with `hold`: from now on nobody else claims their deliveries."""
        specs = self._specs()
        self._journal_queue.holding = frozenset(spec.name for spec in specs)
        return specs

    async def start(self) -> None:
        """Begin to deliver, and to carry out decisions."""
        await self._decisions.start()
        await self._runner.start(self.claim_specs())
        self._orphans = asyncio.create_task(self._dead_letter_orphans())

    async def refresh(self) -> None:
        """Follow a reload of the plugins."""
        await self._runner.refresh(self.claim_specs())

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for runs, then for what was decided."""
        if self._orphans is not None:
            self._orphans.cancel()
        await self._runner.stop(grace)
        await self._decisions.close()

    async def _dead_letter_orphans(self) -> None:
        """Make dead what waits for a handler that is gone: a reload comes between asking and holding,
        or between one decision and the next, and its own look is over then."""
        while True:
            await asyncio.sleep(ORPHANS_INTERVAL)
            handlers = [spec.name for spec in self._specs()]
            with contextlib.suppress(EventEngineUnavailable):
                if count := await self._queue.dead_letter_orphans(handlers):
                    log.warning(
                        "%d uploads stay held until somebody decides: no plugin has their handler",
                        count,
                        extra=event("delivery.orphaned", count=count),
                    )
