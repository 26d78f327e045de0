"""Offers whole small requests to the endpoints that can serve them at once (`http.short_path`).

An endpoint takes a request before any side effect, or leaves it to the ordinary path, which refuses it,
waits for something, or serves what is rare. Both paths call the same plain functions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from gateway.auth.request import RequestHead
from gateway.auth.request_ids import request_id
from gateway.auth.trusted_proxies import Proxies
from gateway.domain import failpoints
from gateway.endpoints.access_log import AccessLog
from gateway.endpoints.serving import ServingCount
from gateway.http.cors import CorsPolicy, set_cors_headers
from gateway.http.protocol import FACTS, abort
from gateway.http.responses import (
    GatewayResponse,
    SmallResponse,
    encode_response,
    error_response,
    set_gateway_headers,
)
from gateway.http.short_request import ShortRequest
from gateway.http.tracebacks import drop_tracebacks
from gateway.telemetry import logs, tracing
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.request_facts import RequestFacts

API_PREFIX: Final = "/-/"


class ExchangeContext:
    """What all exchanges of a process share."""

    def __init__(
        self, access_log: AccessLog, redaction: Redaction, serving: ServingCount, proxies: Proxies
    ) -> None:
        self.access_log = access_log
        self.proxies = proxies
        self.redaction = redaction
        self.serving = serving


class LogContext:
    """Enters the blocks of a request's log lines and span; an `ExitStack` takes twice as long."""

    __slots__ = ("_bind", "_hide", "_use")

    def __init__(self, bind: logs.bind, hide: logs.hide, use: tracing.use) -> None:
        self._bind = bind
        self._hide = hide
        self._use = use

    def __enter__(self) -> None:
        self._bind.__enter__()
        self._hide.__enter__()
        self._use.__enter__()

    def __exit__(self, *error: object) -> None:
        self._use.__exit__(*error)
        self._hide.__exit__(*error)
        self._bind.__exit__(*error)


