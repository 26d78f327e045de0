"""The doors, put on the resources: what answers uploads, routes, `/-/...` and `/-/events`.

The rule: nothing is decided here; each door is given what it needs and nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from gateway.auth.authenticator import Auth, tokens_of
from gateway.endpoints.admin.events import EventsEndpoint
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.admin.status import MetricsEndpoint, ReadinessEndpoint, UploadStatusEndpoint
from gateway.endpoints.dispatcher import Dispatcher, FileHandlers
from gateway.endpoints.downloads.archive import ArchiveHandler
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.internal_files import InternalFilesEndpoint
from gateway.endpoints.notifications.authentication import NotificationAuthenticator
from gateway.endpoints.notifications.handler import NotificationHandler
from gateway.endpoints.notifications.object_events import NotificationScope
from gateway.endpoints.notifications.processor import (
    NotificationProcessor,
    ObjectEventPublisher,
    UploadOwnership,
)
from gateway.endpoints.notifications.reconcile import PresignedUploadReconciler
from gateway.endpoints.notifications.sns import SnsVerifier
from gateway.endpoints.routing.handler import Routing
from gateway.endpoints.routing.proxy import Proxy
from gateway.endpoints.uploads.admission import Admission
from gateway.endpoints.uploads.handler import UploadHandler
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.endpoints.uploads.socket_receiver import BodyReceiver
from gateway.events.combined_ledger import CombinedLedger
from gateway.events.protocols import Ledger
from gateway.events.remote_ledger import RemoteLedger
from gateway.http.responses import ApiHandler
from gateway.server.resources import Resources
from gateway.settings import is_loopback
from gateway.settings.values import Bucket
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction


@dataclass(slots=True)
class Endpoints:
    """The doors of one process, and what they share."""

    resources: Resources
    metrics: Metrics
    ledgers: Mapping[str, Ledger] = field(default_factory=dict)
    inflight: Inflight = field(default_factory=Inflight)
    body_receiver: BodyReceiver = field(init=False)
    process_clients: ProcessClients = field(init=False)
    proxy: Proxy = field(init=False)
    downloads: DownloadHandler = field(init=False)
    archives: ArchiveHandler = field(init=False)
    stored: InternalFilesEndpoint = field(init=False)
    readiness: ReadinessEndpoint = field(init=False)
    metrics_endpoint: MetricsEndpoint = field(init=False)
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def open(self) -> Dispatcher:
        """Make all doors and the road to them. Nobody comes in yet."""
        resources, process = self.resources, self.resources.process
        self.metrics.gauge("gateway_uploads_active", "Uploads on their way", lambda: len(self.inflight))
        self.process_clients = ProcessClients(resources.settings.state, process.others)
        self.process_clients.start()
        resources.files.saver.store_with_writer(resources.writer)
        self.body_receiver = BodyReceiver(resources.settings.idle_timeout)
        await self.body_receiver.open()
        auth = await self._auth()
        routing = await self._routing(auth)
        self.downloads = DownloadHandler(
            resources.settings,
            auth,
            resources.hooks,
            resources.storage,
            self.metrics,
            resources.process.slot,
        )
        self.archives = ArchiveHandler(self.downloads)
        self.stored = InternalFilesEndpoint(resources.storage, resources.upload_versions, self.downloads)
        return Dispatcher(
            resources.settings,
            auth,
            FileHandlers(self._uploads(auth), self.downloads, self.archives, self.stored),
            routing,
            self._api(routing, await self._notifications(auth)),
            self.metrics,
        )

    async def _auth(self) -> Auth:
        resources, verify = self.resources, None
        if resources.settings.jwt_issuer is not None:
            from gateway.auth.jwt.verifier import Verifier  # most gateways have no use for its libraries

            verifier = await self._opened.enter_async_context(Verifier(resources.settings))
            about = "Whether JSON Web Tokens can be judged"
            self.metrics.gauge("gateway_issuer_ready", about, lambda: verifier.ready)
            verify = verifier.verify
        return Auth(resources.settings, tokens_of(resources.settings), resources.installation, verify)

    async def close(self) -> None:
        """Close what the doors hold towards others."""
        await self._opened.aclose()
        await self.proxy.close()
        await self.process_clients.close()
        self.body_receiver.close()
        await self.archives.close()
        self.downloads.close()

    def _uploads(self, auth: Auth) -> UploadHandler:
        resources, inflight = self.resources, self.inflight
        return UploadHandler(
            Admission(resources.settings, auth, resources.hooks, inflight, resources.one_time_marks),
            resources.writer,
            self.body_receiver,
            UploadOutcomes(inflight, self.metrics, resources.hooks),
            resources.process.slot,
        )

    async def _routing(self, auth: Auth) -> Routing:
        resources = self.resources
        self.proxy = Proxy(auth.trusts)
        await self.proxy.start()
        return Routing(
            resources.settings,
            resources.plugins,
            auth=auth,
            hooks=resources.hooks,
            proxy=self.proxy,
            metrics=self.metrics,
        )

    async def _notifications(self, auth: Auth) -> NotificationHandler:
        """Make the door for notifications, and let the first process look for those that were lost."""
        resources, settings, metrics = self.resources, self.resources.settings, self.metrics
        own = settings.storage if isinstance(settings.storage, Bucket) else None
        processor = NotificationProcessor(
            NotificationScope(own, frozenset(settings.object_buckets)),
            resources.storage,
            resources.presigned_uploads,
            UploadOwnership(resources.installation.marks, resources.journal.outbox),
            ObjectEventPublisher(resources.journal.outbox, resources.hooks),
            metrics,
        )
        if own is not None and resources.process.slot == 0:
            reconcile = PresignedUploadReconciler(
                resources.presigned_uploads,
                processor,
                resources.storage,
                metrics,
                settings.reconcile_after,
            )
            reconcile.start()
            self._opened.push_async_callback(reconcile.stop)
        senders = NotificationAuthenticator(
            resources.notification_secrets, open_here=auth.mode == "none" and is_loopback(settings.host)
        )
        return NotificationHandler(
            senders, processor, SnsVerifier(), self.process_clients.sessions.get(0)
        )

    def _api(self, routing: Routing, notifications: NotificationHandler) -> dict[str, ApiHandler]:
        """Return the handlers of `API_ROUTES`, by endpoint."""
        resources, ledger = self.resources, self.resources.journal.ledger
        backend, processes = resources.object_backend, self.process_clients
        self.readiness = ReadinessEndpoint(
            ledger,
            resources.disk_space,
            resources.hooks,
            None if backend is None else backend.is_reachable,
        )
        self.metrics_endpoint = MetricsEndpoint(
            self.metrics, ledger, processes, resources.process.slot, self.ledgers
        )
        redaction = Redaction(resources.settings.redact)
        return {
            **self.readiness.handlers(),
            **self.metrics_endpoint.handlers(),
            **UploadStatusEndpoint(ledger, self.inflight, resources.hooks, processes).handlers(),
            **EventsEndpoint(ledger, self._gathered(), redaction).handlers(),
            **self.stored.handlers(),
            **notifications.handlers(),
            **routing.handlers(),
        }

    def _gathered(self) -> Ledger:
        """The ledgers of all processes as one."""
        own, sessions = self.resources.journal.ledger, self.process_clients.sessions
        if not sessions and not self.ledgers:
            return own
        parts: dict[int, Ledger] = {self.resources.process.slot: own}
        parts |= {slot: RemoteLedger(session, alone=True) for slot, session in sessions.items()}
        named = {f"slot-{slot}": parts[slot] for slot in sorted(parts)} | dict(self.ledgers)
        return CombinedLedger(lambda: named, (lambda: self.ledgers) if self.ledgers else None)
