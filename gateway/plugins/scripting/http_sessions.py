"""The HTTP client sessions of the executors: each loop has one, and calls of one host a fair share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from gateway.limits import FairShare

CONNECT_TIMEOUT: Final = 30.0
"""Seconds to connect to a service: name, TCP and TLS together."""

MAX_CALLS: Final = 2000
"""Calls of one executor loop that wait for responses; one host may have as many as are still free."""


@dataclass(frozen=True, slots=True)
class LoopClient:
    """What calls of one loop share. No call waits for a connection."""

    session: aiohttp.ClientSession
    calls: FairShare


REUSED: Final = "reused"
"""Is set in the `trace_request_ctx` of a request, a dict, that uses the connection of an earlier one."""


def _noting_reuse() -> aiohttp.TraceConfig:
    async def note(_: aiohttp.ClientSession, context: Any, __: object) -> None:
        if isinstance(context.trace_request_ctx, dict):
            context.trace_request_ctx[REUSED] = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


class HttpSessions:
    """The clients of all loops. Each method belongs to the loop that runs."""

    def __init__(self) -> None:
        self._clients: dict[asyncio.AbstractEventLoop, LoopClient] = {}

    def client(self) -> LoopClient:
        """Return the client of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[_noting_reuse()],
            )
            self._clients[loop] = LoopClient(session, FairShare("callouts", MAX_CALLS))
        return self._clients[loop]

    async def close(self) -> None:
        """Close the session of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.session.close()
