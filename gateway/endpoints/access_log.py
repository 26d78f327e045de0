"""One log line and one count for each request, whichever path served it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final, Protocol

from aiohttp import web

from gateway.auth.trusted_proxies import Proxies
from gateway.domain import failpoints
from gateway.http.responses import GatewayResponse
from gateway.http.tracebacks import drop_tracebacks
from gateway.telemetry.logs import event
from gateway.telemetry.redaction import REDACTED, Redaction
from gateway.telemetry.request_facts import RequestFacts
from gateway.telemetry.request_metrics import METHODS, RequestMetrics

log = logging.getLogger("gateway.access")

MAX_LOGGED_PATH: Final = 500
"""Characters of a path in the access log."""

MAX_LOGGED_AGENT: Final = 200
"""Characters of a `User-Agent` there."""


OTHER_METHOD: Final = "_OTHER"
"""The `http.request.method` of what is none of `METHODS`."""

ABORTED: Final = "aborted"
"""The `error.type` of a response that ended early."""


class LoggedRequest(Protocol):
    """What is counted and logged of a request."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def raw_path(self) -> str:
        """The target, still encoded; its query is not logged."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers: proxies name the client there."""

    @property
    def remote(self) -> str | None:
        """The address of the peer."""

    @property
    def scheme(self) -> str:
        """`http` or `https`."""


class AccessLog:
    """Counts and logs requests."""

    def __init__(self, metrics: RequestMetrics, proxies: Proxies, redaction: Redaction) -> None:
        self._metrics = metrics
        self._proxies = proxies
        self._redaction = redaction

    def writes(self, level: int = logging.INFO) -> bool:
        """Tell whether a line of this level is written."""
        return log.isEnabledFor(level)

    def record(
        self,
        request: LoggedRequest,
        facts: RequestFacts,
        status: int | None,
        level: int = logging.INFO,
    ) -> None:
        """Count and log one request; `status` is None where there was no response.

        The query is left out: it may hold a signature.
        """
        seconds = time.monotonic() - facts.started
        self._metrics.record(request.method, status, facts.route, seconds)
        if facts.span.recorded:
            self._end_span(request, facts, status)
        if not log.isEnabledFor(level):
            return
        fields: dict[str, object] = {
            "method": request.method[:20],
            "path": _path(request),
            **({} if status is None else {"status": status}),
            "ms": round(seconds * 1000, 1),
            "remote": self._proxies.client_address(request.remote, request.headers),
            "route": facts.route,
        }
        if facts.upstream is not None:
            fields["upstream"] = facts.upstream
        if facts.upstream_seconds is not None:
            fields["upstream_ms"] = round(facts.upstream_seconds * 1000, 1)
        fields["bytes_in"], fields["bytes_out"] = facts.bytes_in, facts.bytes_out
        if facts.principal is not None:
            fields["principal"] = facts.principal
        if facts.upload_id is not None:
            fields["upload_id"] = facts.upload_id
        if (agent := request.headers.get("User-Agent")) is not None:
            fields["user_agent"] = self._without_secrets(agent, request)[:MAX_LOGGED_AGENT]
        if status is None or facts.aborted:
            log.log(level, "request", extra=event("request.aborted", **fields))
        else:
            log.log(level, "request", extra=event("request.answered", **fields))

    async def send(
        self,
        response: GatewayResponse,
        request: web.BaseRequest,
        facts: RequestFacts,
        level: int = logging.INFO,
    ) -> None:
        """Send a response, and record the request: before, or behind a body that streams."""
        facts.bytes_in = max(facts.bytes_in, request.content.total_bytes)
        size = response.whole_bytes()
        if size is not None:
            facts.bytes_out = 0 if request.method == "HEAD" else size
            self.record(request, facts, response.status, level)
            await _send(response, request)
            return
        facts.aborted, complete = False, False
        try:
            complete = await _send(response, request)
        finally:
            facts.bytes_in = max(facts.bytes_in, request.content.total_bytes)
            facts.aborted |= not complete
            self.record(request, facts, response.status, level)

    def _end_span(self, request: LoggedRequest, facts: RequestFacts, status: int | None) -> None:
        """End the span of a request, with the attributes of OpenTelemetry's conventions for HTTP.

        Clients name the reason of a refusal below 500: it is no error of the span.
        """
        agent = request.headers.get("User-Agent", "")
        attributes: dict[str, str | int | float | bool | None] = {
            "http.request.method": request.method if request.method in METHODS else OTHER_METHOD,
            "url.scheme": request.scheme,
            "url.path": self._without_secrets(_path(request), request),
            "http.route": facts.route,
            "http.response.status_code": status,
            "client.address": self._proxies.client_address(request.remote, request.headers),
            "user_agent.original": self._without_secrets(agent, request)[:MAX_LOGGED_AGENT] or None,
            "gateway.request_id": facts.request_id,
            "gateway.upload_id": facts.upload_id,
            "gateway.principal.kind": facts.principal_kind,
        }
        span, failed = facts.span, status is None or status >= 500 or facts.aborted
        span.set({name: value for name, value in attributes.items() if value is not None})
        if failed or facts.error is not None:
            span.fail(facts.error or (ABORTED if facts.aborted else str(status)), is_error=failed)
        span.end()

    def _without_secrets(self, text: str, request: LoggedRequest) -> str:
        """Return a text of a request without what the same request names as a secret."""
        for secret in self._redaction.values(request.headers, request.raw_path.partition("?")[2]):
            text = text.replace(secret, REDACTED)
        return _encodable(text)


async def _send(response: GatewayResponse, request: web.BaseRequest) -> bool:
    """Send a response; tell whether the client was there to the end."""
    try:
        await response.send(request)
    except ConnectionError as error:
        drop_tracebacks(error)
        return False
    failpoints.hit("after answer")
    return True


def _path(request: LoggedRequest) -> str:
    return _encodable(request.raw_path.partition("?")[0][:MAX_LOGGED_PATH])


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
