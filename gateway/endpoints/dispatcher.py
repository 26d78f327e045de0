"""Dispatches each request to its endpoint and turns every exception into a response.

`http.responses` writes them. Where no response is true the connection is closed without one.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

from aiohttp import web

from gateway.auth.authenticator import Auth
from gateway.auth.principals import INTERNAL, SIGNED
from gateway.auth.request import IncomingRequest
from gateway.auth.request_ids import request_id
from gateway.auth.signed_urls import match_object_path
from gateway.domain.path_template import PathMatch
from gateway.endpoints.access_log import AccessLog
from gateway.endpoints.cross_origin import CrossOrigin
from gateway.endpoints.file_handlers import FileHandlers
from gateway.endpoints.folders import refuse_folder
from gateway.endpoints.own_api import OwnApi
from gateway.endpoints.routing.handler import Routing
from gateway.endpoints.routing.table import NoRoute
from gateway.endpoints.serving import ServingCount
from gateway.endpoints.short_path import ExchangeContext, ShortExchange, make_take
from gateway.endpoints.uploads.resumable.endpoint import is_resumable, refuse_upload_resource
from gateway.endpoints.uploads.resumable.places import UploadPlace
from gateway.errors import Refusal
from gateway.http.cors import CorsPolicy, preflight_method, preflight_response, set_cors_headers
from gateway.http.protocol import FACTS, RATE_LIMITS, abort, client_certificate
from gateway.http.responses import GatewayResponse, error_response, json_response
from gateway.http.short_request import Take
from gateway.http.tracebacks import drop_tracebacks
from gateway.settings import Settings
from gateway.telemetry import logs, tracing
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.request_facts import API, NO_ROUTE, PREFLIGHT, RequestFacts, endpoint_of

log = logging.getLogger("gateway")

UPLOAD_METHODS: Final = "GET, HEAD, PUT, POST"


UNTRACED: Final = frozenset({"/-/health", "/-/ready", "/-/metrics"})
"""Targets that are asked again and again by machines: a trace of each would tell nothing."""


class Dispatcher:
    """Dispatches requests; `api` serves those below `/-/`. While `stopping`, requests are refused."""

    def __init__(
        self,
        settings: Settings,
        auth: Auth,
        files: FileHandlers,
        routing: Routing,
        api: OwnApi,
        metrics: Metrics,
    ) -> None:
        self.auth = auth
        self.files = files
        self.routing = routing
        self.api = api
        self.metrics = metrics
        self.stopping = False
        self.serving = ServingCount()
        self._redaction = Redaction(settings.redact)
        self._access_log = AccessLog(metrics.requests, auth.proxies, self._redaction)
        self._cross_origin = CrossOrigin(settings)
        self._template = settings.upload_template

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request of the network."""
        self.serving.begin()
        try:
            return await self._handle(request, owner=False)
        finally:
            self.serving.end()

    async def handle_owner(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request of the owner's Unix socket, which only the operator can open."""
        return await self._handle(request, owner=True)

    async def drain(self, grace: float) -> None:
        """Wait until no request of the network is being served, at most `grace` seconds."""
        if not await self.serving.wait_idle(grace):
            message, count = "%d requests are cut off: the grace time is over", self.serving.count
            log.warning(message, count, extra=event("requests.aborted", requests=count))

    # -- a whole small request

    @property
    def take(self) -> Take:
        """What the server offers whole small requests to."""
        shared = self._access_log, self._redaction, self.serving, self.auth.proxies
        return make_take(ExchangeContext(*shared), self._offer)

    def _offer(self, exchange: ShortExchange) -> bool:
        """Offer a request to the endpoint that `_serve` would dispatch it to."""
        head, checks = exchange.head, self.auth.local_only
        if self.stopping or self.auth.presents_link(head.headers):
            return False
        checks.refuse_foreign_host(head.headers)
        checks.refuse_proxy(head.headers)
        raw_path, method = head.raw_path, head.method
        match = None if raw_path == "/" else self._template.match(raw_path)
        if match is None:
            return self.routing.take_short(exchange)
        exchange.facts.route = endpoint_of(method)
        exchange.cors = self._cross_origin.files
        if self.files.resumable is not None and is_resumable(head):
            return False
        if method == "PUT":
            return self.files.uploads.take_short(exchange, match)
        if method == "GET":
            return self.files.downloads.take_short(exchange, match)
        return False

    # -- one request

    async def _handle(self, request: web.BaseRequest, *, owner: bool) -> web.StreamResponse:
        level = logging.DEBUG if owner else logging.INFO
        headers, query = request.headers, request.raw_path.partition("?")[2]
        facts = RequestFacts(request_id(self.auth.proxies, request.remote, headers))
        request[FACTS] = facts
        if not owner and request.raw_path not in UNTRACED:
            facts.begin_span(headers)
        with logs.bind(request_id=facts.request_id, **facts.span.log_fields):
            # Not around the access log: clients could hide who they are. Not with the request itself:
            # connections to upstreams keep this context, and would keep its body.
            with logs.hide(lambda: self._redaction.values(headers, query)), tracing.use(facts.span):
                response = await self._respond(request, facts, owner=owner)
            if response is None:
                abort(request)
                facts.bytes_in = max(facts.bytes_in, request.content.total_bytes)
                self._access_log.record(request, facts, None, level)
                return web.Response(status=500)
            response.set_gateway_headers(facts.request_id)
            await self._access_log.send(response, request, facts, level)
            return response

    async def _respond(
        self, request: web.BaseRequest, facts: RequestFacts, *, owner: bool
    ) -> GatewayResponse | None:
        """Return the response, or None to close the connection without one."""
        policy: CorsPolicy | None = None
        try:
            incoming = IncomingRequest(request, client_certificate(request), owner=owner, facts=facts)
            policy = self._cross_origin.policy(incoming.raw_path, incoming.raw_query)
            response: GatewayResponse | None = await self._dispatch(incoming, policy)
        except Exception as error:
            facts.error = tracing.error_type(error)
            response = error_response(error)
            drop_tracebacks(error)
            if response is not None and request.body_exists:
                response.force_close()
        if response is not None and RATE_LIMITS in request:
            response.headers.update(request[RATE_LIMITS])
        if response is not None and facts.route in {API, NO_ROUTE}:
            raw_path = request.raw_path.partition("?")[0]
            self.api.pages.set_vary(request.method, raw_path, response.headers)
        if response is not None and policy is not None:
            set_cors_headers(request.headers, policy, response.headers)
        return response

    async def _dispatch(self, incoming: IncomingRequest, policy: CorsPolicy | None) -> GatewayResponse:
        """Serve a request; `policy` is that of its path, None for routes. Raises `Refusal`."""
        request = incoming.request
        if self.stopping:
            raise Refusal("stopping", "the gateway is being stopped")
        if not incoming.owner:
            self.auth.local_only.refuse_foreign_host(request.headers)
        if policy is not None and preflight_method(request) is not None:
            incoming.facts.route = PREFLIGHT
            return preflight_response(request, policy, policy.methods)  # it has no credentials
        try:
            return await self._serve(incoming)
        finally:
            if incoming.caller is not None and incoming.caller.principal is not None:
                incoming.facts.note_principal(incoming.caller.principal)

    async def _serve(self, incoming: IncomingRequest) -> GatewayResponse:
        request, raw_path = incoming.request, incoming.raw_path
        self.auth.confine(incoming)
        if (match := match_object_path(raw_path)) is not None:
            incoming.facts.route = endpoint_of(incoming.method)
            return await self._object(incoming, match)
        if raw_path.startswith("/-/"):
            incoming.facts.route = API
            return await self.api.serve(incoming)
        self.auth.local_only.refuse_proxy(request.headers)
        resumable, serve = self.files.resumable, partial(self._serve_path, incoming)
        return await (serve() if resumable is None else resumable.serve(incoming, serve))

    async def _serve_path(self, incoming: IncomingRequest) -> GatewayResponse:
        """Serve an upload path, or a route."""
        incoming.facts.route = endpoint_of(incoming.method)
        response = await self._serve_special(incoming)
        if response is not None:
            return response
        request, raw_path, downloads = incoming.request, incoming.raw_path, self.files.downloads
        try:
            match = None if raw_path == "/" else self._template.match(raw_path)
        except Refusal:
            if request.method in {"GET", "HEAD", "PUT"}:
                raise
            # A WebDAV client begins with PROPFIND of a folder, whose path is none of a file.
            raise _upload_with_put(self.files.allowed_methods) from None
        if match is None:
            return await self._route(incoming)
        if request.method in {"GET", "HEAD"} and downloads.enabled:
            return await downloads.get(incoming, match)
        if request.method != "PUT":
            raise _upload_with_put(self.files.allowed_methods)
        return await self.files.uploads.put(incoming, match)

    async def _serve_special(self, incoming: IncomingRequest) -> GatewayResponse | None:
        """Serve a folder, a form or the removal of a file; None for any other request."""
        method, raw_path, files = incoming.method, incoming.raw_path, self.files
        if method in {"GET", "HEAD"}:
            return await files.folders.get(incoming)
        if method == "POST" and (place := UploadPlace.find(self._template, raw_path)):
            return await files.forms.post(incoming, place)
        if method == "DELETE" and files.deletes.enabled:
            refuse_upload_resource(incoming)
            refuse_folder(self._template, incoming)
            match = None if raw_path == "/" else self._template.match(raw_path)
            return None if match is None else await files.deletes.delete(incoming, match)
        return None

    async def _route(self, incoming: IncomingRequest) -> GatewayResponse:
        """Serve a route. Who looks for the upload path is told where it is."""
        incoming.facts.route = NO_ROUTE
        try:
            return await self.routing.serve_route(incoming)
        except NoRoute:
            usage, method = self._template.usage, incoming.request.method
            page = self.api.pages.page(incoming)
            if page is not None:
                return page
            if incoming.raw_path == "/" and method in {"GET", "HEAD"}:
                return json_response({"message": f"uploads go to {usage}", "docs": self.api.pages.docs})
            if method == "PUT":
                raise Refusal("not_found", f"uploads go to {usage}, not to this path") from None
            raise

    async def _object(self, incoming: IncomingRequest, match: PathMatch) -> GatewayResponse:
        """Serve a stored path to a signed URL, or to a gateway of this installation.

        With `--downloads` files are served to others too, as at their upload paths.
        """
        self.auth.local_only.refuse_proxy(incoming.headers)
        place = UploadPlace(self._template, incoming.raw_path, match, signed_only=True)
        if incoming.method == "POST":
            return await self.files.forms.post(incoming, place, signed_only=True)
        resumable, serve = self.files.resumable, partial(self._stored_path, incoming, match)
        return await (serve() if resumable is None else resumable.serve_signed(incoming, place, serve))

    async def _stored_path(self, incoming: IncomingRequest, match: PathMatch) -> GatewayResponse:
        request = incoming.request
        caller = await self.auth.authenticate(incoming)
        if caller.principal not in (SIGNED, INTERNAL):
            if request.method in {"GET", "HEAD"} and self.files.downloads.enabled:
                return await self.files.downloads.get(incoming, match)
            raise Refusal("forbidden", "only signed URLs are served here")
        if request.method in {"GET", "HEAD"}:
            if self.auth.links is not None:
                self.auth.links.count_download(incoming)
            return await self.files.downloads.serve(incoming, match.path, caller.grant)
        if request.method == "DELETE" and caller.principal == INTERNAL:
            return await self.files.stored.delete_object(request, match.path)
        if request.method != "PUT":
            raise _upload_with_put(UPLOAD_METHODS)
        return await self.files.uploads.put(incoming, match)


def _upload_with_put(allowed: str) -> Refusal:
    return Refusal("method_not_allowed", "files are uploaded with PUT", {"Allow": allowed})
