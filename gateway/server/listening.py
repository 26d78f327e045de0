"""The port of the network, whose TLS certificates may change while it is open."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from aiohttp import web

BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted."""


class PublicPort:
    """Accepts connections on a bound socket, for one process. `listen` may be called again."""

    def __init__(self, runner: web.ServerRunner, bound: socket.socket) -> None:
        self._runner = runner
        self._socket = bound
        self._site: web.SockSite | None = None

    async def listen(self, tls: ssl.SSLContext | None) -> None:
        """Accept connections with these certificates from now on; None: plain HTTP.

        A context of its own for each time, as one can forget no authority. Connections that are open
        stay, and those that wait in the kernel are served by the new one.
        """
        former = self._site
        bound = self._socket if former is None else self._socket.dup()
        site = web.SockSite(self._runner, bound, ssl_context=tls, backlog=BACKLOG)
        try:
            await site.start()
        except BaseException:
            if former is not None:
                bound.close()
            raise
        self._site, self._socket = site, bound
        if former is not None:
            await former.stop()
