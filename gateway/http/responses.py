"""Responses: how each one sends itself, and what a client reads of an error.

Errors are written here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, cast

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import _serialize_headers
from aiohttp.web_response import REASON_PHRASES
from multidict import CIMultiDict

from gateway.auth.request import IncomingRequest
from gateway.errors import ClientDisconnected, Refusal, Terminated, UnknownOutcome, descriptor_refusal
from gateway.http.socket_turns import duplicate_tcp_socket
from gateway.http.tracebacks import drop_tracebacks
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.http")
server_log = logging.getLogger("gateway")

SERVER: Final = "upload-gateway"

MAX_DRAIN_BYTES: Final = 256 << 20
DRAIN_TIMEOUT: Final = 10.0
"""Seconds that we wait for what a client still sends of a body that is not read."""

SHORT_DRAIN_TIMEOUT: Final = 2.0
"""The same for a client that waits for us: it has hardly anything on its way."""

DETACHED: Final = web.RequestKey("detached", bool)
"""Set on a request whose socket was detached: its connection serves no other request."""

_DRAIN_CHUNK_BYTES: Final = 64 << 10
_WITHOUT_BODY: Final = frozenset({204, 304})
"""Statuses whose responses have neither a body nor its length (RFC 9110 section 8.6)."""

_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {reason}" for status, reason in REASON_PHRASES.items()
}

encode_json_string: Final = json.encoder.encode_basestring
"""Returns a text as JSON, in UTF-8 where it is not ASCII."""


class GatewayResponse(web.StreamResponse):
    """A response that sends itself. Every endpoint returns one."""

    def set_gateway_headers(self, request_id: str) -> None:
        """Set the headers that the gateway gives to each response."""
        set_gateway_headers(self.headers, request_id)

    async def send(self, request: web.BaseRequest, *, close: bool = False) -> None:
        """Send headers and body. Raises `ConnectionError` if the client has disconnected.

        Where bytes of the request's body are unread, the connection is closed behind the response,
        after a bounded drain: closing over unread bytes would reset it, and the client would lose
        the response.
        """
        detached, closes = DETACHED in request, close or self._closes_connection(request)
        if detached or closes:
            self.force_close()
        try:
            await self.prepare(request)
            await self.write_eof()
        finally:
            self.release_body()
        if detached:
            await self._drain_detached(request)
        elif closes:
            await self._drain_unread(request)

    def call_at_end(self, callback: Callable[[], None]) -> None:
        """Call this once the response needs nothing of its endpoint any more: here, at once."""
        callback()

    def release_body(self) -> None:
        """Let go of a body in memory: aiohttp keeps a response until its connection's next request."""

    def whole_bytes(self) -> int | None:
        """Return the length of a body that is here as a whole; None for one that streams.

        What streams adds what it sends to `RequestFacts.bytes_out`.
        """
        return None

    def _closes_connection(self, request: web.BaseRequest) -> bool:
        """Tell whether the connection cannot serve another request: an error stops its body."""
        return is_unread(request) or (self.status >= 400 and request.body_exists)

    async def _drain_unread(self, request: web.BaseRequest) -> None:
        client_waits = "Expect" in request.headers
        if client_waits and request.transport is not None and request.transport.can_write_eof():
            # It need not sit out our drain to see that nothing more will come.
            request.transport.write_eof()
        remaining = MAX_DRAIN_BYTES
        try:
            async with asyncio.timeout(SHORT_DRAIN_TIMEOUT if client_waits else DRAIN_TIMEOUT):
                while remaining > 0 and not request.content.at_eof():
                    remaining -= len(await request.content.readany())
        except Exception as error:  # broken, slow or disconnected: the response was sent
            log.debug("drain ended: %r", error, extra=event("drain.ended"))
            drop_tracebacks(error)

    async def _drain_detached(self, request: web.BaseRequest) -> None:
        """Wait until the client closes too; aiohttp does not read from a detached socket."""
        transport = request.transport
        if transport is None or transport.is_closing():
            return
        connection = duplicate_tcp_socket(transport)
        if connection is None:
            return
        transport.write_eof()
        client_waits = self.status < 400 or "Expect" in request.headers
        with connection, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(SHORT_DRAIN_TIMEOUT if client_waits else DRAIN_TIMEOUT):
                await _drain_socket(connection)


ApiHandler = Callable[[IncomingRequest], Awaitable[GatewayResponse]]
"""Serves the requests of one endpoint, or raises `Refusal`."""


