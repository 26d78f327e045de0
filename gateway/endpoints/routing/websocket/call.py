"""Sends one handshake to one upstream, over a connection of its own."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import hdrs

from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.connection import (
    PlainResponse,
    ResponseMissingError,
    UpstreamConnection,
)
from gateway.endpoints.routing.proxy.errors import UpstreamFailed, not_http, silent, unreachable
from gateway.endpoints.routing.proxy.plain_call import encode_head
from gateway.endpoints.routing.proxy.tls import tls_of
from gateway.endpoints.routing.proxy.upstream_call import UpstreamCaller, target_of
from gateway.endpoints.routing.websocket_handshake import SWITCHING_PROTOCOLS, UPGRADE, VERSION
from gateway.errors import ClientDisconnected, GatewayError
from gateway.http.protocol import on_disconnect
from gateway.http.tracebacks import drop_tracebacks


class Handshake(NamedTuple):
    """A handshake for one upstream: what is sent, and to which."""

    context: RequestContext
    upstream: str
    data: bytes


class AnsweredHandshake(NamedTuple):
    """The upstream's response. After a 101 the connection is not read until it is taken over."""

    response: PlainResponse
    connection: UpstreamConnection


def encode_handshake(
    caller: UpstreamCaller, context: RequestContext, upstream: str, key: str
) -> Handshake:
    """Return the handshake for an upstream. Raises as `forwarding.request_headers`."""
    headers = caller.plain_headers(context, upstream, context.request.scheme)
    headers.update(UPGRADE)
    headers[hdrs.SEC_WEBSOCKET_VERSION] = VERSION
    headers[hdrs.SEC_WEBSOCKET_KEY] = key  # what the response is checked against
    target = target_of(context).partition("#")[0]
    return Handshake(context, upstream, encode_head(hdrs.METH_GET, target, headers) + b"\r\n")


async def call_upstream(caller: UpstreamCaller, handshake: Handshake) -> AnsweredHandshake:
    """Send a handshake. Raises `UpstreamFailed`, `Refusal("bad_gateway")`, `ClientDisconnected`."""
    limits, loop = handshake.context.route.limits, asyncio.get_running_loop()
    connected = await _connect(caller, handshake)
    answered: asyncio.Future[PlainResponse] = loop.create_future()

    def receive(response: PlainResponse | None, error: ResponseMissingError | None) -> None:
        if response is not None and response.status == SWITCHING_PROTOCOLS:
            connected.stop_reading()  # what follows is for the client
        if answered.done():
            connected.cancel()
        elif response is not None:
            answered.set_result(response)
        else:
            answered.set_exception(_missing(error, limits.idle))

    def disconnected() -> None:
        if not answered.done():
            message = "the client disconnected before the upstream's response"
            answered.set_exception(ClientDisconnected(message))

    try:
        with on_disconnect(handshake.context.request, disconnected):
            if not answered.done():
                connected.send(handshake.data, hdrs.METH_GET, limits.idle, receive)
            return AnsweredHandshake(await answered, connected)
    except BaseException:
        connected.cancel()
        raise


async def _connect(caller: UpstreamCaller, handshake: Handshake) -> UpstreamConnection:
    route = handshake.context.route
    seconds, tls = route.limits.connect, tls_of(route) if route.scheme == "https" else None
    try:
        async with asyncio.timeout(seconds):
            return await caller.pool.open_single(handshake.upstream, tls)
    except Exception as error:  # OSError, TimeoutError, or a name that cannot be resolved
        failure = unreachable(error, seconds)
        drop_tracebacks(error)
        raise failure from error


def _missing(error: ResponseMissingError | None, idle: float) -> GatewayError:
    if error is not None and error.timed_out:
        return UpstreamFailed(silent(idle), connected=True)
    if error is not None and error.closed:
        return UpstreamFailed(not_http(), connected=True, closed=True)
    return not_http()
