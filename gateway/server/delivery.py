"""Delivers events to the handlers of this process: from the journal, or through NATS.

Uploads never wait for it. With NATS every event leaves through the relay and comes back, to this or
to another node, as a delivery of NATS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.domain.addresses import host_port
from gateway.domain.model import Delivery, HandlerSpec
from gateway.endpoints.uploads.event_size import EventSizeLimit
from gateway.errors import HandlerFailed, HandlerGone, Postponed
from gateway.events.dispatch import RunResult, SubmittedRun
from gateway.events.nats import make_engine
from gateway.events.nats.address import address_advice, record_address
from gateway.events.protocols import Depth, Ledger, QueueName
from gateway.events.relay import Relay, RelayContext
from gateway.events.runner import Runner
from gateway.events.settlement import broken_run
from gateway.files.service import FilesService
from gateway.plugins.delivery_runs import DeliveryOutcome
from gateway.plugins.hooks import Hooks
from gateway.server.held import HeldDelivery
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:  # a worker needs no journal
    from gateway.events.nats.engine import NatsEngine
    from gateway.server.resources import Resources

log = logging.getLogger("gateway.relay")
SUCCEEDED: Final = RunResult("succeeded")


class PluginDispatcher:
    """Dispatches deliveries to the handlers of the loaded plugins: a `DeliveryDispatcher`."""

    def __init__(self, hooks: Hooks, files: FilesService) -> None:
        self._hooks = hooks
        self._files = files

    def submit(self, delivery: Delivery, done: Callable[[RunResult], None]) -> SubmittedRun | None:
        """Run the handler on its whole event; None where the file has to be looked for first."""
        event = self._files.event_now(delivery)
        if event is None:
            return None

        def take(outcome: DeliveryOutcome) -> None:
            try:
                result = self._result(delivery, outcome)
            except Exception as broken:  # raised further, the run would never end
                result = broken_run(delivery.handler, broken)
            done(result)

        return self._hooks.submit_delivery(delivery, event, take) or _ENDED

    async def run(self, delivery: Delivery) -> RunResult:
        """Run the handler on its whole event.

        A run that could not connect to the owner of the file is postponed: the handler did not fail.
        """
        event = await self._files.event_for(delivery)
        return self._result(delivery, await self._hooks.run_delivery(delivery, event))

    def slots(self, spec: HandlerSpec) -> int:
        """Return how many runs of a handler may be under way."""
        return self._hooks.delivery_slots(spec)

    def _result(self, delivery: Delivery, outcome: DeliveryOutcome) -> RunResult:
        error, left, decision = outcome
        if error is None:
            nothing = left is None and decision is None
            return SUCCEEDED if nothing else RunResult("succeeded", "", left, decision)
        if isinstance(error, HandlerGone):
            return RunResult("gone", str(error))
        if isinstance(error, Postponed):
            return RunResult("postponed", str(error))
        if isinstance(error, HandlerFailed):
            if (unavailable := self._files.unavailable_owner(delivery, error)) is not None:
                return RunResult("postponed", str(unavailable))
            text = "\n".join(filter(None, (str(error), error.traceback)))
            return RunResult("failed", text, left, retry_after=error.retry_after, final=error.final)
        return broken_run(delivery.handler, error)


class _Ended:
    """A run whose result was given at once."""

    def cancel(self) -> None:
        """Do nothing."""


_ENDED = _Ended()


class EventDelivery:
    """The runner, and with `--events nats://...` also the engine and the relay to it.

    Raises `ConfigError` for credentials that cannot be read.
    """

    def __init__(self, resources: Resources, metrics: Metrics) -> None:
        self._resources = resources
        dispatcher = PluginDispatcher(resources.hooks, resources.scripts.files)
        self._held = HeldDelivery(resources, dispatcher, metrics)
        self.ledgers: Mapping[str, Ledger] = {}
        """The ledgers of event engines beside the journals, by name."""
        self.queue_name = QueueName()
        self._nats: NatsEngine | None = None
        self._relay: Relay | None = None
        if resources.settings.events == "journal":
            self.runner = Runner(resources.journal.queue, dispatcher, metrics)
            return
        self._nats = nats = make_engine(resources.settings, resources.base.node)
        self.ledgers = {"nats": nats.ledger}
        self.queue_name = nats.queue_name
        self._relay = relay = Relay(resources.journal.queue, nats.outbox, _relay_context(resources))
        self.runner = Runner(nats.queue, dispatcher, metrics)
        metrics.gauge(
            "gateway_relay_waiting", "Deliveries not yet relayed to NATS", lambda: relay.waiting
        )
        metrics.gauge("gateway_relay_lag_seconds", "Age of the oldest of them", lambda: relay.lag)
        metrics.gauge("gateway_engine_ready", "Whether NATS can be reached", lambda: nats.ready)

    def event_size_limit(self) -> EventSizeLimit | None:
        """Return the check of uploads whose events the engine could not take; None: it takes all."""
        nats = self._nats
        if nats is None:
            return None
        return EventSizeLimit(self._resources.hooks, lambda: nats.max_event_bytes)

    async def start(self) -> None:
        """Begin to deliver; waits for no server."""
        if self._nats is not None and self._relay is not None:
            await asyncio.to_thread(_warn_of_new_address, self._resources)
            self._held.claim_specs()  # before the relay claims
            self._nats.start()
            self._relay.start()
        await self._held.start()
        await self.runner.start(self._specs())

    async def refresh(self) -> None:
        """Follow a reload of the plugins."""
        await self._held.refresh()
        await self.runner.refresh(self._specs())

    async def stop(self, grace: float) -> None:
        """Claim no more, wait up to `grace` seconds for runs, hand the unfinished ones back."""
        if self._relay is not None:
            await self._relay.stop()
        await asyncio.gather(self.runner.stop(grace), self._held.stop(grace))
        if self._nats is not None:
            await self._nats.close()

    def _specs(self) -> Sequence[Any]:
        return (
            ()
            if self._resources.settings.deliver == "workers"
            else self._resources.hooks.handler_specs()
        )


def _warn_of_new_address(resources: Resources) -> None:
    """Warn where deliveries in NATS may name an earlier address of this gateway."""
    address = host_port(*resources.base.installation.advertised)
    if resources.base.state.slot != 0 or not (
        earlier := record_address(resources.settings.state, address)
    ):
        return
    log.warning(
        "the address in events was %s and is %s now; %s",
        earlier,
        address,
        address_advice(earlier),
        extra=event("address.changed", earlier=earlier, address=address),
    )


def _relay_context(resources: Resources) -> RelayContext:
    async def etags(upload_ids: Sequence[str]) -> Mapping[str, str]:
        versions = await resources.scripts.versions.find(upload_ids)
        return {upload_id: version.etag for upload_id, version in versions.items() if version.etag}

    async def depth() -> Sequence[Depth]:
        held = resources.journal.queue.holding
        return [row for row in await resources.journal.ledger.depth() if row.handler not in held]

    return RelayContext(
        lambda: host_port(*resources.base.installation.advertised),
        resources.base.installation.scheme,
        etags,
        depth,
    )