async def _drain_socket(connection: socket.socket) -> None:
    loop, buffer = asyncio.get_running_loop(), bytearray(_DRAIN_CHUNK_BYTES)
    remaining = MAX_DRAIN_BYTES
    while remaining > 0 and (size := await loop.sock_recv_into(connection, buffer)):
        remaining -= size


def is_unread(request: web.BaseRequest) -> bool:
    """Tell whether bytes of this request may still be on their way."""
    return not request.content.is_eof()


class SmallResponse(NamedTuple):
    """A response as plain data, for the short path; it is used once: encoding adds to `headers`."""

    status: int
    headers: MutableMapping[str, str]
    content: bytes


def encode_response(response: SmallResponse, *, close: bool = False) -> bytes:
    """Return head and body of a response to HTTP/1.1, to the byte as aiohttp would send it.

    Raises `ValueError` for a header that contains a line break.
    """
    status, headers, content = response
    if status not in _WITHOUT_BODY:
        headers["Content-Length"] = str(len(content))
    headers["Date"] = rfc822_formatted_time()
    if close:
        headers.setdefault("Connection", "close")
    status_line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} "
    return _serialize_headers(status_line, cast(CIMultiDict[str], headers)) + content


def set_gateway_headers(headers: MutableMapping[str, str], request_id: str) -> None:
    """Set the headers that the gateway gives to each response."""
    headers["X-Request-Id"] = request_id
    headers["Server"] = SERVER
    headers["X-Content-Type-Options"] = "nosniff"


class Response(GatewayResponse, web.Response):
    """A response whose body is in memory."""

    def small(self) -> SmallResponse:
        """Return the same as plain data."""
        return SmallResponse(self.status, self.headers, cast(bytes | None, self._body) or b"")

    def whole_bytes(self) -> int | None:
        """Return the length of the body."""
        return len(cast(bytes | None, self._body) or b"")

    def release_body(self) -> None:
        """Let go of the body, which is sent or will never be."""
        self._body = self._compressed_body = None


def json_response(body: Any, status: int = 200) -> Response:
    """Return `body` as JSON."""
    text = json.dumps(body, ensure_ascii=False, default=str) + "\n"
    # "replace": a text of a request may hold what UTF-8 cannot have.
    content = text.encode(errors="replace")
    return Response(status=status, body=content, content_type="application/json", charset="utf-8")


def refusal_response(refusal: Refusal) -> Response:
    """Return the response to a refusal: an error of the table, or what a handler's `terminate` gave."""
    if isinstance(refusal, Terminated):
        response = Response(status=refusal.status, body=refusal.body)
        response.headers["Content-Type"] = refusal.content_type
    else:
        response = json_response(_members(refusal), refusal.status)
    return _with_headers(response, refusal)


def problem_response(
    refusal: Refusal, problem_type: str, title: str, members: Mapping[str, object]
) -> Response:
    """Return an error of the table as a problem of a registered type, with its members (RFC 9457)."""
    problem = {"type": problem_type, "title": title, "status": refusal.status, "detail": refusal.message}
    response = json_response({**problem, **members, **_members(refusal)}, refusal.status)
    response.headers["Content-Type"] = "application/problem+json"
    return _with_headers(response, refusal)


def _members(refusal: Refusal) -> dict[str, object]:
    body: dict[str, object] = {"error": refusal.code, "message": refusal.message, **refusal.details}
    if refusal.upload_id is not None:
        body["upload_id"] = refusal.upload_id
    return body


def _with_headers(response: Response, refusal: Refusal) -> Response:
    response.headers.update(refusal.headers)
    if refusal.headers.get("Connection") == "close":
        response.force_close()
    return response


def error_response(error: Exception) -> Response | None:
    """Return the response to what an endpoint raised; None: the connection is closed without one."""
    if isinstance(error, Refusal):
        return refusal_response(error)
    if isinstance(error, ClientDisconnected):
        return None
    if isinstance(error, UnknownOutcome):
        message = "closing connection without a response: outcome of the upload is unknown: %s"
        server_log.error(message, error, extra=event("upload.unknown"))
        return None
    if (refusal := descriptor_refusal(error)) is not None:
        server_log.error("a request was refused: %s", error, extra=event("descriptors.exhausted"))
        return refusal_response(refusal)
    server_log.error("a request failed", exc_info=error, extra=event("request.failed"))
    message = "internal server error; the server log has details under this X-Request-Id"
    return refusal_response(Refusal("internal", message))