class ShortExchange:
    """One request that an endpoint may take: `begin`, then exactly one of `respond` and `fail`.

    `facts` and `log_fields` go into the access line, as the caller of `head` does; `cors` is the policy
    of an endpoint for files, `rate_headers` tell what is left of rates.
    """

    __slots__ = (
        "_context", "_request", "begun", "cors", "facts", "head", "log_fields", "rate_headers",
    )  # fmt: skip

    def __init__(self, context: ExchangeContext, request: ShortRequest) -> None:
        self._context = context
        self._request = request
        headers, remote = request.headers, request.remote
        self.facts = RequestFacts(request_id(context.proxies, remote, headers))
        self.cors: CorsPolicy | None = None
        self.log_fields: Mapping[str, object] = logs.NO_FIELDS
        self.rate_headers: Mapping[str, str] | None = None
        self.begun = False
        self.head = RequestHead(request.method, request.raw_path, headers, remote, facts=self.facts)
        self.head.certificate = request.certificate

    @property
    def request(self) -> ShortRequest:
        """The request on its connection."""
        return self._request

    @property
    def body(self) -> bytes:
        """The whole body, until `begin`."""
        return self._request.body

    @property
    def disconnected(self) -> bool:
        """Whether the client has disconnected."""
        return self._request.disconnected

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once the client disconnects; return what ends that."""
        return self._request.on_disconnect(callback)

    def context(self) -> LogContext:
        """Bind the log fields and the span of the request, and hide its secrets, around what may log."""
        facts = self.facts
        fields = {"request_id": facts.request_id, **facts.span.log_fields}
        if facts.upload_id is not None:
            fields["upload_id"] = facts.upload_id
        headers, query, redaction = self.head.headers, self.head.raw_query, self._context.redaction
        hide = logs.hide(lambda: redaction.values(headers, query))
        return LogContext(logs.bind(**fields), hide, tracing.use(facts.span))

    def begin(self) -> None:
        """Take the request."""
        self.begun = True
        self.facts.bytes_in = self._request.body_bytes
        self.facts.begin_span(self._request.headers)
        self._context.serving.begin()
        self._request.begin()

    def respond(self, response: SmallResponse, *, close: bool = False) -> None:
        """Send a response, and count and log the request."""
        if self.cors is not None:
            set_cors_headers(self.head.headers, self.cors, response.headers)
        if self.rate_headers is not None:
            response.headers.update(self.rate_headers)
        set_gateway_headers(response.headers, self.facts.request_id)
        self._record(response.status, len(response.content))
        try:
            content = encode_response(response, close=close)
        except ValueError as error:  # a header that a script or an upstream wrote
            self._abort(error)
            return
        self._request.end(content, close=close)
        failpoints.hit("after answer")
        self._context.serving.end()

    def send(self, status: int, response: bytes, size: int) -> None:
        """Send a response that is encoded already, with a body of `size`; count and log the request."""
        self._record(status, size)
        self._request.end(response)
        failpoints.hit("after answer")
        self._context.serving.end()

    def hand_over(
        self, respond: Callable[[web.BaseRequest], Awaitable[GatewayResponse]], drop: Callable[[], None]
    ) -> None:
        """Let the ordinary path send the response of `respond`: it is not small, or it is slow.

        `drop` is called instead if the client disconnects first, as it may once its task is scheduled.
        """
        lost = False

        def dropped() -> None:
            nonlocal lost
            lost = True
            drop()
            self._record(None)
            self._context.serving.end()

        async def send(request: web.BaseRequest) -> web.StreamResponse:
            forget()
            if lost:
                return web.Response(status=500)  # no client is left
            try:
                return await self._send_ordinary(request, respond)
            finally:
                self._context.serving.end()

        forget = self.on_disconnect(dropped)
        self._request.hand_over(send)

    async def _send_ordinary(
        self,
        request: web.BaseRequest,
        respond: Callable[[web.BaseRequest], Awaitable[GatewayResponse]],
    ) -> web.StreamResponse:
        request[FACTS] = self.facts
        with self.context():
            try:
                response: GatewayResponse | None = await respond(request)
            except Exception as error:
                self.facts.error = tracing.error_type(error)
                response = error_response(error)
                drop_tracebacks(error)
                if response is not None and request.body_exists:
                    response.force_close()
        if response is None:
            self._record(None)
            abort(request)
            return web.Response(status=500)
        self._note_principal()
        response.set_gateway_headers(self.facts.request_id)
        with self._access_fields():
            await self._context.access_log.send(response, request, self.facts)
        return response

    def fail(self, error: Exception) -> None:
        """Send the response to an error; close the connection without one where none is true."""
        self.facts.error = tracing.error_type(error)
        with self.context():
            response = error_response(error)
        drop_tracebacks(error)
        if response is None:
            self._record(None)
            self._request.end(None)
            self._context.serving.end()
            return
        self.respond(response.small(), close=self._request.body_exists)

    def _abort(self, error: Exception) -> None:
        with self.context():
            error_response(error)
        self._request.end(None)
        self._context.serving.end()

    def _record(self, status: int | None, size: int = 0) -> None:
        self.facts.bytes_out = size
        self._note_principal()
        access_log = self._context.access_log
        if not access_log.writes():
            access_log.record(self._request, self.facts, status)
            return
        with self._access_fields():
            access_log.record(self._request, self.facts, status)

    def _access_fields(self) -> logs.bind:
        facts = self.facts
        return logs.bind(request_id=facts.request_id, **facts.span.log_fields, **self.log_fields)

    def _note_principal(self) -> None:
        if self.head.caller is not None and self.head.caller.principal is not None:
            self.facts.note_principal(self.head.caller.principal)


Offer = Callable[[ShortExchange], bool]
"""Takes an exchange, or leaves it. Raises `Refusal` for what the ordinary path refuses."""


def make_take(context: ExchangeContext, offer: Offer) -> Callable[[ShortRequest], bool]:
    """Return the `Take` of a server. What is refused before an endpoint has taken it is left."""

    def take(request: ShortRequest) -> bool:
        if request.raw_path.startswith(API_PREFIX):
            return False
        exchange = None
        try:
            exchange = ShortExchange(context, request)
            return offer(exchange)
        except Exception as error:
            if exchange is None or not exchange.begun:
                return False  # the ordinary path meets it again, and answers
            exchange.fail(error)
            return True

    return take
