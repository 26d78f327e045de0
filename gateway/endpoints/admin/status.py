"""What the gateway tells of itself, everything below `/-/` but the events (`steering`).

The rule: it only reads. Liveness and readiness are open to all; whether the rest may be seen is
settled before it gets here. May import server, siblings, inflight, commit.reserve, events, hooks
and below.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.commit.disk_space import DiskSpace
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.inflight import Inflight
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.events import protocols
from gateway.events.ledger import JournalLedger
from gateway.events.protocols import Depth
from gateway.http.responses import json_answer
from gateway.plugins.hooks import Hooks
from gateway.telemetry.metrics import Metrics, SharedQueueDepth, Waiting, together

OPEN_TO_ALL: Final = frozenset({("-", "health"), ("-", "ready")})

READY_SECONDS: Final = 1.0
"""How long an answer about readiness is kept: probes must not become a load."""

JOURNAL_SECONDS: Final = 5.0

ENGINE_SECONDS: Final = 2.0
"""How long an engine that is shared may take to count; then its figures are left out."""

MANY: Final = 100_000
MANY_SECONDS: Final = 10.0
"""From MANY waiting deliveries on a count is kept this long: it takes some tenths of a second."""


@dataclass(slots=True)
class StatusEndpoint:
    """Answers `GET /-/...`. Lives on the server's loop.

    `engines`: the ledgers that many nodes share, by name; of several processes the one of slot 0
    tells of them. Where there are any, they alone hold handlers back.
    `storage` tells whether the bucket can be reached, where there is one.
    """

    ledger: JournalLedger
    inflight: Inflight
    reserve: DiskSpace
    hooks: Hooks
    metrics: Metrics
    openapi: Callable[[], dict[str, Any]]
    siblings: ProcessClients
    slot: int = 0
    engines: Mapping[str, protocols.Ledger] = field(default_factory=dict)
    storage: Callable[[], Awaitable[bool]] | None = None
    _ready: tuple[float, dict[str, bool]] = (0.0, {})
    _depth: tuple[float, list[Depth]] = (0.0, [])

    async def answer(self, segments: tuple[str, ...], *, alone: bool = False) -> web.Response:
        """Answer for a path below `/-/`, given as decoded segments. Raises `Refusal`.

        `alone`: only what this process knows itself, without its siblings.
        """
        pages: dict[tuple[str, ...], Callable[[], Awaitable[web.Response]]] = {
            ("-", "health"): self._health,
            ("-", "ready"): self._readiness,
            ("-", "metrics"): lambda: self._metrics(alone=alone),
            ("-", "openapi.json"): self._openapi,
        }
        if segments in pages:
            return await pages[segments]()
        if segments[:2] == ("-", "uploads") and len(segments) == 3:
            return await self._upload(segments[2], alone=alone)
        raise Refusal("not_found", "there is no such page")

    async def _health(self) -> web.Response:
        return json_answer({"status": "ok"})

    async def _readiness(self) -> web.Response:
        until, checks = self._ready
        if time.monotonic() > until:
            checks = {
                "journal": await self._journal_writable(),
                "disk": await asyncio.to_thread(self.reserve.above_watermark),
                "scripts": self.hooks.alive,
            }
            if self.storage is not None:
                checks["storage"] = await self.storage()
            self._ready = (time.monotonic() + READY_SECONDS, checks)
        ready = all(checks.values())
        return json_answer({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def _journal_writable(self) -> bool:
        try:
            async with asyncio.timeout(JOURNAL_SECONDS):
                await asyncio.wrap_future(self.ledger.check_writable())
        except (sqlite3.Error, TimeoutError):
            return False
        return True

    async def _metrics(self, *, alone: bool) -> web.Response:
        try:
            depth = await self._counted()
            paused = frozenset[str]() if self.engines else await self.ledger.paused()
        except EventEngineUnavailable as fault:
            raise Refusal("journal_unavailable", str(fault)) from fault
        shared = self.engines if self.slot == 0 else {}
        engines = dict(zip(shared, await asyncio.gather(*map(_shared, shared.values())), strict=True))
        body = await asyncio.to_thread(self.metrics.render, _rows(depth), sorted(paused), engines)
        if self.siblings.sessions and not alone:
            told = {self.slot: body, **await self.siblings.ask_all("/-/metrics")}
            body = await asyncio.to_thread(together, told)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _counted(self) -> list[Depth]:
        until, depth = self._depth
        if time.monotonic() > until:
            depth = await self.ledger.depth()
            kept = MANY_SECONDS if sum(one.count for one in depth) >= MANY else 0.0
            self._depth = (time.monotonic() + kept, depth)
        return depth

    async def _upload(self, upload_id: str, *, alone: bool) -> web.Response:
        story = await self._own_story(upload_id)
        if story is None and not alone:
            story = await self.siblings.story(upload_id)
        if story is None:
            raise Refusal("not_found", "no upload of this id is known (any more)")
        return json_answer(story)

    async def _own_story(self, upload_id: str) -> dict[str, Any] | None:
        story = self.inflight.describe(upload_id)
        if story is None or story["state"] == "failed":
            # On its way, its row may yet be undone; ended, the journal knows better than we do.
            row = await asyncio.wrap_future(self.ledger.upload_history(upload_id))
            story = story if row is None else self._stored(row)
        return story

    def _stored(self, row: dict[str, Any]) -> dict[str, Any]:
        story = _stored(row)
        for told in story["handlers"]:
            progress = self.hooks.delivery_progress(told["event_id"], told["handler"])
            if progress is not None:
                told["progress"] = progress
        return story

    async def _openapi(self) -> web.Response:
        return json_answer(self.openapi())


async def _shared(engine: protocols.Ledger) -> SharedQueueDepth | None:
    """Count what waits in an engine, and is paused there; None where it does not answer now."""
    try:
        async with asyncio.timeout(ENGINE_SECONDS):
            depth, paused = await asyncio.gather(engine.depth(), engine.paused())
            return SharedQueueDepth(_rows(depth), sorted(paused))
    except (EventEngineUnavailable, TimeoutError):
        return None


def _rows(depth: list[Depth]) -> list[Waiting]:
    return [(one.handler, one.state, one.count, one.oldest) for one in depth]


def _stored(row: dict[str, Any]) -> dict[str, Any]:
    """Tell of a committed upload; of a handler's error the first line: the rest is the operator's."""
    return {
        "upload_id": row["id"],
        "state": "unsettled" if row["pending"] else "stored",
        "path": row["path"],
        "bytes": row["bytes"],
        "mime": row["mime"],
        "created": row["created"],
        "committed": row["committed"],
        **({"place": _shown(row["place"])} if row["place"] else {}),
        "handlers": [
            {
                "handler": delivery["handler"],
                "event_id": delivery["event_id"],
                "state": delivery["state"],
                "attempt": delivery["attempt"],
                "error": _first_line(delivery["error"]),
                "runs": [{**run, "error": _first_line(run["error"])} for run in delivery["runs"]],
            }
            for delivery in row["handlers"]
        ],
    }


def _shown(place: str) -> dict[str, Any]:
    """Tell where an object lies."""
    told = json.loads(place)
    return {name: told.get(name) for name in ("bucket", "key", "etag")}


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0] if text else text
