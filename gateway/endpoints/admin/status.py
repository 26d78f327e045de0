"""Endpoints that report on the gateway: liveness, readiness, metrics and the state of an upload."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.auth.request import IncomingRequest
from gateway.commit.disk import DiskSpace
from gateway.commit.partials import PartialStore
from gateway.domain.units import iso_time
from gateway.endpoints.admin.partial_status import progress_of, waiting_upload
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.inflight import Inflight, named_principal
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events import protocols
from gateway.events.ledger import JournalLedger
from gateway.events.protocols import Depth
from gateway.events.upload_log import logged_upload
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

KEPT_HEADERS: Final = "kept_headers"
"""The headers of an upload that responses to HEAD repeat: for its client, and for the operator."""

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
        except EventEngineUnavailable as error:
            raise Refusal("journal_unavailable", str(error)) from error
        shared = self.engines if self.slot == 0 else {}
        engines = dict(
            zip(shared, await asyncio.gather(*map(_shared_depth, shared.values())), strict=True)
        )
        body = await asyncio.to_thread(self.metrics.render, _rows(depth), sorted(paused), engines)
        if self.processes.sessions and not _this_process_only(incoming):
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


_HANDLER_STATES: Final[Mapping[str, str]] = {"ready": "queued", "relayed": "queued", "delayed": "retry"}
"""States of a handler that have another name on the page of an upload. `done` needs a known run."""


@dataclass(slots=True)
class UploadStatusEndpoint:
    """Describes one upload: active, failed lately, or stored, with its handlers' runs.

    `engines` are asked for the deliveries that the journal has relayed to them.
    """

    ledger: JournalLedger
    inflight: Inflight
    hooks: Hooks
    processes: ProcessClients
    engines: Mapping[str, protocols.Ledger] = field(default_factory=dict)
    partials: PartialStore | None = None

    async def describe(self, incoming: IncomingRequest) -> dict[str, Any]:
        """Describe the upload of a request. Raises `Refusal`: `not_found`, `process_unavailable`."""
        upload_id = incoming.variables["upload_id"]
        if _this_process_only(incoming):
            status = await self._own_status(upload_id)
        else:
            status = await self._status(upload_id)
        if status is None or _belongs_to_others(incoming, status):
            raise Refusal("not_found", "no upload of this id is known (any more)")
        if not incoming.owner:
            status.pop(KEPT_HEADERS, None)  # what one client sent is not for all that may see the status
        return status

    async def _status(self, upload_id: str) -> dict[str, Any] | None:
        """Return the status of an upload of any process, a partial one too."""
        partial = None if self.partials is None else await self.partials.status(upload_id)
        if partial is None:
            return await self.find(upload_id)
        try:
            status = await self.find(upload_id)
        except Refusal:  # a process does not respond: the store knows as much as it can
            status = None
        if status is None or status["state"] == "failed":  # an earlier request
            status = waiting_upload(partial)
        return {**status, **progress_of(partial)}

    async def find(self, upload_id: str) -> dict[str, Any] | None:
        """Return what is told of an upload of any process, None where there is none.

        Raises `Refusal("process_unavailable")`.
        """
        status = await self._own_status(upload_id)
        return status or await self.processes.upload_status(upload_id)

    async def _own_status(self, upload_id: str) -> dict[str, Any] | None:
        status = self.inflight.describe(upload_id)
        if status is None or status["state"] == "failed":
            # The row of an active upload may yet be undone; of an ended one the journal knows more.
            row = await asyncio.wrap_future(self.ledger.upload_history(upload_id))
            status = status if row is None else self._stored(await self._with_engines(row))
        return status

    async def _with_engines(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return an upload with what the engines know of relayed deliveries, as far as they answer."""
        relayed = {d["event_id"] for d in row["handlers"] if d["state"] == "relayed"}
        in_engines: dict[tuple[str, str], dict[str, Any]] = {}
        try:
            async with asyncio.timeout(ENGINE_TIMEOUT):
                queries = [engine.history(e) for engine in self.engines.values() for e in relayed]
                for history in await asyncio.gather(*queries):
                    for delivery in history.deliveries if history is not None else ():
                        in_engines[delivery.row.event_id, delivery.row.handler] = delivery.fields()
        except (EventEngineUnavailable, TimeoutError):
            pass
        handlers = [in_engines.get((d["event_id"], d["handler"]), d) for d in row["handlers"]]
        return {**row, "handlers": handlers}

    def _stored(self, row: dict[str, Any]) -> dict[str, Any]:
        """Describe a committed upload."""
        return {
            "upload_id": row["id"],
            "state": "unsettled" if row["pending"] else "stored",
            **{name: row[name] for name in ("path", "bytes", "mime")},
            **{name: iso_time(row[name]) for name in ("created", "committed")},
            "principal": named_principal(json.loads(row["principal"] or "null")),
            "remote": row["remote"],
            **({} if row["digests"] == "{}" else {"digests": json.loads(row["digests"])}),
            "etag": logged_upload(row).etag,
            **({"place": shown_place(json.loads(row["place"]))} if row["place"] else {}),
            **({KEPT_HEADERS: json.loads(row[KEPT_HEADERS])} if row[KEPT_HEADERS] else {}),
            "handlers": [self._handler_status(delivery) for delivery in row["handlers"]],
        }

    def _handler_status(self, delivery: dict[str, Any]) -> dict[str, Any]:
        """Describe a handler's runs; of an error only the first line: the log has the rest."""
        progress = self.hooks.delivery_progress(delivery["event_id"], delivery["handler"])
        return {
            **{name: delivery[name] for name in ("handler", "event_id")},
            "state": _HANDLER_STATES.get(delivery["state"], delivery["state"]),
            "attempt": delivery["attempt"],
            "error": _first_line(delivery["error"]),
            "runs": [
                {**run, "ended": iso_time(run["ended"]), "error": _first_line(run["error"])}
                for run in delivery["runs"]
            ],
            **({} if progress is None else {"progress": progress}),
        }


def _belongs_to_others(incoming: IncomingRequest, status: Mapping[str, Any]) -> bool:
    """Tell whether an upload is none of the caller's, who has a key and sees no others."""
    caller = incoming.caller
    if incoming.owner or caller is None or caller.key is None:
        return False
    return bool(status["principal"] != named_principal(caller.principal))


def _this_process_only(incoming: IncomingRequest) -> bool:
    return incoming.params.get("scope") == ["slot"]


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


def shown_place(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object of an upload as it is told."""
    return {name: place.get(name) for name in ("bucket", "key", "etag")}


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0] if text else text
