"""Opens the endpoints of one process and gives each what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from gateway.auth.authenticator import Auth
from gateway.auth.installation import public_url
from gateway.auth.signed_urls import StoredUrls
from gateway.commit.disk import DiskSpace
from gateway.commit.local_writer import LocalWriter
from gateway.commit.quotas.writer import QuotaWriter
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.admin.upload_status import UploadStatusEndpoint
from gateway.endpoints.console.handler import PagesEndpoint
from gateway.endpoints.dispatcher import Dispatcher
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.file_handlers import FileHandlers
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.notifications.handler import NotificationAuthenticator, NotificationHandler
from gateway.endpoints.notifications.object_events import NotificationScope
from gateway.endpoints.notifications.processor import (
    NotificationProcessor,
    ObjectEventPublisher,
    UploadOwnership,
)
from gateway.endpoints.notifications.reconcile import PresignedUploadReconciler
from gateway.endpoints.notifications.sns import SnsVerifier
from gateway.endpoints.own_api import OwnApi
from gateway.endpoints.routing.handler import Routing
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.endpoints.routing.scripts.steps import ScriptSteps
from gateway.endpoints.routing.steps.in_flight import RouteCounters
from gateway.endpoints.routing.steps.route_steps import RouteSteps
from gateway.endpoints.routing.websocket.websockets import WebSockets
from gateway.endpoints.uploads.admission import Admission
from gateway.endpoints.uploads.body import BodyReceiver
from gateway.endpoints.uploads.decision import ReceivedDecisions
from gateway.endpoints.uploads.form import FormHandler
from gateway.endpoints.uploads.handler import UploadHandler
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.endpoints.uploads.received_shadows import ReceivedShadows
from gateway.endpoints.uploads.resumable.endpoint import ResumableEndpoint
from gateway.endpoints.uploads.resumable.release import ReleaseEndpoint
from gateway.endpoints.uploads.resumable.service import ResumableUploads
from gateway.endpoints.uploads.short_put import ShortUploads
from gateway.http.cors import CorsPolicy
from gateway.http.responses import ApiHandler
from gateway.limits import MinRate
from gateway.server.authentication import open_authentication
from gateway.server.delivery import EventDelivery
from gateway.server.file_endpoints import open_existing_files
from gateway.server.links import open_links
from gateway.server.operator_api import OperatorApi, OperatorContext, open_operator_api
from gateway.server.quotas import upload_rates
from gateway.server.resources import Resources
from gateway.server.resumable import ResumableContext, open_resumable
from gateway.settings import Settings, is_loopback
from gateway.settings.values import Bucket
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction


@dataclass(slots=True, frozen=True)
class Endpoints:
    """The dispatcher of one process, and parts of it that tests inspect."""

    dispatcher: Dispatcher
    inflight: Inflight
    body_receiver: BodyReceiver
    downloads: DownloadHandler
    operators: OperatorApi


async def open_endpoints(
    stack: AsyncExitStack, resources: Resources, metrics: Metrics, delivery: EventDelivery
) -> Endpoints:
    """Open the endpoints on this event loop; `stack` closes them. No request is accepted yet."""
    settings, hooks, slot = resources.settings, resources.hooks, resources.base.state.slot
    inflight = Inflight()
    _add_gauges(metrics, inflight, resources.base.disk.space)
    processes = _other_processes(resources)
    stack.push_async_callback(processes.close)
    processes.start()
    resources.scripts.files.saver.store_with_writer(resources.parts.writer)
    body_receiver = BodyReceiver(settings.idle_timeout, MinRate(settings.min_rate))
    await body_receiver.open()
    stack.callback(body_receiver.close)
    auth, sign_in = await open_authentication(stack, resources, metrics)
    routing = await _open_routing(stack, resources, auth, metrics)
    urls = StoredUrls(settings.upload_template, public_url(settings, resources.base.installation.own))
    existing = open_existing_files(stack, resources, auth, metrics, urls)
    admission = _admission(resources, auth, inflight, delivery, metrics)
    outcomes, writer = UploadOutcomes(inflight, metrics, hooks, urls), resources.quotas.writer
    shadows = _received_shadows(resources)
    short = _short_uploads(admission, writer, outcomes, slot, shadows)
    decisions = ReceivedDecisions(admission, resources.scripts.files, shadows)
    uploads = UploadHandler(admission, writer, body_receiver, outcomes, slot, short, decisions)
    notifications = _open_notifications(stack, resources, auth, metrics, processes)
    ledger, kept = resources.journal.ledger, resources.parts.partials
    status = UploadStatusEndpoint(ledger, inflight, hooks, processes, delivery.ledgers, kept)
    context = ResumableContext(admission, body_receiver, outcomes, decisions, processes, status.find)
    partials = open_resumable(stack, resources, context)
    operators = open_operator_api(
        stack,
        OperatorContext(resources, delivery, metrics, inflight, processes, auth, urls, existing, status),
        routing.upstreams_down,
        routing.facts(),
    )
    pages = PagesEndpoint(settings)
    handlers: dict[str, ApiHandler] = {
        **operators.handlers,
        **ReleaseEndpoint(None if partials is None else partials.requests.running).handlers(),
        **notifications.handlers(),
        **routing.handlers(),
        **pages.handlers(),
        **sign_in,
        **open_links(stack, resources, auth, urls, existing),
    }
    resumable = None if partials is None else _resumable(partials, settings, auth, urls)
    files = FileHandlers(uploads, FormHandler(uploads, settings), *existing, resumable)
    api = OwnApi(auth, handlers, pages)
    dispatcher = Dispatcher(settings, auth, files, routing, api, metrics)
    return Endpoints(dispatcher, inflight, body_receiver, existing.downloads, operators)


def _resumable(
    partials: ResumableUploads, settings: Settings, auth: Auth, urls: StoredUrls
) -> ResumableEndpoint:
    return ResumableEndpoint(partials, settings.upload_template, auth.proxies, urls)


def _received_shadows(resources: Resources) -> ReceivedShadows:
    settings = resources.settings
    directory = settings.directory if settings.storage == "file" else None
    redaction = Redaction(settings.redact)
    return ReceivedShadows(resources.hooks.shadows, resources.scripts.files, redaction, directory)


def _short_uploads(
    admission: Admission,
    writer: QuotaWriter,
    outcomes: UploadOutcomes,
    slot: int,
    shadows: ReceivedShadows,
) -> ShortUploads | None:
    """Return the uploads of the short path, None where the storage is not the local disk."""
    local = writer.inner
    if not isinstance(local, LocalWriter):
        return None
    return ShortUploads(admission, local, writer, outcomes, slot, shadows)


def _add_gauges(metrics: Metrics, inflight: Inflight, space: DiskSpace) -> None:
    metrics.gauge("gateway_uploads_active", "Uploads in progress", lambda: len(inflight))
    metrics.gauge(
        "gateway_disk_reserved_bytes", "Bytes kept free for uploads in progress", lambda: space.reserved
    )
    metrics.gauge(
        "gateway_disk_free_bytes", "Bytes that can be written to the disk", _if_readable(space.free)
    )
    metrics.gauge("gateway_disk_size_bytes", "Size of the file system", _if_readable(space.size))


def _if_readable(read: Callable[[], int]) -> Callable[[], float]:
    """Return what reads the same, and NaN where the file system fails: a scrape goes on."""

    def read_or_nan() -> float:
        try:
            return read()
        except OSError:
            return math.nan

    return read_or_nan


def _other_processes(resources: Resources) -> ProcessClients:
    settings, health = resources.settings, resources.base.shared.health
    slots = {*range(settings.processes)} - {resources.base.state.slot}
    return ProcessClients(settings.state, sorted(slots), lambda: health.unresponsive)


def _admission(
    resources: Resources, auth: Auth, inflight: Inflight, delivery: EventDelivery, metrics: Metrics
) -> Admission:
    marks, limit = resources.base.state.one_time_marks, delivery.event_size_limit()
    counters, exceeded = resources.base.shared.rate_counters, metrics.quota_refusals.add
    resources.quotas.quotas.exceeded = exceeded
    rates = upload_rates(resources.quotas, resources.settings, counters, exceeded)
    return Admission(resources.settings, auth, resources.hooks, inflight, marks, limit, rates)


async def _open_routing(
    stack: AsyncExitStack, resources: Resources, auth: Auth, metrics: Metrics
) -> Routing:
    proxy = Proxy(
        lambda request: auth.proxies.believes(request.remote, request.headers), metrics.requests
    )
    await proxy.start()
    stack.push_async_callback(proxy.close)
    origins, plugins = resources.settings.cors_origins, resources.plugins
    scripts = ScriptSteps(resources.hooks.run_script, plugins.mask, proxy.fetch_whole)
    default_cors = CorsPolicy(origins) if origins else None
    shared, slot = resources.base.shared, resources.base.state.slot
    counters = RouteCounters(shared.rate_counters, shared.in_flight, slot)
    websockets = WebSockets(proxy, default_cors)
    metrics.labelled_gauge(
        "gateway_websockets", "Open WebSocket connections", ("route",), lambda: websockets.counts
    )
    steps = RouteSteps(auth, scripts, websockets, default_cors, metrics, counters)
    metrics.labelled_gauge(
        "gateway_upstream_up",
        "0 while an upstream is suspended or its probes fail, else 1",
        ("route", "upstream"),
        proxy.upstreams.up,
    )
    routing = Routing(resources.settings, plugins, auth, steps, proxy, websockets)
    routing.follow_table()
    return routing


def _open_notifications(
    stack: AsyncExitStack, resources: Resources, auth: Auth, metrics: Metrics, processes: ProcessClients
) -> NotificationHandler:
    """Make the endpoint of notifications; the first process also looks for lost ones."""
    settings, outbox = resources.settings, resources.journal.outbox
    bucket = settings.storage if isinstance(settings.storage, Bucket) else None
    processor = NotificationProcessor(
        NotificationScope(bucket, frozenset(settings.object_buckets)),
        resources.parts.storage,
        resources.scripts.presigned_uploads,
        UploadOwnership(resources.base.installation.marks, outbox),
        ObjectEventPublisher(outbox, resources.hooks),
        metrics,
    )
    if bucket is not None and resources.base.state.slot == 0:
        reconciler = PresignedUploadReconciler(
            resources.scripts.presigned_uploads,
            processor,
            resources.parts.storage,
            metrics,
            settings.reconcile_after,
        )
        reconciler.start()
        stack.push_async_callback(reconciler.stop)
    open_here = auth.mode == "none" and is_loopback(settings.host)
    authenticator = NotificationAuthenticator(resources.notification_secrets, open_here=open_here)
    return NotificationHandler(
        authenticator, processor, SnsVerifier(), auth.client_of, processes.sessions.get(0)
    )
