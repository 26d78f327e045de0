"""Opens the endpoints that report on one process and its gateway, and those with which operators act."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import NamedTuple

from gateway.auth.authenticator import Auth
from gateway.auth.signed_urls import StoredUrls
from gateway.endpoints.admin.doctor import DoctorEndpoint
from gateway.endpoints.admin.event_stream import EventStreams
from gateway.endpoints.admin.events import EventsEndpoint
from gateway.endpoints.admin.facts import UpstreamRoutes
from gateway.endpoints.admin.held_decisions import HeldDecisionsEndpoint
from gateway.endpoints.admin.live import LiveEndpoint, LiveFeed
from gateway.endpoints.admin.plugins import PluginsEndpoint
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.admin.reload import ReloadEndpoint
from gateway.endpoints.admin.status import MetricsEndpoint, ReadinessEndpoint
from gateway.endpoints.admin.upload_status import UploadStatusEndpoint
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.routing.route_facts import RouteFacts
from gateway.events.combined_ledger import CombinedLedger
from gateway.events.protocols import Ledger
from gateway.events.remote_ledger import RemoteLedger
from gateway.http.responses import ApiHandler
from gateway.server.delivery import EventDelivery
from gateway.server.facts import FactSources, facts_endpoint
from gateway.server.file_endpoints import ExistingFiles, operator_endpoints
from gateway.server.resources import Resources
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction


class OperatorContext(NamedTuple):
    """What these endpoints need of the others of their process."""

    resources: Resources
    delivery: EventDelivery
    metrics: Metrics
    inflight: Inflight
    processes: ProcessClients
    auth: Auth
    urls: StoredUrls
    existing: ExistingFiles
    status: UploadStatusEndpoint


class OperatorApi(NamedTuple):
    """The handlers by endpoint, and parts that the server and tests use."""

    handlers: Mapping[str, ApiHandler]
    metrics_endpoint: MetricsEndpoint
    streams: EventStreams
    reload: ReloadEndpoint


def open_operator_api(
    stack: AsyncExitStack,
    context: OperatorContext,
    upstreams_down: Callable[[], UpstreamRoutes],
    routes: RouteFacts,
) -> OperatorApi:
    """Open the endpoints, until `stack` closes them.

    `upstreams_down` returns the upstreams that get no requests of this process.
    """
    resources, delivery, processes = context.resources, context.delivery, context.processes
    settings, journal, slot = resources.settings, resources.journal, resources.base.state.slot
    space, backend = resources.base.disk.space, resources.parts.backend
    is_reachable = None if backend is None else backend.is_reachable
    ready = ReadinessEndpoint(journal.ledger, space, resources.hooks, is_reachable, processes)
    metrics_endpoint = MetricsEndpoint(
        context.metrics, journal.ledger, journal.held_log, processes, slot, delivery.ledgers
    )
    streams, reload = EventStreams(context.auth.client_of), ReloadEndpoint(processes)
    whole, redaction = _whole_ledger(resources, processes, delivery.ledgers), Redaction(settings.redact)
    inflight, metrics, queue = context.inflight, context.metrics, delivery.queue_name
    sources = FactSources(resources, queue, whole, inflight, metrics, reload, upstreams_down)
    facts = facts_endpoint(sources, processes)
    plugins = PluginsEndpoint(resources.plugins, settings.plugins, reload, routes, processes)
    handlers: dict[str, ApiHandler] = {
        **ready.handlers(),
        **reload.handlers(),
        **metrics_endpoint.handlers(),
        **facts.handlers(),
        **_live_and_doctor(stack, context, streams, whole),
        **plugins.handlers(),
        **operator_endpoints(
            resources,
            context.existing,
            context.urls,
            context.status,
            context.inflight,
            processes,
            streams,
        ),
        **HeldDecisionsEndpoint(resources.parts.held, processes, context.status).handlers(),
        **EventsEndpoint(journal.ledger, whole, redaction, delivery.queue_name).handlers(),
    }
    return OperatorApi(handlers, metrics_endpoint, streams, reload)


def _live_and_doctor(
    stack: AsyncExitStack, context: OperatorContext, streams: EventStreams, whole: Ledger
) -> dict[str, ApiHandler]:
    """Open what shows the running gateway, and what checks it."""
    base, settings = context.resources.base, context.resources.settings
    feed = LiveFeed(base.state.slot, context.inflight, context.metrics, context.processes, whole)
    sampling = asyncio.create_task(feed.sampler.run())
    stack.callback(sampling.cancel)
    _, port = base.shared.address
    doctor = DoctorEndpoint(settings.model_copy(update={"port": port}))
    stack.callback(doctor.stop)
    return {**LiveEndpoint(feed, streams, context.auth).handlers(), **doctor.handlers()}


def _whole_ledger(
    resources: Resources, processes: ProcessClients, ledgers: Mapping[str, Ledger]
) -> Ledger:
    """Return one ledger of all processes and event engines."""
    own, sessions = resources.journal.ledger, processes.sessions
    if not sessions and not ledgers:
        return own
    parts: dict[int, Ledger] = {resources.base.state.slot: own}
    parts |= {slot: RemoteLedger(session, alone=True) for slot, session in sessions.items()}
    names = {f"slot-{slot}": parts[slot] for slot in sorted(parts)}
    return CombinedLedger(
        names | dict(ledgers),
        ledgers or None,
        processes=names,
        unresponsive=lambda: [f"slot-{slot}" for slot in processes.unresponsive()],
        held=lambda: resources.journal.queue.holding,
    )
