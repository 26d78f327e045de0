"""Where every request enters: find its door, answer, count, log. One road, one writer of errors.

The rule: whatever happens behind it, a request ends here with an answer from the error table, or,
where no honest answer exists, with a closed connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from aiohttp import web

from gateway.auth.authenticator import INTERNAL, JWT, SIGNED, Auth
from gateway.auth.links import object_of
from gateway.auth.request import IncomingRequest
from gateway.domain import failpoints, paths
from gateway.domain.model import random_bytes
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.endpoints.admin.events import EventsEndpoint
from gateway.endpoints.admin.status import OPEN_TO_ALL, StatusEndpoint
from gateway.endpoints.downloads.archive import ArchiveHandler, folder_of
from gateway.endpoints.downloads.handler import DownloadHandler
from gateway.endpoints.internal_files import InternalFilesEndpoint
from gateway.endpoints.notifications.handler import NotificationHandler
from gateway.endpoints.routing.handler import Routing
from gateway.endpoints.uploads.handler import UploadHandler
from gateway.errors import ClientDisconnected, Refusal, UnknownOutcome
from gateway.http.cors import SIGNED_URLS, serve_cross_origin
from gateway.http.protocol import UPLOAD_ID, abort
from gateway.http.responses import GatewayResponse, refusal_response
from gateway.settings import Settings
from gateway.telemetry import logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction

log = logging.getLogger("gateway.access")
faults = logging.getLogger("gateway")

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are counted by name; a client's inventions are counted as one."""

LONGEST_LOGGED: Final = 500


