"""One exchange of a small request over a plain connection to an upstream: a callback, no task.

Only a connection that has to be opened takes a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final, NamedTuple

from aiohttp import hdrs
from multidict import CIMultiDict

from gateway.endpoints.routing.proxy.connection import (
    PlainResponse,
    ResponseMissingError,
    UpstreamConnection,
)
from gateway.endpoints.routing.proxy.errors import (
    FINAL_STATUSES,
    UpstreamFailed,
    not_final,
    not_http,
    silent,
    unreachable,
)
from gateway.endpoints.routing.proxy.pool import ConnectionPool
from gateway.errors import GatewayError
from gateway.http.tracebacks import drop_tracebacks

MAX_PLAIN_BODY_BYTES: Final = 64 << 10
"""Bytes of a body that is sent in one piece with its head."""

WITHOUT_LENGTH: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
"""Methods that do not declare that they have no body (RFC 9110 section 8.6)."""


class PlainRequest(NamedTuple):
    """A whole request for one upstream, as bytes; seconds to connect, and for the response to begin."""

    upstream: str
    method: str
    data: bytes
    connect: float
    idle: float


Done = Callable[[PlainResponse | None, GatewayError | None], None]
"""Gets the response, or why there is none: `UpstreamFailed`, or a `Refusal` for the client."""


class PlainCall:
    """Sends a request once `start` is called. `done` is called once, unless it is cancelled before."""

    __slots__ = ("_connection", "_done", "_opening", "_pool", "_request")

    def __init__(self, pool: ConnectionPool, request: PlainRequest, done: Done) -> None:
        self._pool = pool
        self._request = request
        self._done = done
        self._connection: UpstreamConnection | None = None
        self._opening: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send the request over an idle connection, or over a new one.

        A new one does not keep the context of this request, which it would outlive.
        """
        connection = self._pool.take(self._request.upstream)
        if connection is not None:
            self._send(connection)
        else:
            self._opening = asyncio.get_running_loop().create_task(self._open(), context=Context())

    def cancel(self) -> None:
        """Close the connection, so that the upstream can stop working on the response."""
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            self._connection.cancel()

    async def _open(self) -> None:
        seconds = self._request.connect
        try:
            async with asyncio.timeout(seconds):
                connection = await self._pool.open(self._request.upstream)
        except Exception as error:  # OSError, TimeoutError, or a name that cannot be resolved
            self._done(None, unreachable(error, seconds))
            drop_tracebacks(error)
        else:
            self._opening = None
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.send(self._request.data, self._request.method, self._request.idle, self._receive)

    def _receive(self, response: PlainResponse | None, error: ResponseMissingError | None) -> None:
        self._connection = None
        if response is None:
            self._done(None, self._failure(error))
        elif response.status not in FINAL_STATUSES:  # 101 too: no other protocol was requested
            response.close()
            self._done(None, not_final(response.status))
        else:
            self._done(response, None)

    def _failure(self, error: ResponseMissingError | None) -> GatewayError:
        if error is not None and error.timed_out:
            return UpstreamFailed(silent(self._request.idle), connected=True)
        if error is not None and error.closed:
            self._pool.drop_idle(self._request.upstream)
            return UpstreamFailed(not_http(), connected=True, closed=True)
        return not_http()


def encode_head(method: str, target: str, headers: CIMultiDict[str]) -> bytes:
    """Return the head of a request up to its framing; `headers` are checked already, and hold `Host`."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {headers[hdrs.HOST]}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name != hdrs.HOST]
    return "\r\n".join([*lines, ""]).encode()


def complete_request(head: bytes, method: str, body: bytes, lines: bytes = b"") -> bytes:
    """Return a whole request; `lines` are further header lines, each with its end."""
    head += lines
    if not body and method in WITHOUT_LENGTH:
        return head + b"\r\n"
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
