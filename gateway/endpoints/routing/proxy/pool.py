"""Plain connections to upstreams, kept for the next exchange.

Each is given to one exchange at a time. The newest is used first, so that those that a burst has opened
end by themselves.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

import aiohappyeyeballs

from gateway.endpoints.routing.proxy.addresses import UpstreamAddresses, split_authority, with_tls_port
from gateway.endpoints.routing.proxy.connection import UpstreamConnection

KEEP_ALIVE_TIMEOUT: Final = 4.0
"""Seconds that an idle connection to an upstream is kept: less than most servers keep theirs, as a
request with a body cannot be sent again if they close it meanwhile (RFC 9110 section 9.2.2)."""

MAX_IDLE_CONNECTIONS: Final = 256
"""Idle connections that are kept to one upstream."""

ADDRESS_DELAY: Final = 0.25
"""Seconds before the next address of an upstream is tried beside the one before (RFC 8305)."""


class ConnectionPool:
    """The connections of all upstreams, by authority (`host:port`)."""

    def __init__(self) -> None:
        self._addresses = UpstreamAddresses()
        self._idle: dict[str, deque[UpstreamConnection]] = {}
        self._open: set[UpstreamConnection] = set()

    def take(self, upstream: str) -> UpstreamConnection | None:
        """Return an idle connection, None if there is none."""
        idle = self._idle.get(upstream)
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
        return None

    def drop_idle(self, upstream: str) -> None:
        """Close what is idle: an upstream that has closed one connection may have closed them all."""
        for connection in self._idle.pop(upstream, ()):
            connection.cancel()

    async def open(self, upstream: str) -> UpstreamConnection:
        """Open a connection. Raises `OSError`."""
        return await self._connect(upstream, self._put, None)

    async def open_single(self, upstream: str, tls: ssl.SSLContext | None) -> UpstreamConnection:
        """Open a connection for one exchange, after which it is not kept. Raises `OSError`."""
        return await self._connect(upstream, UpstreamConnection.cancel, tls)

    async def _connect(
        self, upstream: str, idle: Callable[[UpstreamConnection], None], tls: ssl.SSLContext | None
    ) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        authority = upstream if tls is None else with_tls_port(upstream)
        addresses = await self._addresses.find(authority)
        try:
            connected = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=ADDRESS_DELAY, interleave=1, loop=loop
            )
        except BaseException:
            self._addresses.forget(authority)  # it may have moved
            raise
        factory = functools.partial(UpstreamConnection, upstream, idle, self._forget)
        name = None if tls is None else split_authority(authority)[0]
        _, connection = await loop.create_connection(
            factory, sock=connected, ssl=tls, server_hostname=name
        )
        if not connection.is_usable():
            raise ConnectionResetError("the upstream closed the connection at once")
        self._open.add(connection)
        return connection

    def _put(self, connection: UpstreamConnection) -> None:
        idle = self._idle.setdefault(connection.upstream, deque())
        if len(idle) < MAX_IDLE_CONNECTIONS:
            connection.expire_after(KEEP_ALIVE_TIMEOUT)
            idle.append(connection)
        else:
            connection.cancel()

    def _forget(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.upstream)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.upstream]

    def close(self) -> None:
        """Close every connection."""
        for connection in tuple(self._open):
            connection.cancel()
