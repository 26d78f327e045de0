"""The doors, put on the ground: what answers uploads, routes, `/-/...` and `/-/events`.

The rule: nothing is decided here; each door is given what it needs and nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from gateway.auth.authenticator import Auth, tokens_of
from gateway.domain.model import OBJECT_CREATED
from gateway.endpoints.admin.events import EventsEndpoint
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.admin.status import StatusEndpoint
from gateway.endpoints.dispatcher import Dispatcher
from gateway.endpoints.downloads.archive import ArchiveHandler
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.internal_files import InternalFilesEndpoint
from gateway.endpoints.notifications.authentication import NotificationAuthenticator
from gateway.endpoints.notifications.event_builder import NotificationScope
from gateway.endpoints.notifications.handler import NotificationHandler
from gateway.endpoints.notifications.processor import NotificationProcessor
from gateway.endpoints.notifications.reconcile import PresignedUploadReconciler
from gateway.endpoints.notifications.sns import SnsVerifier
from gateway.endpoints.routing.handler import Routing
from gateway.endpoints.routing.proxy import Proxy
from gateway.endpoints.uploads.admission import Admission
from gateway.endpoints.uploads.file_sink import FileSink
from gateway.endpoints.uploads.handler import UploadHandler
from gateway.endpoints.uploads.object_sink import ObjectSink
from gateway.endpoints.uploads.sink import UploadSink
from gateway.endpoints.uploads.socket_receiver import ReceiverFactory
from gateway.events.combined_ledger import CombinedLedger
from gateway.events.protocols import Ledger
from gateway.events.remote_ledger import RemoteLedger
from gateway.server.resources import Resources
from gateway.settings import is_loopback
from gateway.settings.values import Bucket
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction


@dataclass(slots=True)
class Endpoints:
    """The doors of one process, and what they share."""

    ground: Resources
    metrics: Metrics
    ledgers: Mapping[str, Ledger] = field(default_factory=dict)
    inflight: Inflight = field(default_factory=Inflight)
    roads: ReceiverFactory = field(init=False)
    siblings: ProcessClients = field(init=False)
    proxy: Proxy = field(init=False)
    downloads: DownloadHandler = field(init=False)
    archives: ArchiveHandler = field(init=False)
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def open(self) -> Dispatcher:
        """Make all doors and the road to them. Nobody comes in yet."""
        ground, seat = self.ground, self.ground.seat
        self.metrics.gauge("gateway_uploads_active", "Uploads on their way", lambda: len(self.inflight))
        self.siblings = ProcessClients(ground.settings.state, seat.others)
        self.siblings.start()
        ground.files.saver.store_with_writer(ground.intake())
        self.roads = ReceiverFactory(self.inflight, ground.disk, ground.settings.idle_timeout)
        await self.roads.open()
        auth = await self._auth()
        routing = await self._routing(auth)
        self.downloads = DownloadHandler(
            ground.settings, auth, ground.hooks, ground.shelf, self.metrics, ground.seat.slot
        )
        self.archives = ArchiveHandler(self.downloads)
        return Dispatcher(
            ground.settings,
            auth,
            self._uploads(auth),
            routing,
            self._observe(routing),
            self._steering(),
            InternalFilesEndpoint(ground.shelf, ground.versions, self.downloads),
            await self._notifications(auth),
            self.downloads,
            self.archives,
            self.metrics,
        )

    async def _auth(self) -> Auth:
        ground, verify = self.ground, None
        if ground.settings.jwt_issuer is not None:
            from gateway.auth.jwt.verifier import Verifier  # most gateways have no use for its libraries

            verifier = await self._opened.enter_async_context(Verifier(ground.settings))
            about = "Whether JSON Web Tokens can be judged"
            self.metrics.gauge("gateway_issuer_ready", about, lambda: verifier.ready)
            verify = verifier.verify
        return Auth(ground.settings, tokens_of(ground.settings), ground.installation, verify)

    async def close(self) -> None:
        """Close what the doors hold towards others."""
        await self._opened.aclose()
        await self.proxy.close()
        await self.siblings.close()
        self.roads.close()
        await self.archives.close()
        self.downloads.close()

    def _uploads(self, auth: Auth) -> UploadHandler:
        ground, inflight = self.ground, self.inflight
        store = self._store()
        return UploadHandler(
            Admission(ground.settings, auth, ground.hooks, inflight, store.look, ground.once),
            store,
            hooks=ground.hooks,
            inflight=inflight,
            metrics=self.metrics,
            slot=ground.seat.slot,
        )

    def _store(self) -> UploadSink:
        """Choose, once, how bodies are taken in."""
        ground = self.ground
        if ground.depot is not None:
            return ObjectSink(ground.settings, ground.depot.intake, ground.reserve, ground.disk)
        return FileSink(
            ground.settings,
            ground.tree,
            ground.reserve,
            ground.incoming,
            ground.committer,
            roads=self.roads,
            disk=ground.disk,
        )

    async def _routing(self, auth: Auth) -> Routing:
        ground = self.ground
        self.proxy = Proxy(auth.trusts)
        await self.proxy.start()
        return Routing(
            ground.settings,
            ground.plugins,
            auth=auth,
            hooks=ground.hooks,
            proxy=self.proxy,
            metrics=self.metrics,
        )

    async def _notifications(self, auth: Auth) -> NotificationHandler:
        """Make the door for notifications, and let the first process look for those that were lost."""
        ground, settings, metrics = self.ground, self.ground.settings, self.metrics
        own = settings.storage if isinstance(settings.storage, Bucket) else None
        arrivals = NotificationProcessor(
            NotificationScope(own, frozenset(settings.object_buckets)),
            ground.shelf,
            ground.initiated,
            genuine=ground.installation.marks.is_genuine,
            stored=ground.journal.outbox.knows,
            publish=ground.journal.outbox.publish,
            audience=lambda: ground.hooks.specs(OBJECT_CREATED),
            failed=ground.hooks.failed,
            notices=metrics.notices,
            ends=metrics.initiated,
        )
        if own is not None and ground.seat.slot == 0:
            reconcile = PresignedUploadReconciler(
                ground.initiated, arrivals, ground.shelf, metrics.initiated, settings.reconcile_after
            )
            reconcile.start()
            self._opened.push_async_callback(reconcile.stop)
        senders = NotificationAuthenticator(
            ground.senders, open_here=auth.mode == "none" and is_loopback(settings.host)
        )
        return NotificationHandler(senders, arrivals, SnsVerifier(), self.siblings.sessions.get(0))

    def _observe(self, routing: Routing) -> StatusEndpoint:
        ground = self.ground
        return StatusEndpoint(
            ground.journal.ledger,
            self.inflight,
            ground.reserve,
            ground.hooks,
            self.metrics,
            routing.openapi,
            self.siblings,
            ground.seat.slot,
            self.ledgers,
            None if ground.depot is None else ground.depot.alive,
        )

    def _steering(self) -> EventsEndpoint:
        redaction = Redaction(self.ground.settings.redact)
        return EventsEndpoint(self.ground.journal.ledger, self._gathered(), redaction)

    def _gathered(self) -> Ledger:
        """The ledgers of all processes as one."""
        own, sessions = self.ground.journal.ledger, self.siblings.sessions
        if not sessions and not self.ledgers:
            return own
        parts: dict[int, Ledger] = {self.ground.seat.slot: own}
        parts |= {slot: RemoteLedger(session, alone=True) for slot, session in sessions.items()}
        named = {f"slot-{slot}": parts[slot] for slot in sorted(parts)} | dict(self.ledgers)
        return CombinedLedger(lambda: named, (lambda: self.ledgers) if self.ledgers else None)
