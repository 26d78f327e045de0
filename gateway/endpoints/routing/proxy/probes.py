"""Probes of upstreams: a GET each, all the time, over connections of their own.

A probe takes no place of requests. What it reads is the head of the response; then the connection is
closed. Each process probes for itself: it may reach an upstream that another one does not.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from contextvars import Context
from typing import Final

from aiohttp import hdrs

from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.proxy.connection import PlainResponse, ResponseMissingError
from gateway.endpoints.routing.proxy.pool import ConnectionPool
from gateway.endpoints.routing.proxy.tls import tls_of
from gateway.endpoints.routing.proxy.upstreams import UpstreamGroup
from gateway.endpoints.routing.rules import ActiveHealth
from gateway.http.tracebacks import drop_tracebacks
from gateway.storage.waiting import cancel_and_wait
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.routing")

MAX_PROBES: Final = 64
"""Probes at the same time; others wait for them, each of which lasts `health.timeout` at most."""

JITTER: Final = 0.1
"""The part of `health.every` by which a wait is shorter, so that processes do not probe together."""


class UpstreamProbes:
    """Probes the upstreams of the routes in force that have `health`, until `close`."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._places = asyncio.Semaphore(MAX_PROBES)
        self._probed: dict[UpstreamGroup, _ProbedGroup] = {}

    def follow(self, groups: Iterable[tuple[UpstreamGroup, Route]]) -> None:
        """Probe these from now on, and no others. Those that are probed already go on."""
        before, self._probed = self._probed, {}
        for group, route in groups:
            if group.health is None:
                continue
            probed = before.pop(group, None)
            if probed is None:
                probed = _ProbedGroup(self._pool, self._places, group, group.health)
            self._probed[group] = probed
            probed.follow(route)
        for gone in before.values():
            gone.cancel()

    async def close(self) -> None:
        """Stop. Connections are closed at once."""
        tasks = [task for probed in self._probed.values() for task in probed.cancel()]
        self._probed = {}
        for task in tasks:
            await cancel_and_wait(task)


class _ProbedGroup:
    """The probes of the upstreams of a group; `route` is one of those in force, for its TLS."""

    route: Route

    def __init__(
        self,
        pool: ConnectionPool,
        places: asyncio.Semaphore,
        group: UpstreamGroup,
        health: ActiveHealth,
    ) -> None:
        self._pool = pool
        self._places = places
        self._group = group
        self._health = health
        self._tasks: list[asyncio.Task[None]] = []

    def follow(self, route: Route) -> None:
        """Let `route` be the one in force. A first one begins the probes, in a context of no request."""
        self.route, loop = route, asyncio.get_running_loop()
        for upstream in () if self._tasks else self._group.names:
            self._tasks.append(loop.create_task(self._probe_again(upstream), context=Context()))

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel the probes; return their tasks."""
        for task in self._tasks:
            task.cancel()
        return self._tasks

    async def _probe_again(self, upstream: str) -> None:
        while True:
            async with self._places:
                failure = await self._probe(upstream)
            if self._group.report(upstream, works=failure is None):
                self._log_change(upstream, failure)
            part = random.uniform(1 - JITTER, 1)  # noqa: S311 (spreads load, guards nothing)
            await asyncio.sleep(self._health.every * part)

    async def _probe(self, upstream: str) -> str | None:
        """Return why an upstream does not work; None if it does."""
        seconds = self._health.timeout
        try:
            async with asyncio.timeout(seconds):
                status = await self._ask(upstream)
        except TimeoutError:
            return f"no response within {seconds:g} seconds"
        except Exception as error:  # of the network, of TLS, of names that cannot be resolved
            drop_tracebacks(error)
            return f"no response: {error.strerror if isinstance(error, OSError) else error}"
        return None if status in self._health.expect else f"status {status}"

    async def _ask(self, upstream: str) -> int:
        """Return the status of a response."""
        route, answered = self.route, asyncio.get_running_loop().create_future()

        def receive(response: PlainResponse | None, error: ResponseMissingError | None) -> None:
            if answered.done():
                return
            if response is not None:
                answered.set_result(response.status)
            elif error is not None:
                answered.set_exception(error)

        tls = tls_of(route) if route.scheme == "https" else None
        connection = await self._pool.open_single(upstream, tls)
        try:
            request = probe_request(upstream, self._health.path)
            connection.send(request, hdrs.METH_GET, self._health.timeout, receive)
            status: int = await answered
            return status
        finally:
            connection.cancel()

    def _log_change(self, upstream: str, failure: str | None) -> None:
        fields = {"upstream": upstream, "route": self.route.name}
        if failure is None:
            log.info("the upstream works again", extra=event("upstream.recovered", **fields))
        else:
            message = "a probe of the upstream failed: %s"
            log.warning(message, failure, extra=event("upstream.failed", **fields, code="probe_failed"))


def probe_request(upstream: str, target: str) -> bytes:
    """Return the request of a probe."""
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {upstream}",
        "User-Agent: upload-gateway-probe",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode()
