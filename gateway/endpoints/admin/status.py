"""Endpoints that report on the gateway: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.auth.request import IncomingRequest
from gateway.commit.disk import DiskSpace
from gateway.endpoints.admin.processes import ProcessClients, this_process_only
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events import protocols
from gateway.events.held_log import HeldLog
from gateway.events.ledger import JournalLedger
from gateway.events.protocols import Depth
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.http.sockets import descriptors_left
from gateway.plugins.hooks import Hooks
from gateway.telemetry.metrics import Metrics, SharedQueueDepth, Waiting, merge_expositions

READY_TTL: Final = 1.0
"""Seconds for which readiness is cached: probes must not become a load."""

JOURNAL_TIMEOUT: Final = 5.0
"""Seconds that the test write to the journal may take."""

ENGINE_TIMEOUT: Final = 2.0
"""Seconds that a shared engine may take to answer; after that what it knows is left out."""

_HANGS: Final = "look at the state of these processes, or restart the gateway"

MANY_DELIVERIES: Final = 100_000
MANY_DELIVERIES_TTL: Final = 10.0
"""Seconds for which a count of MANY_DELIVERIES or more is cached: it takes some tenths of a second."""


@dataclass(slots=True)
class ReadinessEndpoint:
    """Serves `/-/health` and `/-/ready`. `storage` checks the bucket, where there is one.

    A process that hangs makes all not ready: the kernel goes on giving it connections. `reasons` tells
    what an operator can do.
    """

    ledger: JournalLedger
    disk_space: DiskSpace
    hooks: Hooks
    storage: Callable[[], Awaitable[bool]] | None = None
    processes: ProcessClients | None = None
    _cached: tuple[float, dict[str, bool]] = (0.0, {})
    _reasons: dict[str, str] = field(default_factory=dict)

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"health": self._health, "ready": self._ready}

    async def _health(self, _: IncomingRequest) -> Response:
        return json_response({"status": "ok"})

    async def _ready(self, _: IncomingRequest) -> Response:
        until, checks = self._cached
        if time.monotonic() > until:
            self._reasons = {}
            checks = {
                "journal": await self._journal_writable(),
                "disk": await asyncio.to_thread(self.disk_space.accepts_uploads),
                "scripts": self.hooks.alive,
                "descriptors": await asyncio.to_thread(descriptors_left),
            }
            if self.storage is not None:
                checks["storage"] = await self.storage()
            self._cached = (time.monotonic() + READY_TTL, checks)
        reasons = self._reasons.copy()
        if self.processes is not None and self.processes.sessions:
            hanging = sorted(self.processes.unresponsive())
            checks = checks | {"processes": not hanging}
            if hanging:
                reasons["processes"] = f"unresponsive: {', '.join(map(str, hanging))}; {_HANGS}"
        ready = all(checks.values())
        body = {"ready": ready, "checks": checks} | ({"reasons": reasons} if reasons else {})
        return json_response(body, 200 if ready else 503)

    async def _journal_writable(self) -> bool:
        try:
            async with asyncio.timeout(JOURNAL_TIMEOUT):
                await asyncio.wrap_future(self.ledger.check_writable())
        except (sqlite3.Error, TimeoutError) as error:
            self._reasons["journal"] = str(error) or f"no answer within {JOURNAL_TIMEOUT:g} s"
            return False
        return True


@dataclass(slots=True)
class MetricsEndpoint:
    """Serves `/-/metrics` for all processes of the gateway.

    `engines` are the ledgers that many nodes share, by name; of several processes the one of slot 0
    reports them. Where there are any, only they pause handlers.
    """

    metrics: Metrics
    ledger: JournalLedger
    held: HeldLog
    processes: ProcessClients
    slot: int = 0
    engines: Mapping[str, protocols.Ledger] = field(default_factory=dict)
    _cached: tuple[float, list[Depth]] = (0.0, [])

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"metrics": self._render}

    async def _render(self, incoming: IncomingRequest) -> Response:
        try:
            depth = await self._depth()
            paused = frozenset[str]() if self.engines else await self.ledger.paused()
            held = await asyncio.wrap_future(self.held.count())
        except (EventEngineUnavailable, sqlite3.Error) as error:
            raise Refusal("journal_unavailable", str(error)) from error
        shared = self.engines if self.slot == 0 else {}
        engines = dict(
            zip(shared, await asyncio.gather(*map(_shared_depth, shared.values())), strict=True)
        )
        body = await asyncio.to_thread(self.metrics.render, _rows(depth), sorted(paused), engines, held)
        if self.processes.sessions and not this_process_only(incoming):
            bodies = {self.slot: body, **await self.processes.get_all("/-/metrics")}
            body = await asyncio.to_thread(merge_expositions, bodies)
        return Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _depth(self) -> list[Depth]:
        until, depth = self._cached
        if time.monotonic() > until:
            depth = await self.ledger.depth()
            many = sum(row.count for row in depth) >= MANY_DELIVERIES
            self._cached = (time.monotonic() + (MANY_DELIVERIES_TTL if many else 0.0), depth)
        return depth


async def _shared_depth(engine: protocols.Ledger) -> SharedQueueDepth | None:
    """Count what waits in an engine and what is paused there; None if it does not respond now."""
    try:
        async with asyncio.timeout(ENGINE_TIMEOUT):
            depth, paused = await asyncio.gather(engine.depth(), engine.paused())
            return SharedQueueDepth(_rows(depth), sorted(paused))
    except (EventEngineUnavailable, TimeoutError):
        return None


def _rows(depth: list[Depth]) -> list[Waiting]:
    return [(row.handler, row.state, row.count, row.oldest) for row in depth]