@dataclass(slots=True)
class Dispatcher:
    """The road. `stopping` refuses what comes on connections that are still open at the end."""

    settings: Settings
    auth: Auth
    uploads: UploadHandler
    routing: Routing
    observe: StatusEndpoint
    steering: EventsEndpoint
    handing: InternalFilesEndpoint
    notifications: NotificationHandler
    downloads: DownloadHandler
    archives: ArchiveHandler
    metrics: Metrics
    stopping: bool = False
    _serving: int = 0
    _drained: asyncio.Event | None = None
    _template: UploadPathTemplate = field(init=False)
    _redaction: Redaction = field(init=False)

    def __post_init__(self) -> None:
        self._template = UploadPathTemplate.parse(self.settings.file_upload_api_path)
        self._redaction = Redaction(self.settings.redact)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request of the network."""
        self._serving += 1
        try:
            return await self._handle(request, owner=False)
        finally:
            self._serving -= 1
            if self._drained is not None and not self._serving:
                self._drained.set()

    async def drain(self, grace: float) -> None:
        """Wait until no request of the network is being served, `grace` seconds at the most."""
        self._drained = asyncio.Event()
        if not self._serving:
            return
        try:
            async with asyncio.timeout(grace):
                await self._drained.wait()
        except TimeoutError:
            faults.warning("%d requests are cut off: the grace time is over", self._serving)

    async def handle_owner(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request of the owner's Unix socket, which only the operator can open."""
        return await self._handle(request, owner=True)

    async def _handle(self, request: web.BaseRequest, *, owner: bool) -> web.StreamResponse:
        started = time.monotonic()
        request_id = random_bytes(8).hex()
        with logs.bind(request_id=request_id):
            # Not around the line below: clients could hide who they are.
            with logs.hide(partial(self._secrets_of, request)):
                answer = await self._answer_or_refuse(request, owner=owner)
            if answer is None:
                abort(request)
                self._note(request, None, started)
                return web.Response(status=500)
            answer.set_gateway_headers(request_id)
            self._note(request, answer, started)
            with contextlib.suppress(ConnectionError):  # a client that has gone misses its answer
                await answer.send(request)
                failpoints.hit("after answer")
            return answer

    def _secrets_of(self, request: web.BaseRequest) -> list[str]:
        return self._redaction.values(request.headers, request.raw_path.partition("?")[2])

    async def _answer_or_refuse(
        self, request: web.BaseRequest, *, owner: bool
    ) -> GatewayResponse | None:
        """Return the answer, or None where there is no honest one."""
        try:
            return await self._answer(request, owner=owner)
        except Refusal as refusal:
            answer = refusal_response(refusal)
            if request.body_exists:
                answer.force_close()
            return answer
        except ClientDisconnected:
            return None
        except UnknownOutcome as fault:
            faults.error("no answer can be given: %s", fault)
            return None
        except Exception:
            faults.exception("a request broke the server")
            return refusal_response(
                Refusal("internal", "internal server error; the server log has details")
            )

    async def _answer(self, request: web.BaseRequest, *, owner: bool) -> GatewayResponse:
        if self.stopping:
            raise Refusal("stopping", "the gateway is being stopped")
        incoming = IncomingRequest(request)
        raw_path = incoming.raw_path
        if (match := object_of(raw_path)) is not None:
            serve = partial(self._object, incoming, match)
            return await serve_cross_origin(request, SIGNED_URLS, SIGNED_URLS.methods, serve)
        if raw_path.startswith("/-/"):
            return await self._own_page(incoming, owner=owner)
        self.auth.refuse_unknown_proxy(request.headers)
        if request.method in {"GET", "HEAD"} and self.downloads.on:
            folder = folder_of(self._template, incoming)
            if folder is not None:
                return await self.archives.get(incoming, folder)
        match = self._template.match(raw_path)
        if match is None:
            return await self.routing.answer(incoming)
        if request.method in {"GET", "HEAD"} and self.downloads.on:
            return await self.downloads.get(incoming, match)
        if request.method != "PUT":
            allowed = {"Allow": "GET, HEAD, PUT" if self.downloads.on else "PUT"}
            raise Refusal("method_not_allowed", "files are uploaded with PUT", allowed)
        return await self.uploads.put(incoming, match)

    async def _object(self, incoming: IncomingRequest, match: PathMatch) -> GatewayResponse:
        """Serve a stored path to whoever has a signature for it, and to our own kind."""
        request = incoming.request
        self.auth.refuse_unknown_proxy(request.headers)
        caller = await self.auth.authenticate(incoming)
        if caller.principal not in (SIGNED, INTERNAL):
            raise Refusal("forbidden", "only signed URLs are served here")
        if request.method in {"GET", "HEAD"}:
            return await self.downloads.serve(request, match.path, caller.grant)
        if request.method == "DELETE" and caller.principal == INTERNAL:
            return await self.handing.delete_object(request, match.path)
        if request.method != "PUT":
            allowed = {"Allow": "GET, HEAD, PUT"}
            raise Refusal("method_not_allowed", "files are uploaded with PUT", allowed)
        return await self.uploads.put(incoming, match)

    async def _own_page(self, incoming: IncomingRequest, *, owner: bool) -> GatewayResponse:
        request, segments = incoming.request, paths.decode(incoming.raw_path)
        principal: Mapping[str, Any] | None = None
        if segments not in OPEN_TO_ALL and not owner:
            self.auth.refuse_unknown_proxy(request.headers)
            if segments == ("-", "notifications"):
                return await self._notifications(incoming)
            principal = await self._operator(incoming)
        elif segments == ("-", "notifications"):
            return await self.notifications.handle_notifications(request, authorized=True)
        query = incoming.params
        if segments[:2] == ("-", "events"):
            return await self.steering.answer(request, segments, query)
        if segments[:2] == ("-", "files") and len(segments) == 3:
            return await self.handing.serve_upload(request, segments[2], principal)
        if request.method not in {"GET", "HEAD"}:
            raise Refusal("method_not_allowed", "this page is read with GET", {"Allow": "GET, HEAD"})
        return await self.observe.answer(segments, alone=query.get("scope") == ["slot"])

    async def _operator(self, incoming: IncomingRequest) -> Mapping[str, Any] | None:
        """Return the principal of an operator; None: everyone may read these pages. Raises `Refusal`."""
        caller = await self.auth.authenticate(incoming, jwt=self.auth.mode == JWT)
        incoming.reject_unenforceable_grant()
        return self.auth.operator(caller.principal)

    async def _notifications(self, incoming: IncomingRequest) -> GatewayResponse:
        """Let in an object store that is known by its secret, where it is not known otherwise."""
        try:
            known = await self._operator(incoming) is not None
        except Refusal:
            known = False
        return await self.notifications.handle_notifications(incoming.request, authorized=known)

    def _note(self, request: web.BaseRequest, answer: GatewayResponse | None, started: float) -> None:
        """Count and log one request. The query stays out: it may hold a signature."""
        method = request.method if request.method in METHODS else "other"
        status = "none" if answer is None else str(answer.status)
        self.metrics.requests.add(method, status)
        if not log.isEnabledFor(logging.INFO):
            return
        path = request.raw_path.partition("?")[0][:LONGEST_LOGGED]
        facts = {
            "method": request.method[:20],
            "path": path.encode("utf-8", "replace").decode(),
            "status": status,
            "ms": round((time.monotonic() - started) * 1000, 1),
            "remote": self.auth.client_address(request.remote, request.headers),
        }
        if UPLOAD_ID in request:
            facts["upload_id"] = request[UPLOAD_ID]
        log.info("request", extra={"facts": facts})
