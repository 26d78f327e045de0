"""The HTTP/1 server, on aiohttp's low-level one.

One handler gets every request right after its headers: nothing is routed or read, and no
`100 Continue` is sent, before it decides (aiohttp's own application would do all three).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from aiohttp import HttpVersion10, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from gateway.errors import ConfigError, Refusal
from gateway.http import connection
from gateway.http.ambiguity import HTTP_VERSIONS, find_ambiguity
from gateway.http.connection import ClientConnection
from gateway.http.limits import ConnectionLimits
from gateway.http.refused_request import refuse_request
from gateway.http.short_path import ShortPathConnection
from gateway.http.short_request import Take
from gateway.http.tracebacks import drop_tracebacks
from gateway.telemetry.request_facts import RequestFacts

log = logging.getLogger("gateway.http")

READ_BUFFER_BYTES: Final = 512 << 10
MAX_LINE_BYTES: Final = 2 << 20
KEEP_ALIVE_TIMEOUT: Final = 75.0
"""Seconds that an idle connection, or one that never sends a request, is kept."""

FACTS: Final = web.RequestKey("facts", RequestFacts)
"""What is told of a request when it has ended; see `facts_of`."""

RATE_LIMITS: Final = web.RequestKey("rate_limits", dict[str, str])
"""Headers of its response that tell what is left of rates."""

DEFAULT_LIMITS: Final = ConnectionLimits()

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Server(web.Server):
    """Makes connections with limits, and checks their times while there are any."""

    def __init__(
        self, limits: ConnectionLimits, handler: Handler, take: Take | None, **named: Any
    ) -> None:
        super().__init__(handler, request_factory=self._new_request, **named)
        self._limits = limits
        self._take = take
        self._checked = 0.0
        self._check_timer: asyncio.TimerHandle | None = None

    def __call__(self) -> web.RequestHandler:
        if self._take is None:
            return ClientConnection(self._limits, self, loop=self._loop, **self._kwargs)
        return ShortPathConnection(self._take, self._limits, self, loop=self._loop, **self._kwargs)

    def _new_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Make the request of aiohttp's task, which has just taken its message."""
        if isinstance(protocol, ShortPathConnection):
            protocol.begin_ordinary()
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if self._check_timer is None:
            self._checked = self._loop.time()
            self._check_timer = self._loop.call_later(connection.CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        now, self._check_timer = self._loop.time(), None
        for handler in self.connections:
            if isinstance(handler, ClientConnection):
                handler.check_times(now - self._checked)
        self._checked = now
        if self._connections:
            self._check_timer = self._loop.call_later(connection.CHECK_INTERVAL, self._check)


def make_runner(
    handler: Handler, limits: ConnectionLimits = DEFAULT_LIMITS, take: Take | None = None
) -> web.ServerRunner:
    """Return a runner that gives each unambiguous request to `handler`, body unread and undecoded.

    Whole small requests are offered to `take` first, if it is given (`short_path`).

    Raises `ConfigError` if aiohttp has only its parser in Python, which is more lenient.
    """
    if HttpRequestParser is HttpRequestParserPy:
        raise ConfigError(
            "aiohttp runs without its C parser: unset AIOHTTP_NO_EXTENSIONS, "
            "or install a wheel of aiohttp"
        )
    server = _Server(
        limits,
        _refusing_ambiguous(handler),
        take,
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        keepalive_timeout=KEEP_ALIVE_TIMEOUT,
        lingering_time=0.0,
        access_log=None,
        logger=log,
        # The connection bounds heads as a whole, and answers in order: aiohttp's parser forgets the
        # requests in front of a line that is too long.
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
    )
    return web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)


def _refusing_ambiguous(handler: Handler) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        problem = find_ambiguity(request.version, request.raw_path, request.headers)
        if "Upgrade" in request.headers:
            # We stay with HTTP/1.1, but aiohttp (3.14) loses bytes behind such a request: what came
            # next could be read from its middle.
            request._message = request._message._replace(should_close=True)
        if problem is None:
            try:
                return await handler(request)
            finally:
                if (error := request.content.exception()) is not None:
                    drop_tracebacks(error)
        if request.version not in HTTP_VERSIONS:
            # The status line repeats the version, and must not claim to support it.
            request._cache["version"] = HttpVersion10
        response = refuse_request(request, Refusal("bad_request", f"malformed request: {problem}"))
        await response.send(request, close=True)
        return response

    return handle


@contextlib.contextmanager
def on_disconnect(request: web.BaseRequest, callback: Callable[[], None]) -> Iterator[None]:
    """While in this context, call `callback` once the client's connection is lost, or already is.

    aiohttp cancels nothing then: an upload decides for itself what the loss means.
    """
    if request.transport is None:
        callback()
    protocol = request.protocol
    callbacks = protocol.disconnect_callbacks if isinstance(protocol, ClientConnection) else set()
    callbacks.add(callback)
    try:
        yield
    finally:
        callbacks.discard(callback)


def client_certificate(request: web.BaseRequest) -> str | None:
    """Return the name in the certificate of the client, None where it showed none."""
    return request.protocol.certificate if isinstance(request.protocol, ClientConnection) else None


def facts_of(request: web.BaseRequest) -> RequestFacts:
    """Return what is told of a request when it has ended."""
    facts = request.get(FACTS)
    if facts is None:
        facts = request[FACTS] = RequestFacts()
    return facts


def abort(request: web.BaseRequest) -> None:
    """Close the connection at once, without a response, or without the rest of it."""
    facts_of(request).aborted = True
    if request.transport is not None:
        request.transport.abort()
